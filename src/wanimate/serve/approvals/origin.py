"""What a result is: which mode has made it. Told by the database, by the record beside it, and by marks inside.

A record beside a file can be written by anybody. It makes nothing free that anything else says is held, and what nobody
vouches for is of no mode, which counts as held.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from wanimate.finish.naming import is_quarantined
from wanimate.provenance.about import COMPOSITE
from wanimate.provenance.forms import manifest_beside, xmp_beside
from wanimate.review import chain
from wanimate.serve.approvals.hashes import record_beside
from wanimate.serve.tables import Job, ShotDecision, ShotVersion

MODES = ("animation", "replacement")
_SCENE = frozenset({"background.mkv", "mask.mkv", "src_bg.mp4", "src_mask.mp4"})
"""Guides that only a replacement has."""
_DEEPEST = 8
"""Finishings of finishings that are followed back."""


@dataclass(frozen=True)
class Origin:
    """modes: every one that is told; none where nobody knows. why: what is wrong with what tells of it. maker: identity of who
    made it. clip, image: SHA-256 of what it was made of. label: that its record names. consent_ids: those that it names."""

    modes: frozenset[str] = frozenset()
    why: str | None = None
    maker: str | None = None
    clip: str | None = None
    image: str | None = None
    label: str = "none"
    consent_ids: tuple[str, ...] = ()

    def is_held(self, held: tuple[str, ...]) -> bool:
        """Whether it needs an approval where these modes do."""
        return len(self.modes) != 1 or not self.modes <= set(MODES) - set(held)


def known(session: Session, sha256: str) -> Origin | None:
    """What the database tells of a file; None where it does not know it."""
    rows = session.scalars(sa.select(ShotVersion).where(ShotVersion.digest == sha256).order_by(ShotVersion.added)).all()
    decided = session.scalars(sa.select(ShotDecision.record).where(ShotDecision.output == sha256)).all()
    if not rows:
        return None
    modes = {str(one.facts.get("mode")) for one in rows}
    with suppress(ValueError):  # what is no record is told as a fault of its chain
        modes |= {chain.read(text).mode for text in decided}
    return replace(origin_of_version(session, rows[-1]), modes=frozenset(modes))


def origin_of_version(session: Session, version: ShotVersion) -> Origin:
    """What the database tells of one version."""
    job = session.get(Job, version.job_id)
    key = None if job is None else f"key:{job.key_id}"
    facts = version.facts
    origin = origin_of_record(facts.get("made", {}))
    return replace(origin, modes=frozenset({str(facts.get("mode"))}), maker=facts.get("by", key))


def beside(session: Session, result: Path, sha256: str, depth: int = 0) -> Origin:
    """What the record beside a file and the file itself tell."""
    made, why = record_beside(result, sha256)
    if why is not None:
        return Origin(why=why)
    origin = origin_of_record(made)
    if made["mode"] == "finish":
        master = _master(session, result, made, depth)
        origin = replace(
            origin, modes=master.modes, clip=master.clip, image=master.image,
            consent_ids=tuple(dict.fromkeys(origin.consent_ids + master.consent_ids)),
        )  # fmt: skip
        if not origin.modes:
            return replace(origin, why="nobody knows what its master was")
    if origin.modes == {"animation"} and (is_quarantined(result) or _says_replacement(result, made)):
        why = "its record says animation, and something else of it says replacement"
        return replace(origin, modes=origin.modes | {"replacement"}, why=why)
    return origin


def origin_of_record(made: Mapping[str, Any]) -> Origin:
    """What the record of a job tells."""
    inputs, marks = _dict(made.get("inputs")), _dict(made.get("marks"))
    mode = made.get("mode")
    consents = made.get("consent_ids")
    return Origin(
        modes=frozenset({mode}) if mode in MODES else frozenset(), clip=_hash_in(inputs.get("video")),
        image=_hash_in(inputs.get("image")), label=str(marks.get("label") or "none"),
        consent_ids=tuple(map(str, consents)) if isinstance(consents, list) else (),
    )  # fmt: skip


def _master(session: Session, result: Path, made: Mapping[str, Any], depth: int) -> Origin:
    """Of a finished file: its master's, where the record says it lies, else in the file's own folder. Of no mode where nobody
    knows the master."""
    master = _dict(_dict(made.get("inputs")).get("master"))
    found = _hash_in(master)
    if found is None or depth >= _DEEPEST:
        return Origin()
    origin = known(session, found)
    place = Path(str(master.get("path")))
    for one in dict.fromkeys((place, result.parent / place.name)):
        if origin is None or not origin.modes:
            origin = beside(session, one, found, depth + 1)
    return origin or Origin()


def _says_replacement(result: Path, made: Mapping[str, Any]) -> bool:
    """Whether anything of a result says that it is a replacement: other parts of its record, marks inside or beside it."""
    key, inputs = _dict(made.get("fingerprint")), _dict(made.get("inputs"))
    guides = {*_dict(key.get("guides")), *_dict(_dict(inputs.get("guides")).get("files"))}
    if key.get("mode") == "replacement" or "mask" in inputs or guides & _SCENE:
        return True
    places = [result, xmp_beside(result), manifest_beside(result)]
    return any(_holds(place, COMPOSITE.encode()) for place in places if place.is_file())


def _holds(path: Path, text: bytes) -> bool:
    if path.stat().st_size == 0:
        return False
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return data.find(text) >= 0


def _hash_in(told: object) -> str | None:
    """The SHA-256 of a file that a record names."""
    text = _dict(told).get("sha256")
    return text.removeprefix("sha256:") if isinstance(text, str) and text.startswith("sha256:") else None


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
