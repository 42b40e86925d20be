"""Journals: what is on the disk counts, a line that was cut off does not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from wanimate.errors import InputError, OutputError
from wanimate.handoff.remote.journal import Journal, journals_of
from wanimate.media.lock import HeldError

ABOUT = {"service": "frameio", "shot": "shot_1"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journals" / "a.jsonl"


def written(path: Path) -> None:
    with Journal(path, ABOUT) as journal:
        journal.add("part", id="a", number=0)
        journal.add("part", id="a", number=1)


def test_steps_are_there_again(path: Path) -> None:
    written(path)
    with Journal(path, ABOUT) as journal:
        assert [one["number"] for one in journal.all("part", id="a")] == [0, 1]
        assert journal.last("part") == {"kind": "part", "id": "a", "number": 1}
        assert not journal.has("part", id="b")
    assert path.stat().st_mode & 0o777 == 0o600


def test_every_cut_leaves_whole_steps(path: Path) -> None:
    written(path)
    data = path.read_bytes()
    ends = [place for place, byte in enumerate(data) if byte == ord("\n")]
    for length in sorted(
        {0, 1, len(data) // 2, *(end + step for end in ends for step in (-1, 0, 1, 2))} - {len(data) + 1}
    ):
        path.write_bytes(data[:length])
        with Journal(path, ABOUT) as journal:
            count = len(list(journal.all("part")))
            assert count == max(0, data[:length].count(b"\n") - 1)
            journal.add("part", id="a", number=9)
        with Journal(path, ABOUT) as journal:
            assert [one["number"] for one in journal.all("part")] == [*range(count), 9]


@pytest.mark.parametrize("line", [b"nonsense\n", b"[1]\n", b'{"no": "kind"}\n', b"\xff\xff\n", b"\n"])
def test_damage_in_the_middle_is_told(path: Path, line: bytes) -> None:
    written(path)
    first, *others = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + line + b"".join(others))
    with pytest.raises(InputError, match="line 2 is damaged"):
        Journal(path, ABOUT)
    path.write_bytes(first + b"".join(others))
    Journal(path, ABOUT).close()


def test_another_hand_off_and_another_version_are_refused(path: Path) -> None:
    written(path)
    with pytest.raises(InputError, match="another hand-off"):
        Journal(path, {**ABOUT, "shot": "shot_2"})
    path.write_bytes(b'{"kind":"begun","format":"other/9"}\n')
    with pytest.raises(InputError, match="no journal of this version"):
        Journal(path, ABOUT)


def test_one_process_at_a_time(path: Path) -> None:
    with Journal(path, ABOUT), pytest.raises(HeldError):
        Journal(path, ABOUT)
    Journal(path, ABOUT).close()


def test_a_full_disk_leaves_what_was_there(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(path)
    before = path.read_bytes()
    with Journal(path, ABOUT) as journal:
        real = os.write
        monkeypatch.setattr(os, "write", lambda file, data: real(file, data[: len(data) // 2]))
        with pytest.raises(OutputError, match="disk is full"):
            journal.add("part", id="a", number=2)
        monkeypatch.undo()
        assert path.read_bytes() == before
        journal.add("part", id="a", number=3)
    with Journal(path, ABOUT) as journal:
        assert [one["number"] for one in journal.all("part")] == [0, 1, 3]


def test_links_and_open_folders_are_refused(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError):
        Journal(path, ABOUT)
    path.unlink()
    path.parent.chmod(0o777)
    with pytest.raises(OutputError, match="not writable"):
        Journal(path, ABOUT)


def test_journals_of_a_shot(path: Path) -> None:
    assert journals_of(path.parent, "shot_1", "frameio") == []
    written(path)
    Journal(path.with_name("b.jsonl"), {**ABOUT, "shot": "shot_2"}).close()
    path.with_name("c.jsonl").write_bytes(b"nonsense")
    (found,) = journals_of(path.parent, "shot_1", "frameio")
    assert (found[0], found[1]["shot"]) == (path, "shot_1")
