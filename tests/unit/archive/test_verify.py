"""What is told of a bag that is not as it was made."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

import bagit
import pytest

from wanimate.archive.bag import NewBag
from wanimate.archive.verify import checked, verify
from wanimate.errors import InputError


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    with NewBag(tmp_path / "bag") as made:
        made.add("a.txt", [b"one"])
        made.add("deep/b.bin", [bytes(2000)])
        made.finish({"External-Identifier": "x"})
    return tmp_path / "bag"


def edited(path: Path, change: Callable[[str], str]) -> None:
    path.write_text(change(path.read_text()))


def sealed(bag: Path) -> None:
    """Make the tag manifests anew, as somebody would who knows how."""
    for algorithm in ("sha256", "sha512"):
        names = sorted(p.name for p in bag.glob("*.txt") if not p.name.startswith("tagmanifest"))
        rows = [f"{hashlib.new(algorithm, (bag / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
        (bag / f"tagmanifest-{algorithm}.txt").write_text("".join(rows))


def resealed(bag: Path, name: str, data: bytes) -> None:
    """Put other bytes into a bag as somebody would who knows how: with all hashes and sizes made anew."""
    before = (bag / name).read_bytes()
    (bag / name).write_bytes(data)
    for algorithm in ("sha256", "sha512"):
        old, new = (hashlib.new(algorithm, one).hexdigest() for one in (before, data))
        edited(bag / f"manifest-{algorithm}.txt", lambda text, old=old, new=new: text.replace(old, new))  # type: ignore[misc]
    size = sum(path.stat().st_size for path in (bag / "data").rglob("*") if path.is_file())
    oxum = "Payload-Oxum: "
    lines = (bag / "bag-info.txt").read_text().splitlines()
    number = next(line for line in lines if line.startswith(oxum)).rpartition(".")[2]
    edited(bag / "bag-info.txt", lambda text: re.sub(rf"{oxum}.*", f"{oxum}{size}.{number}", text))
    sealed(bag)


def found(bag: Path) -> list[tuple[str, str]]:
    report = verify(bag)
    assert report.code == (2 if report.problems else 0)
    return [(one.kind, one.file) for one in report.problems]


def test_whole(bag: Path) -> None:
    report = verify(bag)
    assert (report.code, report.problems, report.files, report.bytes) == (0, (), 2, 2003)
    assert "whole; 2 files" in report.words
    assert checked(bag) == bag / "data"


def test_of_another_writer(tmp_path: Path) -> None:
    (tmp_path / "bag").mkdir()
    (tmp_path / "bag" / "50 off.txt").write_text("x")
    bagit.make_bag(str(tmp_path / "bag"), checksums=["sha512"])
    assert found(tmp_path / "bag") == []


@pytest.mark.parametrize("place", [0, 1000, 1999])
def test_one_bit(bag: Path, place: int) -> None:
    data = bytearray((bag / "data/deep/b.bin").read_bytes())
    data[place] ^= 1
    (bag / "data/deep/b.bin").write_bytes(data)
    assert found(bag) == [("changed", "data/deep/b.bin")]


def test_files_that_come_and_go(bag: Path) -> None:
    (bag / "data/a.txt").unlink()
    (bag / "data/new").write_text("x")
    (bag / "note.txt").write_text("x")
    assert {("missing", "data/a.txt"), ("extra", "data/new"), ("extra", "note.txt")} <= set(found(bag))


def test_an_edited_manifest(bag: Path) -> None:
    edited(bag / "manifest-sha256.txt", lambda text: text.replace(text[:6], "000000"))
    assert ("changed", "manifest-sha256.txt") in found(bag)
    assert ("changed", "data/a.txt") in found(bag)


@pytest.mark.parametrize("name", ["../outside", "data/../../outside", "/etc/passwd", "data\\x", "~/x"])
def test_names_that_lead_elsewhere(bag: Path, name: str) -> None:
    (bag.parent / "outside").write_text("x")
    row = f"{hashlib.sha256(b'x').hexdigest()}  {name}\n"
    edited(bag / "manifest-sha256.txt", lambda text: text + row)
    sealed(bag)
    assert found(bag)[0] == ("unsafe", name)


def test_links_and_devices(bag: Path) -> None:
    (bag / "data/a.txt").rename(bag.parent / "a.txt")
    (bag / "data/a.txt").symlink_to(bag.parent / "a.txt")
    os.mkfifo(bag / "data/pipe")
    assert {("unsafe", "data/a.txt"), ("unsafe", "data/pipe")} <= set(found(bag))
    (bag / "data/deep").rename(bag.parent / "deep")
    (bag / "data/deep").symlink_to(bag.parent / "deep")
    assert ("unsafe", "data/deep") in found(bag)


def test_names_that_are_one_file_elsewhere(bag: Path) -> None:
    (bag / "data/A.TXT").write_text("one")
    for algorithm in ("sha256", "sha512"):
        row = f"{hashlib.new(algorithm, b'one').hexdigest()}  data/A.TXT\n"
        edited(bag / f"manifest-{algorithm}.txt", lambda text, row=row: text + row)  # type: ignore[misc]
    edited(bag / "bag-info.txt", lambda text: text.replace("2003.2", "2006.3"))
    sealed(bag)
    assert found(bag) == [("unsafe", "data/a.txt")]


def test_no_tag_manifest(bag: Path) -> None:
    for file in bag.glob("tagmanifest-*"):
        file.unlink()
    assert found(bag) == [("bag", "tagmanifest-sha256.txt")]


@pytest.mark.parametrize(
    "change", [lambda t: t.replace("2003.2", "2003.3"), lambda t: t.replace("Payload-Oxum", "Other")]
)
def test_a_wrong_oxum(bag: Path, change: Callable[[str], str]) -> None:
    edited(bag / "bag-info.txt", change)
    sealed(bag)
    assert found(bag) == [("bag", "bag-info.txt")]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("bagit.txt", "BagIt-Version: 9.9\nTag-File-Character-Encoding: UTF-8\n"),
        ("bagit.txt", "BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-16\n"),
        ("fetch.txt", "http://example.com/x 3 data/x\n"), ("manifest-sha256.txt", "no manifest\n"),
        ("manifest-crc32.txt", "00000000  data/a.txt\n"),
    ],
)  # fmt: skip
def test_tag_files(bag: Path, file: str, text: str) -> None:
    (bag / file).write_text(text)
    sealed(bag)
    assert ("bag", file) in found(bag)


def test_a_manifest_that_leaves_a_file_out(bag: Path) -> None:
    edited(bag / "manifest-sha256.txt", lambda text: text.splitlines(True)[0])
    sealed(bag)
    assert found(bag) == [("bag", "manifest-sha256.txt")]


def test_no_bag(tmp_path: Path) -> None:
    assert verify(tmp_path).code == 1
    with pytest.raises(InputError, match="no such folder"):
        verify(tmp_path / "nowhere")
    with pytest.raises(InputError, match="it is no archive"):
        checked(tmp_path)
