"""Makes an archive: one folder that is a BagIt bag, with an RO-Crate as its payload.

data/archive.json holds what belongs to which result, for `redo`. results/NAME/ has a result, its record and what lies beside
it; inputs/, guides/ and loras/ have what it was made of, each once; documents/ and review/ what the house adds.
"""

from __future__ import annotations

import hashlib
import os
import stat
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from wanimate.approval.leaving import Gate, Leaving, Passed
from wanimate.archive.bag import PAYLOAD, NewBag, Packed, Unreadable
from wanimate.archive.crate import METADATA, Story, crate
from wanimate.archive.items import CHANGED, INPUTS, MISSING, Item, Lack, Piece
from wanimate.archive.mhl import FOLDER, history
from wanimate.archive.names import Taken, is_portable, portable
from wanimate.errors import InputError, one_line, setting
from wanimate.media.files import json_bytes, sha256
from wanimate.media.image import load_image
from wanimate.versions import commit, version_of
from wanimate.weights.fingerprint import fingerprint

INDEX, FORMAT, VERSION = "archive.json", "wanimate-archive", 1
LARGEST_LORA = 2**30
"""Bytes up to which LoRAs and networks go into an archive; larger ones are told by their hash."""
_SHOWN = 5
_FOLDERS = {"guides": "guides", "lora": "loras", "network": "networks", **dict.fromkeys(INPUTS, "inputs")}
_SHARED = frozenset(_FOLDERS)
"""Roles of what several results can have in common. The others lie beside their result."""
_PROVED = (*INPUTS, "lora", "sheet", "matte")
"""What a record names by its path: only a hash tells that this file is meant, and not another one of the user's."""
_VITAL = ("result", "record")
"""What has to be as it was. Of several results, one can be missing."""


@dataclass(frozen=True)
class Title:
    """What is said of an archive. `kind`: result, folder, shot or project; `agent`: who has made the results; `licence`: terms
    of what is in it."""

    name: str
    kind: str
    agent: str
    licence: str = "not stated"


@dataclass(frozen=True)
class Choice:
    """allow_missing: leave out inputs that are gone, unreadable or changed, and say so in the archive. largest_lora: as
    `LARGEST_LORA`. documents: further files of the house, by their name in the archive. gate: what is asked before results
    leave; None asks nobody. mhl: add a history of ASC MHL."""

    allow_missing: bool = False
    largest_lora: int = LARGEST_LORA
    documents: Mapping[str, Path | bytes] = field(default_factory=dict)
    gate: Gate | None = None
    mhl: bool = False


@dataclass(frozen=True)
class Made:
    """An archive that was made. `lacks`: what it does not hold. `no_guides`: results whose job has kept none."""

    out: Path
    results: tuple[str, ...]
    files: int
    bytes: int
    lacks: tuple[Lack, ...]
    no_guides: tuple[str, ...] = ()


class Incomplete(InputError):
    """Something that belongs to a result is missing, or changed since. `lacks`: all of it; the message names some."""

    lacks: Sequence[Lack] = ()


def make(items: Sequence[Item], out: Path, title: Title, choice: Choice = Choice()) -> Made:
    """Copy everything into a new bag. What the records say of the files is held against every byte that is copied.

    Raises:
        Incomplete: something is missing, unreadable or changed since the job, and `allow_missing` is not given; a result or its
            record has changed, or none is there. OutputError: `out` is there, or cannot be written. InputError: the gate
            refuses.
    """
    with NewBag(out) as bag:
        work = _Work(bag, choice)
        entries = [work.item(item) for item in items]
        work.documents()
        vital = [one for one in work.lacks if one.role in _VITAL and (one.why == CHANGED or not any(entries))]
        if vital or (work.lacks and not choice.allow_missing):
            raise _incomplete(title.name, vital or work.lacks, bool(vital))
        passed = [] if choice.gate is None else list(work.asked(choice.gate, items, entries))
        work.index(title, entries)
        if choice.mhl:
            work.roles[f"{FOLDER}/"] = "mhl"
        told = crate(title.name, title.agent, title.licence, bag.files.values(), work.roles, work.stories)
        bag.add(METADATA, [json_bytes(told, 1)])
        if choice.mhl:  # last, as it lists all others; the crate names its folder only
            for name, text in history(bag.files.values(), PAYLOAD, datetime.now(UTC)).items():
                bag.add(name, [text])
        if choice.gate is not None:
            for leaving, one in passed:
                choice.gate.left(leaving, one)
        bag.finish(
            {
                "External-Identifier": f"urn:uuid:{uuid.uuid4()}", "External-Description": f"wanimate archive of {title.name}",
                "Contact-Name": title.agent,
            }
        )  # fmt: skip
    there = [entry for entry in entries if entry is not None]
    names = tuple(str(entry["name"]) for entry in there)
    without = tuple(str(one["name"]) for one in there if one["guides"] is None and "master" not in one["inputs"])
    sizes = [one.size for one in bag.files.values()]
    return Made(bag.path, names, len(sizes), sum(sizes), tuple(work.lacks), without)


