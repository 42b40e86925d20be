"""What belongs to a finished result: found from its record and from what lies beside it. Nothing is copied here."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from wanimate.archive.bag import DECLARATION
from wanimate.errors import InputError
from wanimate.finish.lock import record_path
from wanimate.media.files import read_own_json
from wanimate.preprocess.folder import MANIFEST
from wanimate.preprocess.manifest import named_clip

Role = Literal[
    "result", "record", "sheet", "matte", "sidecar", "image", "video", "mask", "master", "network", "guides", "lora"
]
INPUTS: tuple[Role, ...] = ("image", "video", "mask", "master")
MISSING, CHANGED = "missing", "changed"
NETWORKS = (".pth", ".pt", ".ckpt", ".safetensors", ".bin")
"""Endings of networks that enlarge. A record tells no hash of them, so that nothing else is taken for one."""


@dataclass(frozen=True)
class Piece:
    """A file, or a folder of files, that belongs to a result.

    name: its own name. proof: what the record says of it ("sha256:…", "sampled:…"), or of the pixels of a picture
    ("pixels:…"); None where it says nothing. files: of a folder, the names that are taken and their proofs; None is every file.
    """

    role: Role
    path: Path
    name: str
    proof: str | None = None
    files: Mapping[str, str | None] | None = None


@dataclass(frozen=True)
class Lack:
    """Something that belongs to a result and cannot be archived. `why`: missing or changed; `words`: a phrase."""

    item: str
    role: str
    path: str
    why: str
    words: str

    @property
    def told(self) -> str:
        return f"{self.role} {self.path}: {self.words}"


@dataclass(frozen=True)
class Item:
    """A finished result and all that belongs to it. `name`: what it is called in the archive; `record`: as JSON; `lacks`: what
    is known to be lacking; `about`: facts of the service (shot, version, job)."""

    name: str
    record: Mapping[str, Any]
    pieces: tuple[Piece, ...]
    lacks: tuple[Lack, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Places:
    """Where the files are that a record names, if not where it says. `files`: by role. `guides`: folder. `loras`: by file
    name."""

    files: Mapping[str, Piece] = field(default_factory=dict)
    guides: Path | None = None
    loras: Mapping[str, Path] = field(default_factory=dict)


def item_of(result: Path, name: str | None = None, guides: Path | None = None) -> Item:
    """A finished result with its record beside it. `guides`: the job's, where its record does not say where they are.

    Raises:
        InputError: it is not there, or has no record, or the record is of another file.
    """
    record = recorded(result)
    pieces = [
        Piece("result", result, result.name, _proof(record.get("result"))),
        Piece("record", record_path(result), record_path(result).name),
        *_beside(result, record),
    ]
    places = Places(guides=guides)
    pieces += [*inputs_of(record, places, result.parent)]
    return Item(name or result.stem, record, tuple(pieces))


def items_below(folder: Path) -> list[Item]:
    """Every finished result below a folder, by name. Hidden folders and archives are passed over, and so are marked copies,
    which belong to the result that they were made of.

    Raises:
        InputError: there is none, or the folder cannot be listed.
    """
    found: list[Path] = []
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(
            one for one in folders if not one.startswith(".") and not (Path(place) / one / DECLARATION).exists()
        )
        for file in sorted(files):
            record = _record(Path(place) / file) if file.endswith(".json") and not file.startswith(".") else None
            if record is not None and not _is_marked_copy(Path(place) / file, record):
                found.append(Path(place) / record["out"])
    if not found:
        rule = "there is no finished result with its record in it"
        raise InputError("what", folder, rule, "Name a result, a folder of results, a shot, or a project.")
    return [item_of(path, _name_below(folder, path)) for path in found]


def recorded(result: Path) -> dict[str, Any]:
    """The record beside a finished result. Raises InputError as `item_of`."""
    if not os.path.lexists(result):
        raise InputError("what", result, "there is no such file", "Name a finished result.")
    record = _record(record_path(result))
    if record is None:
        rule = f"there is no record of its job beside it ({record_path(result).name})"
        raise InputError("what", result, rule, "Name a finished result; its record is written with it.")
    if record["out"] != result.name:
        rule = f"the record beside it is of {record['out']}"
        raise InputError("what", result, rule, "Name that file, or bring the record of this one.")
    return record


def inputs_of(record: Mapping[str, Any], places: Places, beside: Path) -> Iterator[Piece]:
    """Inputs, guides, LoRAs and networks that a record names. `beside`: where paths may begin that are not whole."""
    inputs = _dict(record.get("inputs"))
    for role in INPUTS:
        if role in places.files:
            yield places.files[role]
        elif isinstance(one := inputs.get(role), dict) and "path" in one:
            path = _found(one["path"], beside)
            yield Piece(role, path, path.name, _text(one.get("sha256")), _dict(one.get("files")) or None)
    yield from _guides(record, places, beside)
    for one in _several(record.get("lora")):
        path = _found(one.get("path"), beside)
        yield Piece("lora", places.loras.get(path.name, path), path.name, _text(one.get("sha256")))
    network = _dict(record.get("output")).get("upscale_network")
    if isinstance(network, str) and (path := _found(network, beside)).suffix.lower() in NETWORKS:
        yield Piece("network", path, path.name)


def _guides(record: Mapping[str, Any], places: Places, beside: Path) -> Iterator[Piece]:
    """The guides folder, and the clip that it names where the record does not."""
    inputs = _dict(record.get("inputs"))
    began = inputs.get("guides")
    kept = record.get("guides")
    if isinstance(began, dict):
        folder = places.guides or _found(began.get("path"), beside)
        files: dict[str, str | None] = {name: _text(told) or "none" for name, told in _dict(began.get("files")).items()}
    elif isinstance(kept, str) or places.guides is not None:
        folder = places.guides or _found(kept, beside)
        files = _proofs_of_kept(folder, record)
    else:
        return
    yield Piece("guides", folder, folder.name, None, files)
    if "video" in inputs or "video" in places.files:
        return
    manifest = _dict(read_own_json(folder / MANIFEST))
    source = _dict(manifest.get("source"))
    if isinstance(told := source.get("sha256"), str):
        path = next(iter(named_clip(manifest)), Path(str(source.get("path"))))
        yield Piece("video", path, path.name, f"sha256:{told}")


def _proofs_of_kept(folder: Path, record: Mapping[str, Any]) -> dict[str, str | None]:
    """The files of guides that a job has made, with what its fingerprint says of those that decided the frames."""
    manifest = _dict(read_own_json(folder / MANIFEST))
    names = [
        *_dict(manifest.get("files")).values(),
        manifest.get("reference"),
        manifest.get("keypoints"),
        *([MANIFEST] if manifest else []),
    ]
    proofs = _dict(_dict(record.get("fingerprint")).get("guides"))
    return {
        name: _text(proofs.get(name)) if name != manifest.get("reference") else None
        for name in names if isinstance(name, str) and Path(name).name == name
    }  # fmt: skip


def _beside(result: Path, record: Mapping[str, Any]) -> Iterator[Piece]:
    """Sheet, matte, marked copies and sidecars."""
    told = set[str]()
    if isinstance(sheet := record.get("sheet"), dict):
        path = result.parent / Path(str(sheet.get("name"))).name
        told.add(path.name)
        yield Piece("sheet", path, path.name, _proof(sheet))
    if isinstance(matte := record.get("matte"), dict):
        path = _found(_dict(record.get("output")).get("matte") or matte.get("name"), result.parent)
        told.add(path.name)
        yield Piece("matte", path, path.name, _proof(matte))
    own = {result.name, record_path(result).name, *told}
    others = [
        f"{path.stem}."
        for path in result.parent.glob(f"{_globbed(result.stem)}.*.json")
        if (found := _record(path)) is not None and not _is_marked_copy(path, found)
    ]
    for path in sorted(result.parent.glob(f"{_globbed(result.stem)}.*")):
        is_others = any(path.name.startswith(stem) for stem in others)
        if path.name not in own and not is_others and path.is_file() and not path.is_symlink():
            yield Piece("sidecar", path, path.name)


def _is_marked_copy(path: Path, record: Mapping[str, Any]) -> bool:
    """Whether a record is that of a marked copy whose original lies beside it: hero.marked.json of hero.json."""
    if not isinstance(record.get("marks"), dict):
        return False
    stem = path.stem.rpartition(".")[0]
    return bool(stem) and _record(path.with_name(f"{stem}.json")) is not None


def _record(path: Path) -> dict[str, Any] | None:
    made = read_own_json(path)
    if not isinstance(made, dict) or not {"wanimate", "schema", "out"} <= made.keys():
        return None
    name = made["out"]
    return made if isinstance(name, str) and name and Path(name).name == name and "\0" not in name else None


def _name_below(folder: Path, result: Path) -> str:
    """ "project/a/hero.mp4" -> "a-hero": one part, since each result has a folder of its own."""
    return "-".join((*result.parent.relative_to(folder).parts, result.stem))


def _found(path: Any, beside: Path) -> Path:
    """A path of a record. One that is not whole began where its job was started: here, or beside the result."""
    given = Path(str(path))
    return given if given.is_absolute() or given.exists() or not (beside / given).exists() else beside / given


def _globbed(text: str) -> str:
    import glob

    return glob.escape(text)


def _proof(told: object) -> str | None:
    return _text(told.get("sha256")) if isinstance(told, dict) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _several(value: object) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
