"""What the marks of a result say: taken from the job's record, without names of people, files or folders."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from wanimate.config import Mode
from wanimate.errors import InputError
from wanimate.media.files import read_own_json
from wanimate.preprocess.folder import MANIFEST
from wanimate.preprocess.manifest import named_clip
from wanimate.provenance.forms import record_beside
from wanimate.versions import version_of

Role = Literal["picture", "performance", "finished"]
"""What an input was: the character's picture, the clip of the performer, or a finished result that was worked on again."""
TITLES: dict[Role, str] = {
    "picture": "picture of the character", "performance": "clip of the performance", "finished": "result before finishing",
}  # fmt: skip
TRAINED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
COMPOSITE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"


@dataclass(frozen=True)
class Source:
    """An input of the result: what it was, where it lies, and its hash as the record gives it ("sha256:…"), where it does.
    steps: what finishing did to it, in C2PA's words."""

    role: Role
    path: Path
    sha256: str | None = None
    steps: tuple[str, ...] = ()


@dataclass(frozen=True)
class About:
    """What is told of a result.

    id: the result's own, made once for a job; in the AIGC key it is the ProduceID, and the watermark's payload is made of it.
    made: when. sources: the inputs that are still there. model, model_id: name and hash of the checkpoint. job: facts for the
    signed record. earlier: what finishing did before ("c2pa.resized"), which the manifest of a signed file tells already.
    steps: what it did now, where a finished file was worked on again. watermarked, label: marks that the frames have already.
    """

    id: str
    mode: Mode
    made: datetime
    sources: tuple[Source, ...] = ()
    model: str = ""
    model_id: str = ""
    job: dict[str, Any] | None = None
    steps: tuple[str, ...] = ()
    earlier: tuple[str, ...] = ()
    watermarked: bool = False
    label: str = "none"

    @property
    def payload(self) -> int:
        return payload_of(self.id)

    @property
    def source_type(self) -> str:
        """IPTC's digital source type."""
        return TRAINED if self.mode == "animation" else COMPOSITE

    @property
    def tool(self) -> str:
        return f"wanimate {version_of('wanimate') or 'from its sources'}"


def new_id() -> str:
    """An id for a result: 32 hexadecimal digits."""
    return uuid.uuid4().hex


def payload_of(id: str) -> int:
    """The watermark's 32 bits of a result's id."""
    return int.from_bytes(hashlib.sha256(id.encode()).digest()[:4], "big")


def about_job(data: dict[str, Any], id: str | None = None) -> About:
    """What a record, as `finish.record` makes it, tells. It may be one that is still to be written.

    Raises:
        InputError: a master was finished, and nothing tells what it is.
    """
    if data.get("mode") == "finish":
        return _about_finished(data, id)
    marks, checkpoint, output = _dict(data.get("marks")), _dict(data.get("checkpoint")), _dict(data.get("output"))
    facts: dict[str, Any] = {name: data[name] for name in ("mode", "seed", "schema", "wanimate") if name in data}
    facts |= _delivered(data) | {"checkpoint": _one_hash(checkpoint.get("hashes"))}
    if isinstance(approval := data.get("approval"), str):
        facts["approval"] = approval
    return About(
        id=id or marks.get("id") or new_id(),
        mode="replacement" if data.get("mode") == "replacement" else "animation",
        made=_time(data.get("written")),
        sources=tuple(_sources(_dict(data.get("inputs")))),
        model=str(checkpoint.get("name") or ""),
        model_id=facts["checkpoint"],
        job=facts,
        earlier=_steps(output),
        **_in_the_frames(marks, output),
    )


def _about_finished(data: dict[str, Any], id: str | None) -> About:
    """What the record of a finished master tells. Its own record tells what the master was made of."""
    master = _dict(_dict(data.get("inputs")).get("master"))
    place, sha256 = Path(str(master.get("path", ""))), master.get("sha256")
    record = _dict(read_own_json(record_beside(place)))
    told = _dict(record.get("result")).get("sha256")
    if record.get("out") != place.name or (sha256 is not None and told != sha256):
        rule = "nothing beside the master tells what it is: its record is missing, or is another file's"
        raise InputError("output.final", True, rule, "Put the master's record beside it, or leave it out.")
    base, marks, output = about_job(record), _dict(data.get("marks")), _dict(data.get("output"))
    there = _in_the_frames(marks, output)
    source = Source("finished", place, sha256 if isinstance(sha256, str) else None, _steps(output))
    return replace(
        base,
        id=id or marks.get("id") or base.id,
        made=_time(data.get("written")),
        sources=(*base.sources, source),
        job={**(base.job or {}), **_delivered(data)},
        steps=_steps(output),
        earlier=(*base.earlier, *base.steps),
        watermarked=base.watermarked or there["watermarked"],
        label=base.label if there["label"] == "none" else there["label"],
    )


def _steps(output: dict[str, Any]) -> tuple[str, ...]:
    """What settings of the result do to frames, in C2PA's words."""
    larger, between = output.get("upscale") is not None, output.get("fps_out") is not None
    return (*(("c2pa.resized",) if larger else ()), *(("c2pa.enhanced",) if larger or between else ()))


def _delivered(data: dict[str, Any]) -> dict[str, Any]:
    """Frames, rate and size of the file."""
    found = {**data, **_dict(data.get("delivered"))}
    facts = {"frames": found["frames"]} if "frames" in found else {}
    return facts | {"fps": str(found.get("fps", "")), "size": "x".join(map(str, found.get("size", ())))}


def _in_the_frames(marks: dict[str, Any], output: dict[str, Any]) -> dict[str, Any]:
    """The marks that a record tells of."""
    plain = "plain" if output.get("watermark") else "none"
    return {"watermarked": bool(marks.get("payload")), "label": str(marks.get("label", plain))}


def _sources(inputs: dict[str, Any]) -> list[Source]:
    """The inputs whose files are there; of a guides folder, the picture in it and the clip that it names."""
    told: dict[Role, dict[str, Any]] = {
        "picture": _dict(inputs.get("image")),
        "performance": _dict(inputs.get("video")),
    }
    folder = _dict(inputs.get("guides")).get("path")
    if isinstance(folder, str):
        manifest = _dict(read_own_json(Path(folder) / MANIFEST))
        told["picture"] = {"path": os.path.join(folder, "reference.png")}
        for clip in named_clip(manifest):
            told["performance"] = {"path": str(clip), "sha256": f"sha256:{manifest['source'].get('sha256')}"}
    found = []
    for role, one in told.items():
        path, sha256 = one.get("path"), one.get("sha256")
        if isinstance(path, str) and os.path.isfile(path):
            found.append(Source(role, Path(path), sha256 if isinstance(sha256, str) else None))
    return found


def _one_hash(hashes: object) -> str:
    """One hash of the hashes of a checkpoint's files."""
    if not isinstance(hashes, dict) or not hashes:
        return ""
    return "sha256:" + hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()


def _time(value: object) -> datetime:
    try:
        return datetime.fromisoformat(str(value)).astimezone(UTC)
    except ValueError:
        return datetime.now(UTC)


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