def _incomplete(what: str, lacks: Sequence[Lack], vital: bool) -> Incomplete:
    shown = "; ".join(one.told for one in lacks[:_SHOWN])
    more = f"; and {len(lacks) - _SHOWN} more" if len(lacks) > _SHOWN else ""
    remedy = "Bring the files back as they were" + ("." if vital else f", or give {setting('allow_missing')}.")
    error = Incomplete("what", what, f"not all of it can be archived: {shown}{more}", remedy)
    error.lacks = tuple(lacks)
    return error


class _Work:
    """One archive that is being made. `roles`: what each file or folder of the payload is."""

    def __init__(self, bag: NewBag, choice: Choice) -> None:
        self.bag, self.choice = bag, choice
        self.lacks: list[Lack] = []
        self.roles: dict[str, str] = {}
        self.stories: list[Story] = []
        self._taken = Taken()
        self._shared: dict[tuple[Any, ...], str | None] = {}

    def item(self, item: Item) -> dict[str, Any] | None:
        """Copy a result with all that belongs to it; its entry in the index. None where the result itself is lacking."""
        self.lacks += item.lacks
        folder = self._taken.free("results", item.name)
        name = folder.partition("/")[2]
        entry: dict[str, Any] = {
            "name": name, "result": None, "record": None, "guides": None, "inputs": {}, "lora": [], "network": None,
            "beside": [], **({"about": dict(item.about)} if item.about else {}),
        }  # fmt: skip
        absent: list[tuple[str, str]] = [(f"{lack.role} {Path(lack.path).name}", "") for lack in item.lacks]
        for piece in item.pieces:
            placed = self._placed(item, piece, folder)
            if placed is None and piece.role not in _VITAL:
                absent.append((f"{piece.role} {piece.name}", piece.proof or ""))
            self._enter(entry, piece, placed)
        if entry["result"] is None or entry["record"] is None:
            return None
        inputs = dict(entry["inputs"])
        objects = [*inputs.items()]
        objects += [("guides", entry["guides"])] if entry["guides"] else []
        objects += [("lora", one) for one in entry["lora"] if one]
        self.stories.append(Story(name, item.record, entry["result"], objects, absent))
        return entry

    def documents(self) -> None:
        for name, source in sorted(self.choice.documents.items()):
            folder, _, file = name.rpartition("/")
            place = self._taken.free(folder or "documents", file)
            if isinstance(source, bytes):
                self.bag.add(place, [source])
            else:
                try:
                    self.bag.copy(place, source, links=True)
                except Unreadable as error:
                    self.lacks.append(Lack("", "document", str(source), MISSING, str(error)))
                    continue
            self.roles[place] = "review" if folder == "review" else "document"

    def index(self, title: Title, entries: Sequence[dict[str, Any] | None]) -> None:
        told = {
            "format": FORMAT, "version": VERSION, "wanimate": version_of("wanimate"), "commit": commit(),
            "name": title.name, "kind": title.kind, "results": [one for one in entries if one is not None],
            "lacks": [
                {"result": one.item, "role": one.role, "file": Path(one.path).name, "why": one.why, "words": one.words}
                for one in self.lacks
            ],
        }  # fmt: skip
        self.bag.add(INDEX, [json_bytes(told, 1)])
        self.roles[INDEX] = "index"

    def asked(
        self, gate: Gate, items: Sequence[Item], entries: Sequence[dict[str, Any] | None]
    ) -> Iterator[tuple[Leaving, Passed]]:
        """What the gate says of every result, by what was copied. Raises InputError where one may not leave."""
        for item, entry in zip(items, entries, strict=True):
            result = next((piece for piece in item.pieces if piece.role == "result"), None)
            if result is None or entry is None:
                continue
            packed = self.bag.files.get(entry["result"])
            sha256 = packed.sha256 if packed is not None else str(result.proof).partition(":")[2]
            leaving = Leaving(sha256, "archive", str(self.bag.path))
            yield leaving, gate.check(result.path, leaving)

    def _enter(self, entry: dict[str, Any], piece: Piece, placed: str | None) -> None:
        if piece.role in INPUTS:
            if placed is not None:
                entry["inputs"][piece.role] = placed
        elif piece.role == "lora":
            entry["lora"].append(placed)
        elif piece.role in ("result", "record", "guides", "network"):
            entry[piece.role] = placed
        elif placed is not None:
            entry["beside"].append({"role": piece.role, "file": placed})

    def _placed(self, item: Item, piece: Piece, folder: str) -> str | None:
        """Where a piece is in the payload; a folder ends with "/". None where it is not, which is in `lacks`, unless it is left
        out for its size."""
        shared = piece.role in _SHARED
        known: tuple[Any, ...] = (piece.role == "guides", os.path.abspath(piece.path), piece.proof)
        if shared and piece.proof is not None:
            known = (piece.proof, portable(piece.name))
        if shared and known in self._shared:
            return self._shared[known]
        place = self._taken.free(_FOLDERS[piece.role] if shared else folder, piece.name)
        before = set(self.bag.files)
        found: str | None = None
        try:
            found = self._copied(piece, place)
        except (Unreadable, _Changed) as error:
            for name in self.bag.files.keys() - before:
                self.bag.drop(name)
            why = CHANGED if isinstance(error, _Changed) else MISSING
            self.lacks.append(Lack(item.name, piece.role, str(piece.path), why, one_line(str(error))))
        if shared:
            self._shared[known] = found
        if found is not None:
            self.roles[found] = piece.role
        return found

    def _copied(self, piece: Piece, place: str) -> str | None:
        """As `_placed`. Raises Unreadable; _Changed: it is not what the record tells of."""
        if piece.proof is None and piece.files is None and piece.role in _PROVED:
            raise Unreadable("the record has no hash of it, so that nothing tells what it was")
        try:
            if piece.role in ("lora", "network") and piece.path.stat().st_size > self.choice.largest_lora:
                _check(piece.path, piece.proof)  # told by its hash, which has to be right all the same
                return None
            if piece.files is not None or (piece.path.is_dir() and piece.role in ("result", "master", "matte")):
                return self._folder(piece, place)
        except OSError as error:
            if self._is_ours(error):
                raise
            raise Unreadable(_told(error)) from error
        packed = self.bag.copy(place, piece.path, links=piece.role not in ("result", "record", "sidecar"))
        _check(self.bag.where(packed.name), piece.proof, packed)
        return place

    def _is_ours(self, error: OSError) -> bool:
        """Whether it is the bag that failed, and not what was read."""
        named = [name for name in (error.filename, error.filename2) if isinstance(name, str)]
        return not named or any(name.startswith(str(self.bag.place)) for name in named)

    def _folder(self, piece: Piece, place: str) -> str:
        """A folder of files: guides, or the pictures of a sequence."""
        names = sorted(piece.files) if piece.files is not None else sorted(_plain(piece.path))
        if not names:
            raise Unreadable("there is nothing in it")
        inside, copies = Taken(), list[Path]()
        for name in names:
            if piece.role == "guides" and not is_portable(name):
                raise Unreadable(f"its file {name} has a name that not every system can hold")
            try:
                packed = self.bag.copy(inside.free(place, name), piece.path / name)
                _check(self.bag.where(packed.name), (piece.files or {}).get(name), packed)
            except (Unreadable, _Changed) as error:
                raise type(error)(f"{name}: {error}") from error
            copies.append(self.bag.where(packed.name))
        if piece.proof is not None and piece.proof != f"sha256:{sha256(*copies)}":
            raise _Changed("its pictures are not those that the record tells of")
        return f"{place}/"


