"""What marks a file carries, for anybody, without a network: in words and as data."""

from __future__ import annotations

import math
import mmap
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wanimate.errors import InputError, one_line
from wanimate.provenance import boxes, signing, xmp
from wanimate.provenance.certificates import TEST, anchors
from wanimate.provenance.forms import EMBEDS, MOV, MP4, PNG, ZIP, manifest_beside, media_type, xmp_beside
from wanimate.provenance.manifest import JOB, SOFT_BINDING
from wanimate.provenance.sample import DAMAGED, sample
from wanimate.provenance.watermark import NOTHING, PUBLIC_KEY, detect

FOUND, ABSENT, BROKEN, UNKNOWN = "found", "absent", "broken", "unknown"


@dataclass(frozen=True)
class Report:
    """What was found. Each part has a `state`: found, absent, broken, or unknown; `words`; and what else is known of it."""

    file: Path
    parts: dict[str, dict[str, Any]]

    @property
    def code(self) -> int:
        """0: there are marks and nothing contradicts them. 1: nothing was found. 2: a mark is broken."""
        states = [part["state"] for part in self.parts.values()]
        return 2 if BROKEN in states else 0 if FOUND in states else 1

    @property
    def words(self) -> str:
        verdict = {0: "marked; what was found is whole", 1: "no mark was found", 2: "a mark is broken"}[self.code]
        lines = [f"{name}: {part['words']}" for name, part in self.parts.items()]
        return "\n".join([f"{self.file}: {verdict}", *lines])

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        verdict = ("valid", "nothing", "broken")[self.code]
        return {"file": str(self.file), "verdict": verdict, "code": self.code, **self.parts}


