"""Whether a bag is as it was made: every byte, with nothing missing, changed or added. It asks nothing of the network."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from wanimate.archive.bag import DECLARATION, INFO, PAYLOAD
from wanimate.archive.names import decoded, key, unsafe
from wanimate.errors import InputError, one_line
from wanimate.media.json_file import open_plain

Kind = Literal["bag", "missing", "changed", "extra", "unsafe", "unreadable"]
"""`bag`: its own files do not say what they have to. `unsafe`: a link, a device, or a name that leads out of the bag."""
KNOWN = {"md5": 32, "sha1": 40, "sha256": 64, "sha512": 128}
"""Algorithms of manifests, and the digits of each."""
STRONG = ("sha256", "sha512")
_MANIFEST = re.compile(r"(tag)?manifest-([a-z0-9]+)\.txt")
_ROW = re.compile(r"([0-9A-Fa-f]+)[ \t]+\*?(.+)")
_LARGEST_TAG = 64 * 2**20
_SHOWN = 50
"""Findings that are told in words; data has all."""


@dataclass(frozen=True)
class Problem:
    """Something that is wrong. `file`: its name in the bag."""

    kind: Kind
    file: str
    words: str


@dataclass(frozen=True)
class Report:
    """What was found. `files` and `bytes`: of the payload. `is_bag`: whether there is a bag at all."""

    folder: Path
    is_bag: bool
    problems: tuple[Problem, ...]
    files: int = 0
    bytes: int = 0
    algorithms: tuple[str, ...] = ()

    @property
    def code(self) -> int:
        """0: whole. 1: there is no bag. 2: it is damaged, or not to be trusted."""
        return 1 if not self.is_bag else 2 if self.problems else 0

    @property
    def words(self) -> str:
        if not self.is_bag:
            return f"{self.folder}: it is no archive ({DECLARATION} is not there)"
        if not self.problems:
            how = " and ".join(self.algorithms)
            return f"{self.folder}: whole; {self.files} files, {self.bytes} bytes, {how} of every byte are right"
        lines = [f"{one.kind}: {one.file}: {one.words}" for one in self.problems[:_SHOWN]]
        more = len(self.problems) - _SHOWN
        number = len(self.problems)
        head = f"{self.folder}: not whole; {number} finding{'s' if number > 1 else ''}"
        return "\n".join([head, *lines, *([f"and {more} more (--json has all)"] if more > 0 else [])])

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {
            "folder": str(self.folder), "verdict": ("whole", "nothing", "broken")[self.code], "code": self.code,
            "files": self.files, "bytes": self.bytes, "algorithms": list(self.algorithms),
            "problems": [{"kind": one.kind, "file": one.file, "words": one.words} for one in self.problems],
        }  # fmt: skip


def verify(folder: Path) -> Report:
    """Read every byte of a bag and hold it against what the bag says of itself.

    Raises:
        InputError: there is no such folder, or it cannot be listed.
    """
    try:
        if not folder.is_dir():
            rule = "it is not a folder" if folder.exists() else "there is no such folder"
            raise InputError("folder", folder, rule, "Name the folder of an archive.")
        look = _Look(folder)
    except OSError as error:
        raise InputError("folder", folder, f"it cannot be read ({error.strerror})", "Name another one.") from error
    if DECLARATION not in look.files:
        return Report(folder, False, ())
    look.all()
    payload = {name: size for name, size in look.files.items() if name.startswith(f"{PAYLOAD}/")}
    problems = sorted(look.problems, key=lambda one: (one.kind != "unsafe", one.kind != "bag", one.file))
    return Report(folder, True, tuple(problems), len(payload), sum(payload.values()), tuple(look.algorithms))


class _Look:
    """One reading of a bag. `files`: plain files and their bytes, by name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.problems: list[Problem] = []
        self.files: dict[str, int] = {}
        self.algorithms: list[str] = []
        self._hashes: dict[str, dict[str, str]] = {}
        self._list()

    def all(self) -> None:
        self._declared()
        payload, tags = self._manifests(""), self._manifests("tag")
        self.algorithms = sorted(payload)
        if not any(algorithm in payload for algorithm in STRONG):
            self._say("bag", "manifest-sha256.txt", "it is not there, nor is that of sha512")
        if not any(algorithm in tags for algorithm in STRONG):
            self._say("bag", "tagmanifest-sha256.txt", "it is not there: nothing proves what the manifests say")
        if "fetch.txt" in self.files:
            self._say("bag", "fetch.txt", "it names files that lie elsewhere, and an archive holds all of its own")
        self._same_names(set(self.files))
        wanted: dict[str, set[str]] = {}
        for found in (payload, tags):
            for algorithm, rows in found.items():
                for name in rows:
                    wanted.setdefault(name, set()).add(algorithm)
        for name in sorted(wanted.keys() & self.files.keys()):
            self._read(name, wanted[name])
        own = {name for name in self.files if (named := _MANIFEST.fullmatch(name)) is not None and named[1]}
        held = {name for name in self.files if name.startswith(f"{PAYLOAD}/")}
        self._compare(payload, held, "manifest")
        self._compare(tags, self.files.keys() - held - own, "tagmanifest")
        self._oxum(held)

    def _say(self, kind: Kind, file: str, words: str) -> None:
        self.problems.append(Problem(kind, one_line(file), one_line(words)))

    def _list(self) -> None:
        waiting = [""]
        while waiting:
            below = waiting.pop()
            try:
                entries = sorted(os.scandir(self.folder / below), key=lambda entry: entry.name)
            except OSError as error:
                if not below:
                    raise
                self._say("unreadable", below, f"the folder cannot be listed ({error.strerror})")
                continue
            for entry in entries:
                name = f"{below}/{entry.name}" if below else entry.name
                if entry.is_symlink():
                    self._say("unsafe", name, "it is a link: a bag holds the files themselves")
                elif entry.is_dir(follow_symlinks=False):
                    waiting.append(name)
                elif entry.is_file(follow_symlinks=False):
                    self.files[name] = entry.stat(follow_symlinks=False).st_size
                else:
                    self._say("unsafe", name, "it is no plain file")

    def _declared(self) -> None:
        text = self._text(DECLARATION)
        if text is None:
            return
        lines = dict(_pairs(text))
        if not re.fullmatch(r"(0\.9[3-7]|1\.0)", lines.get("BagIt-Version", "")):
            self._say("bag", DECLARATION, "it names no version of BagIt that is known here")
        if lines.get("Tag-File-Character-Encoding", "").upper() != "UTF-8":
            self._say("bag", DECLARATION, "its tag files are not in UTF-8")

    def _manifests(self, kind: str) -> dict[str, dict[str, str]]:
        """Algorithm -> name -> hash, of what can be read of the manifests."""
        found: dict[str, dict[str, str]] = {}
        for file in sorted(self.files):
            named = _MANIFEST.fullmatch(file)
            if named is None or (named[1] or "") != kind:
                continue
            if named[2] not in KNOWN:
                self._say("bag", file, "its kind of hash is not known here")
                continue
            text = self._text(file)
            if text is not None:
                found[named[2]] = self._rows(file, text, KNOWN[named[2]], of_payload=not kind)
        return found

    def _rows(self, file: str, text: str, digits: int, of_payload: bool) -> dict[str, str]:
        rows: dict[str, str] = {}
        for number, line in enumerate(re.split("\r\n|\r|\n", text), 1):
            if not line:
                continue
            row = _ROW.fullmatch(line)
            if row is None or len(row[1]) != digits:
                self._say("bag", file, f"line {number} is no hash with a name")
                continue
            name = decoded(row[2])
            name = name.removeprefix("./") if of_payload else name
            why = unsafe(name)
            if why is None and name.startswith(f"{PAYLOAD}/") != of_payload:
                why = "it is not in data/" if of_payload else "a tag manifest names files outside of data/ only"
            if why is not None:
                self._say("unsafe", name, f"{file}, line {number}: {why}")
            elif rows.setdefault(name, row[1].lower()) != row[1].lower():
                self._say("bag", file, f"line {number}: {name} is there twice, with other hashes")
        self._same_names(rows)
        return rows

    def _same_names(self, names: Iterable[str]) -> None:
        """Tell names that are one file where case does not count."""
        seen: dict[str, str] = {}
        for name in sorted(names):
            other = seen.setdefault(key(name), name)
            if other != name and not any(one.file == one_line(name) and one.kind == "unsafe" for one in self.problems):
                self._say("unsafe", name, f"on some systems it is the same file as {other}")

    def _text(self, file: str) -> str | None:
        """A tag file; None where it cannot be read, which is told."""
        if self.files[file] > _LARGEST_TAG:
            self._say("bag", file, "it is too large for a list")
            return None
        try:
            with os.fdopen(open_plain(self.folder / file, links=False), "rb") as opened:
                return opened.read(_LARGEST_TAG).decode("utf-8-sig")
        except UnicodeDecodeError:
            self._say("bag", file, "it is not text in UTF-8")
        except (OSError, ValueError) as error:
            self._say("unreadable", file, f"it cannot be read ({error})")
        return None

    def _read(self, name: str, algorithms: set[str]) -> None:
        digests = {algorithm: hashlib.new(algorithm, usedforsecurity=False) for algorithm in algorithms}
        try:
            with os.fdopen(open_plain(self.folder / name, links=False), "rb") as file:
                while piece := file.read(1 << 20):
                    for digest in digests.values():
                        digest.update(piece)
        except (OSError, ValueError) as error:
            self._say("unreadable", name, f"it cannot be read ({error})")
            return
        self._hashes[name] = {algorithm: digest.hexdigest() for algorithm, digest in digests.items()}

    def _compare(self, manifests: Mapping[str, Mapping[str, str]], there: Iterable[str], what: str) -> None:
        there = set(there)
        named = {name for rows in manifests.values() for name in rows}
        for name in sorted(named - there):
            if not any(one.file == one_line(name) for one in self.problems):
                self._say("missing", name, f"the {what} names it, and it is not there")
        for name in sorted(there - named if manifests else ()):
            self._say("extra", name, f"no {what} names it")
        for name in sorted(named & there):
            known = self._hashes.get(name)
            if known is None:
                continue
            wrong = [one for one, rows in manifests.items() if name in rows and rows[name] != known[one]]
            if wrong:
                self._say("changed", name, f"the {what} has another {' and '.join(sorted(wrong))} of it")
            lacking = sorted(one for one, rows in manifests.items() if name not in rows)
            if lacking and not wrong:
                self._say("bag", f"{what}-{lacking[0]}.txt", f"it does not name {name}, which another one does")

    def _oxum(self, payload: Iterable[str]) -> None:
        if INFO not in self.files:
            self._say("bag", INFO, "it is not there")
            return
        text = self._text(INFO)
        if text is None:
            return
        told = [value for name, value in _pairs(text) if name == "Payload-Oxum"]
        sizes = [self.files[name] for name in payload]
        found = f"{sum(sizes)}.{len(sizes)}"
        if told != [found]:
            self._say("bag", INFO, f"Payload-Oxum is {' and '.join(told) or 'not there'}, and the payload is {found}")


def _pairs(text: str) -> list[tuple[str, str]]:
    """ "Name: value" of a tag file, in order."""
    rows = (line.partition(":") for line in text.splitlines() if line and not line[0].isspace())
    return [(name.strip(), value.strip()) for name, _, value in rows]


def checked(folder: Path) -> Path:
    """The payload of a bag that is whole.

    Raises:
        InputError: it is not; the message has the first finding.
    """
    report = verify(folder)
    if not report.is_bag:
        raise InputError("folder", folder, "it is no archive", "Name the folder of an archive.")
    if report.problems:
        first = report.problems[0]
        rule = f"it is not whole: {first.file}: {first.words}"
        raise InputError("folder", folder, rule, "See `wanimate archive verify`, and take another copy of it.")
    return folder / PAYLOAD
