"""The writer of bags, held against the reference reader, and names that any file system takes."""

from __future__ import annotations

import os
import unicodedata
from contextlib import suppress
from pathlib import Path

import bagit
import pytest

from wanimate.archive.bag import NewBag, Unreadable
from wanimate.archive.names import LONGEST, Taken, coded, decoded, portable, unsafe
from wanimate.errors import OutputError


def test_the_reference_reader_finds_it_valid(tmp_path: Path) -> None:
    with NewBag(tmp_path / "deep" / "bag") as bag:
        bag.add("a/first.txt", [b"one", b"two"])
        bag.add("zwölf 十二.bin", [bytes(range(256))])
        bag.add("empty", [])
        bag.finish({"External-Description": "two\nlines\x1b and ünicode"})
    found = bagit.Bag(str(tmp_path / "deep" / "bag"))
    assert found.validate()
    assert sorted(found.algorithms) == ["sha256", "sha512"]
    assert found.info["Payload-Oxum"] == "262.3"
    assert found.info["External-Description"] == "two lines and ünicode"
    assert len(found.tagfile_entries()) == 4
    (tmp_path / "deep" / "bag" / "data" / "empty").write_bytes(b"!")
    with pytest.raises(bagit.BagValidationError):
        found.validate()


def test_nothing_is_written_over(tmp_path: Path) -> None:
    out = tmp_path / "bag"
    out.mkdir()
    with pytest.raises(OutputError, match="the name is taken"), NewBag(out):
        pass
    out.rmdir()
    out.symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputError, match="the name is taken"), NewBag(out):
        pass


def test_somebody_takes_the_name_meanwhile(tmp_path: Path) -> None:
    bag = NewBag(tmp_path / "bag").__enter__()
    bag.add("a", [b"a"])
    bag.finish({})
    (tmp_path / "bag").mkdir()
    with pytest.raises(OutputError, match="the name is taken"):
        bag.__exit__(None, None, None)
    assert [path.name for path in tmp_path.iterdir()] == ["bag"]


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    with suppress(KeyError), NewBag(tmp_path / "new" / "bag") as bag:
        bag.add("a", [b"a"])
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_a_killed_one_leaves_no_bag_and_the_next_cleans_up(tmp_path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            NewBag(tmp_path / "bag").__enter__().add("a", [b"a"])
        finally:
            os._exit(9)
    os.waitpid(pid, 0)
    assert not (tmp_path / "bag").exists()
    assert list(tmp_path.glob(".bag.*.part"))
    with NewBag(tmp_path / "bag") as bag:
        bag.add("b", [b"b"])
        bag.finish({})
    assert [path.name for path in tmp_path.iterdir()] == ["bag"]


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "gone"])
def test_only_plain_files_are_copied(tmp_path: Path, kind: str) -> None:
    source = tmp_path / "source"
    if kind == "link":
        (tmp_path / "file").write_bytes(b"x")
        source.symlink_to(tmp_path / "file")
    elif kind == "pipe":
        os.mkfifo(source)
    elif kind == "folder":
        source.mkdir()
    with NewBag(tmp_path / "bag") as bag:
        with pytest.raises(Unreadable):
            bag.copy("a", source)
        bag.finish({})
    assert bagit.Bag(str(tmp_path / "bag")).info["Payload-Oxum"] == "0.0"


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("clip.mp4", "clip.mp4"), ("a:b?.mp4", "a_b_.mp4"), ("100%\n.png", "100__.png"), ("nul.txt", "_nul.txt"),
        (".hidden", "_.hidden"), ("end. ", "end"), ("odd\udcff.mp4", "odd_.mp4"), ("...", "_"), ("a\u202eb", "a_b"),
        (unicodedata.normalize("NFD", "Ä.png"), "Ä.png"),
    ],
)  # fmt: skip
def test_portable_names(given: str, name: str) -> None:
    assert portable(given) == name
    assert portable(name) == name


def test_long_names_are_told_apart() -> None:
    names = {portable("é" * 200 + end + ".mp4") for end in "ab"}
    assert len(names) == 2
    assert all(len(name.encode()) <= LONGEST and name.endswith(".mp4") for name in names)


def test_names_that_differ_by_case_only() -> None:
    taken = Taken()
    assert [taken.free("inputs", name) for name in ("Clip.mp4", "clip.mp4", "CLIP.MP4", "x", "x")] == [
        "inputs/Clip.mp4", "inputs/clip-2.mp4", "inputs/CLIP-3.MP4", "inputs/x", "inputs/x-2",
    ]  # fmt: skip
    long = "a" * LONGEST
    assert len({taken.free("inputs", long) for _ in range(20)}) == 20


@pytest.mark.parametrize("name", ["50%25\r\n off", "plain", "%41"])
def test_names_in_manifests(name: str) -> None:
    assert decoded(coded(name)) == name
    assert "\n" not in coded(name)


@pytest.mark.parametrize(
    "name", ["../a", "data/../../a", "/etc/passwd", "~/a", "C:/a", "data\\a", "data//a", "data/./a", ""]
)
def test_names_that_lead_elsewhere(name: str) -> None:
    assert unsafe(name)