def verify(file: Path, key: bytes = PUBLIC_KEY, trusted: Path | None = None) -> Report:
    """Look for all marks of a file, or of a folder of pictures.

    Args:
        key: of the watermark. trusted: a PEM file with roots whose certificates are known to be good, beside that of `init`.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        form = "" if file.is_dir() else media_type(file)
    except OSError as error:
        raise InputError("file", file, f"it cannot be read ({error.strerror})", "Name a file.") from error
    parts = {
        "label": _part(UNKNOWN, "a program cannot tell it: look at the first seconds and the corners"),
        "watermark": _watermark(file, form, key),
        "xmp": _xmp(file, form),
        "c2pa": _c2pa(file, form, trusted),
    }
    _compare(parts)
    return Report(file, parts)


def _part(state: str, words: str, **more: Any) -> dict[str, Any]:
    return {"state": state, "words": words, **more}


def _watermark(file: Path, form: str, key: bytes) -> dict[str, Any]:
    try:
        found = detect(sample(file, form), key)
    except (InputError, *DAMAGED) as error:
        return _part(UNKNOWN, f"there are no frames that can be looked at ({one_line(str(error))})")
    if found == NOTHING:
        return _part(UNKNOWN, "there are no frames that can be looked at")
    facts = {
        "score": round(found.score, 2),
        "chance": found.chance,
        "frames": found.frames,
        "public_key": key == PUBLIC_KEY,
    }
    most = max(math.floor(-math.log10(max(found.chance, 1e-20))), 0)
    chance = f"which fewer than 1 of 10^{most} unmarked files would show"
    if found.payload is not None:
        payload = f"{found.payload:08x}"
        return _part(FOUND, f"{payload}, read in {found.frames} frames, {chance}", payload=payload, **facts)
    which = "the public key" if key == PUBLIC_KEY else "this key"
    return _part(ABSENT, f"none of {which} in {found.frames} frames", payload=None, **facts)


def _xmp(file: Path, form: str) -> dict[str, Any]:
    beside = xmp_beside(file)
    inside = form in (MP4, MOV, PNG, ZIP)
    where = "in the file" if inside else beside.name
    try:
        data = _embedded(file, form) if inside else _head(beside) if beside.is_file() else None
        if data is None:
            return _part(ABSENT, "none in the file" if inside else f"no {beside.name} beside the file")
        told = xmp.read(data)
    except DAMAGED as error:
        if inside and not _holds(file, xmp.AIGC, xmp.IPTC):
            return _part(UNKNOWN, f"the file is damaged ({one_line(str(error))})")
        return _part(BROKEN, f"there is some {where}, but it cannot be read ({one_line(str(error))})")
    facts = {
        "where": where, "source_type": told.source_type, "tool": told.tool, "created": told.created, "document": told.document,
        "aigc": told.aigc,
    }  # fmt: skip
    if told.source_type is None and told.aigc is None:
        return _part(ABSENT, f"it is there ({where}), but says nothing of how the file was made", **facts)
    said = [] if told.source_type is None else [told.source_type.rsplit("/", 1)[-1]]
    if told.aigc is not None:
        lacking = [name for name in xmp.FIELDS if name not in told.aigc]
        said.append(f"AIGC label {told.aigc.get('Label')} of {told.aigc.get('ContentProducer')}")
        said += [f"without {', '.join(lacking)}"] if lacking else []
    return _part(FOUND, f"{', '.join(said)} ({where})", **facts)


def _embedded(file: Path, form: str) -> bytes | None:
    if form in (MP4, MOV):
        return boxes.read_bmff(file)
    if form == PNG:
        return boxes.read_png(file)
    with zipfile.ZipFile(file) as archive:
        named = next((one for one in archive.infolist() if one.filename.endswith(".xmp")), None)
        return archive.read(named) if named is not None and named.file_size <= boxes.LARGEST else None


def _holds(path: Path, *texts: str) -> bool:
    """Whether one of the texts stands anywhere in a file."""
    if path.stat().st_size == 0:
        return False
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return any(data.find(text.encode()) >= 0 for text in texts)


def _head(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(boxes.LARGEST + 1)


def _c2pa(file: Path, form: str, trusted: Path | None) -> dict[str, Any]:
    if file.is_dir():
        return _part(UNKNOWN, "a folder cannot be signed: its zip can")
    try:
        signed = signing.read(file, anchors(trusted))
    except ValueError as error:
        if form in EMBEDS and not _holds(file, "jumb"):
            return _part(UNKNOWN, f"the file is damaged ({error})")
        return _part(BROKEN, f"there is a manifest, but it cannot be read ({error})")
    except InputError as error:
        if error.field != "marks.sign":
            raise
        return _part(UNKNOWN, f"not looked for: {error.rule}. {error.remedy}")
    if signed is None:
        inside = form in EMBEDS
        return _part(
            ABSENT, "no manifest in the file" if inside else f"no {manifest_beside(file).name} beside the file"
        )
    facts = _facts(signed)
    where = "in the file" if signed.beside is None else f"in {signed.beside.name}"
    who = f"{facts['signer']}{', a test certificate' if facts['test'] else ''}"
    if signed.state == "Invalid":
        return _part(BROKEN, f"the manifest {where} does not fit the file ({', '.join(signed.failures)})", **facts)
    known = "whom this machine trusts" if signed.state == "Trusted" else "whom nobody here knows"
    number = len(signed.manifests)
    more = f"; {number - 1} earlier manifest{'s' if number > 2 else ''}" if number > 1 else ""
    return _part(FOUND, f"valid, signed by {who}, {known} ({where}{more}): {', '.join(facts['actions'])}", **facts)


def _facts(signed: signing.Signed) -> dict[str, Any]:
    active = signed.manifests[signed.active]
    signature = active.get("signature_info", {})
    actions = (signed.assertion("c2pa.actions") or {}).get("actions", [])
    binding = signed.assertion("c2pa.soft-binding") or {}
    ours = binding.get("alg") == SOFT_BINDING
    return {
        "validity": signed.state, "failures": list(signed.failures), "beside": signed.beside and signed.beside.name,
        "signer": one_line(str(signature.get("issuer"))), "test": signature.get("common_name") == TEST,
        "time": signature.get("time"), "actions": [one_line(str(one.get("action"))) for one in actions],
        "source_types": [one["digitalSourceType"] for one in actions if "digitalSourceType" in one],
        "ingredients": [
            {"title": one.get("title"), "relationship": one.get("relationship"), "signed": "active_manifest" in one}
            for one in active.get("ingredients", [])
        ],
        "manifests": len(signed.manifests), "disclosure": signed.assertion("c2pa.ai-disclosure"),
        "training": (signed.assertion("cawg.training-mining") or {}).get("entries"), "job": signed.assertion(JOB),
        "soft_binding": next((one.get("value") for one in binding.get("blocks", [])), None) if ours else None,
    }  # fmt: skip


def _compare(parts: dict[str, dict[str, Any]]) -> None:
    """A signed claim of a watermark is broken by another watermark; one that is gone is told."""
    signed, mark = parts["c2pa"], parts["watermark"]
    bound = signed.get("soft_binding")
    if signed["state"] != FOUND or bound is None:
        return
    if mark.get("payload") == bound:
        mark["words"] += "; it is the one that the manifest names"
    elif mark.get("payload") is not None:
        mark |= _part(BROKEN, f"{mark['payload']} was read, but the manifest names {bound}")
    else:
        mark["words"] += f"; the manifest names {bound}, which another key may show"