class _Changed(Exception):
    """A file is not what the record tells of. The message is a phrase about it."""


def _check(path: Path, proof: str | None, packed: Packed | None = None) -> None:
    """Hold a file against what the record says of it, if that says something. Raises _Changed."""
    if proof is None:
        return
    kind, _, told = proof.partition(":")
    if kind == "pixels":
        right = _pixels(path) == told
    elif kind == "sha256" and packed is not None:
        right = packed.sha256 == told
    else:
        right = fingerprint(path) == proof
    if not right:
        raise _Changed("it changed since the job: its hash is not the one in the record")


def _plain(folder: Path) -> Iterator[str]:
    """Names in a folder; what is hidden is passed over. Links and devices stay, so that they are refused."""
    for entry in os.scandir(folder):
        if not entry.name.startswith(".") and not stat.S_ISDIR(entry.stat(follow_symlinks=False).st_mode):
            yield entry.name


def _pixels(path: Path) -> str:
    """As the manifest of guides tells a picture."""
    try:
        image = load_image(path)
    except InputError:
        return ""
    return hashlib.sha256(np.ascontiguousarray(image).reshape(-1).data).hexdigest()


def _told(error: OSError) -> str:
    return (
        "it is not there any more" if isinstance(error, FileNotFoundError) else f"it cannot be read ({error.strerror})"
    )
