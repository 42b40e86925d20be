"""Results of the command line in review: a finished file becomes a version of a shot, so that people decide about its bytes."""

from __future__ import annotations

import tempfile
import zipfile
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from wanimate.config.values import parse_rate
from wanimate.errors import InputError
from wanimate.finish.lock import record_path
from wanimate.finish.naming import freed
from wanimate.review.records import Name
from wanimate.serve.approvals.hashes import files_of, hash_of, record_beside
from wanimate.serve.approvals.origin import Origin, beside
from wanimate.serve.content import storage_name
from wanimate.serve.database import Database
from wanimate.serve.reviews.stacks import stack
from wanimate.serve.settings import ServeSettings
from wanimate.serve.storage import Storage, StorageAway
from wanimate.serve.submission import Submission
from wanimate.serve.tables import Job, ShotVersion, Stage, State, now

OWNER = "admin"
"""Whose shots they are: of whoever opens `wanimate studio` on this machine."""
FACE = "local"
_HOUR = 3_600_000


@dataclass(frozen=True)
class Added:
    """A local result in review. why: what is wrong with its record, so that it counts as held; None where nothing is."""

    shot: str
    job: str
    sha256: str
    mode: str
    why: str | None


def add(
    database: Database, storage: Storage, settings: ServeSettings, file: Path, name: Name | None, by: str
) -> Added:  # fmt: skip
    """Bring a finished result into review. A file that is there already is found again.

    Args:
        file: a video, or a folder of pictures, with its record beside it. One without a record is taken for a replacement.
        name: of its shot; the file's own if None.
        by: identity of who adds it.

    Raises:
        InputError: the file cannot be read or stored.
    """
    found = hash_of(file, "file")
    with database.read() as session:
        known = session.scalar(
            sa.select(ShotVersion).join(Job, Job.id == ShotVersion.job_id).where(ShotVersion.digest == found).limit(1)
        )
        origin = beside(session, file, found)
    if known is not None:
        return Added(known.shot_id, known.job_id, found, known.facts["mode"], None)
    job = _job(file, found, origin, name or freed(file).stem, by, settings)
    try:
        _store(storage, file, job)
    except StorageAway as error:
        raise InputError("file", file, f"it cannot be stored ({error})", "Look at --storage.") from error
    with database.write() as session:
        session.add(job)
        session.flush()
        shot = stack(session, job, settings.keep_reviewed)
        assert shot is not None  # it has a video
        session.get_one(ShotVersion, job.id).digest = found
        shot.touched = True
        shot_id = shot.id
    return Added(shot_id, job.id, found, job.mode, origin.why)


def _job(file: Path, found: str, origin: Origin, name: str, by: str, settings: ServeSettings) -> Job:
    made, _ = record_beside(file, found)
    mode = "animation" if origin.modes == {"animation"} else "replacement"
    at = now()
    submission = Submission.of({"mode": mode, "name": name[:200]})
    return Job(
        id=f"local-{found[:40]}", owner=OWNER, key_id="", request_id=by[:64], face=FACE, kind="animate", mode=mode,
        model="local", tier=None, checkpoint=str(_dict(made.get("checkpoint")).get("name") or "local")[:100], loras="",
        submission=submission.model_dump(mode="json"), state=State.SUCCEEDED, stage=Stage.GENERATE, held=False, priority=0,
        order_key=at, not_before=0, attempt=1, beat=0, failures=0, cancelling=False, fraction=1.0, result={},
        facts=_facts(file, found, made, origin, by), warnings=[] if origin.why is None else [origin.why], created=at, ended=at,
        expires=at + int(settings.keep_reviewed * _HOUR),
    )  # fmt: skip


def _facts(file: Path, found: str, made: dict[str, Any], origin: Origin, by: str) -> dict[str, Any]:
    """What the page shows of it, and what rules and consents ask about. Nothing of it decides whether it is held."""
    delivered = _dict(made.get("delivered"))
    known: dict[str, Any] = {"sha256": found, "by": by}
    if isinstance(delivered.get("frames"), int) and isinstance(delivered.get("size"), list):
        rate: Fraction = parse_rate(str(delivered["fps"]))
        known |= {"frames": delivered["frames"], "fps": str(rate), "size": delivered["size"], "seed": made.get("seed")}
        known["seconds"] = float(delivered["frames"] / rate)
    sources = {"video": origin.clip, "image": origin.image}
    inputs = {kind: {"sha256": f"sha256:{one}"} for kind, one in sources.items() if one is not None}
    marks = {"label": origin.label}
    known["made"] = {"inputs": inputs, "marks": marks, "consent_ids": list(origin.consent_ids)}
    return known | ({"pictures": True} if file.is_dir() else {})


def _store(storage: Storage, file: Path, job: Job) -> None:
    """Put the file, as it was hashed, and its record where results lie."""
    place = f"jobs/{job.id}/1"
    names = {"record": record_path(file)} if record_path(file).is_file() else {}
    with tempfile.TemporaryDirectory(prefix="wanimate-approval-") as folder:
        if file.is_dir():
            names["video"] = Path(folder) / f"{file.name}.zip"
            with zipfile.ZipFile(names["video"], "w", zipfile.ZIP_STORED) as archive:
                for picture in files_of(file, "file"):
                    archive.write(picture, picture.name)
        else:
            names["video"] = file
        for name, path in names.items():
            job.result[name] = f"{place}/{storage_name(path.name)}"
            storage.put(job.result[name], path)


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
