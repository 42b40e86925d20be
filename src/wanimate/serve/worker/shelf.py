"""Clips of the library in a worker's hands: what was prepared for one job serves the next.

The same clip, picture and settings have the same guides. The same clip with another picture has the same performer, who is not
looked for again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wanimate.config import PreprocessSettings
from wanimate.events import Event, Notice
from wanimate.library import places
from wanimate.library.look import look_at
from wanimate.library.names import Shelf
from wanimate.media.files import sha256
from wanimate.preprocess.folder import MANIFEST
from wanimate.serve.storage import NotStored
from wanimate.serve.worker.work import Refused, Work
from wanimate.versions import version_of

_WHOLE = "whole"
"""The file that is stored last."""
_NOT_DECIDING = {"performers", "mask", "limits"}
"""Fields of `PreprocessSettings` that name places, or only refuse."""


def look(work: Work, file: Path) -> None:
    """Look into a file that has come into the library. Raises Refused, InputError, StorageAway."""
    entry = dict(work.job.facts.get("library", {}))
    shelf: Shelf = "clip" if "video" in entry else "character"
    content = entry["video" if shelf == "clip" else "image"]["sha256"]
    if sha256(file) != content:
        raise Refused("InvalidFile.Content", "The file is not the one that came into the library.")
    folder = work.scratch / "look"
    folder.mkdir()
    seen = look_at(shelf, file, folder)
    for made in sorted(folder.iterdir()):
        work.keep(made, places.beside(content, made.name))
    work.facts["look"] = seen.values()


@dataclass
class PreparedClip:
    """What the library keeps of a job's clip.

    place: storage prefix of the guides that the job needs. found: folder for `preprocess.performers`.
    """

    work: Work
    content: str
    place: str
    found: Path

    @classmethod
    def of(cls, work: Work, image: Path, settings: PreprocessSettings, area: int) -> PreparedClip | None:
        """None where the clip is none of the library's."""
        named = work.job.facts.get("library", {}).get("video")
        if named is None:
            return None
        content = named["sha256"]
        decides: dict[str, Any] = {
            "wanimate": version_of("wanimate"), "mode": work.submission.mode, "image": sha256(image), "area": area,
            "mask": None if settings.mask is None else sha256(settings.mask),
            "settings": settings.model_dump(mode="json", exclude=_NOT_DECIDING),
        }  # fmt: skip
        key = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
        return cls(work, content, places.guides_of(content, key), work.scratch / "found")

    def manifest(self) -> Any:
        """The manifest of the guides, where an earlier job has made them; else None."""
        storage = self.work.storage
        try:
            storage.stat(f"{self.place}/{_WHOLE}")
            found = json.loads(b"".join(storage.read(f"{self.place}/guides/{MANIFEST}")))
        except NotStored:
            return None
        storage.put(f"{self.place}/{_WHOLE}", [b"."])  # its time tells the sweeper that they are used
        return found

    def told(self, manifest: Any) -> Iterator[Event]:
        """What the job that made them was told."""
        yield Notice("the guides of this clip and picture are there from an earlier job")
        for text in manifest.get("warnings", []):
            yield Notice(text, "warning")

    def fetch(self) -> None:
        """Bring what is known of performers in the clip into `found`."""
        self.found.mkdir(parents=True, exist_ok=True)
        self.work.fetch(places.found_in(self.content), self.found)

    def keep(self) -> None:
        """Store what was found, and that the guides are whole."""
        prefix = places.found_in(self.content)
        for file in sorted(self.found.iterdir()):
            if not self.work.storage.exists(f"{prefix}/{file.name}"):
                self.work.keep(file, f"{prefix}/{file.name}")
        self.work.storage.put(f"{self.place}/{_WHOLE}", [b"."])
