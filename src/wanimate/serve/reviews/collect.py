"""What an archive takes of a shot: every version with its files, brought from the storage into a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from wanimate.archive.items import INPUTS, MISSING, Item, Lack, Piece, Places, inputs_of
from wanimate.errors import one_line
from wanimate.finish.lock import record_path
from wanimate.media.files import read_own_json
from wanimate.preprocess.folder import MANIFEST
from wanimate.review.exports import as_json
from wanimate.review.records import Shot, Version
from wanimate.serve.reviews.desk import Desk
from wanimate.serve.storage import NotStored, Storage
from wanimate.serve.tables import Job, storable
from wanimate.weights.fingerprint import fingerprint

_GONE = "it is not kept any more"


def collected(desk: Desk, shot: Shot, folder: Path, prefix: str = "") -> tuple[list[Item], dict[str, bytes]]:
    """The items of a shot's versions, oldest first, and what was said and decided of them, by name in the archive.

    Args:
        folder: where files go that the archive is made of. prefix: before the names of versions, where an archive has several
            shots.

    Raises:
        StorageAway: the storage does not answer.
    """
    items = []
    for version in shot.versions:
        with desk.database.read() as session:
            job = session.get(Job, storable(version.job))
            began = None if job is None else _first(session, job)
        name = f"{prefix}v{version.number:03}"
        about = {"shot": shot.id, "version": version.number, "job": version.job, "state": version.state.value}
        if began is not None and "library" in began.facts:
            about["library"] = began.facts["library"]
        if job is None or "video" not in job.result or "record" not in job.result:
            lack = Lack(name, "result", f"version {version.number}", MISSING, _GONE)
            items.append(Item(name, {}, (), (lack,), about))
        else:
            items.append(_Version(desk, folder, name, version).item(job, began or job, about))
    return items, {f"review/{prefix or 'shot-'}{shot.id}.json": as_json(shot).encode()}


def _first(session: Session, job: Job) -> Job:
    """The job whose clip and picture this one goes back to."""
    seen = {job.id}
    while not job.facts.get("uploads") and (parent := job.submission.get("parent")) and parent not in seen:
        above = session.get(Job, parent)
        if above is None:
            break
        seen.add(parent)
        job = above
    return job


class _Version:
    """One version's files, on their way into a folder."""

    def __init__(self, desk: Desk, folder: Path, name: str, version: Version) -> None:
        self._storage: Storage = desk.storage
        self._loras = {path.name: path for path in desk.settings.loras.values()}
        self._folder, self._name, self._version = folder / name, name, version
        self._shared = folder / "guides"
        self._lacks: list[Lack] = []

    def item(self, job: Job, began: Job, about: Mapping[str, Any]) -> Item:
        result = self._fetched("result", job.result["video"])
        record_file = self._fetched("record", job.result["record"])
        told = {} if record_file is None else json.loads(record_file.read_bytes())
        if result is None or record_file is None:
            return Item(self._name, told, (), tuple(self._lacks), about)
        zipped = result.suffix == ".zip"
        proof = f"sha256:{self._version.sha256}" if zipped and self._version.sha256 else told["result"]["sha256"]
        pieces = [
            Piece("result", result, result.name, None if zipped and not self._version.sha256 else proof),
            Piece("record", record_file, record_path(result).name),
        ]
        if "sheet" in job.result and (sheet := self._fetched("sheet", job.result["sheet"])) is not None:
            pieces.append(Piece("sheet", sheet, sheet.name))
        guides = self._guides(job)
        places = Places(self._inputs(job, began, guides), guides, self._loras)
        pieces += inputs_of(told, places, self._folder)
        return Item(self._name, told, tuple(pieces), tuple(self._lacks), about)

    def _guides(self, job: Job) -> Path | None:
        """The guides' folder; those of several versions are fetched once."""
        if job.guides is None:
            return None
        folder = self._shared / job.guides.replace("/", "_") / "guides"
        if not folder.exists():
            prefix = f"{job.guides}/guides"
            for stored in self._storage.list(prefix):
                self._storage.fetch(stored.name, folder / Path(stored.name).relative_to(prefix))
        return folder if folder.exists() else None

    def _inputs(self, job: Job, began: Job, guides: Path | None) -> dict[str, Piece]:
        """Clip, picture and mask: as they were sent, or as they lie beside the guides. The manifest proves which they are."""
        manifest = read_own_json(guides / MANIFEST) if guides is not None else None
        manifest = manifest if isinstance(manifest, dict) else {}
        source, image = manifest.get("source") or {}, manifest.get("image") or {}
        proofs = {"video": f"sha256:{source.get('sha256')}", "image": f"pixels:{image.get('sha256_of_pixels')}"}
        stored = dict(began.facts.get("uploads") or {})
        if job.guides is not None:
            clips = (one.name for one in self._storage.list(job.guides) if Path(one.name).stem == "clip")
            stored["video"] = next(clips, stored.get("video"))
        asked = [role for role in INPUTS if began.submission.get(role)]
        found: dict[str, Piece] = {}
        for role in asked:
            if stored.get(role) is None:
                words = "it was fetched from an address and not kept" if role not in stored else _GONE
                self._lacks.append(Lack(self._name, role, role, MISSING, words))
            elif (path := self._fetched(role, stored[role])) is not None:
                found[role] = Piece(role, path, path.name, proofs.get(role) or fingerprint(path))
        return found

    def _fetched(self, role: str, stored: str) -> Path | None:
        """A file of the storage, under its own name; None where it is gone, which is told."""
        place = self._folder / role / Path(stored).name
        try:
            self._storage.fetch(stored, place)
        except NotStored as error:
            self._lacks.append(Lack(self._name, role, Path(stored).name, MISSING, one_line(f"{_GONE} ({error})")))
            return None
        return place
