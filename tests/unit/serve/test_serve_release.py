"""Quarantine and release: names, records, and what happens to bytes between check and copy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from held import MP4, Stage, result, stage

from wanimate.errors import InputError, OutputError
from wanimate.finish.naming import freed, is_quarantined, quarantined
from wanimate.serve.approvals import release as releasing
from wanimate.serve.approvals.release import release


@pytest.fixture
def house(tmp_path: Path, sqlite_tables: Path) -> Iterator[Stage]:
    found = stage(tmp_path / "house", sqlite_tables)
    yield found
    found.database.close()


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"}


@pytest.mark.parametrize(
    ("name", "held"),
    [("hero.mp4", "hero.quarantined.mp4"), ("frames", "frames-quarantined"), ("a.b.mov", "a.b.quarantined.mov")],
)
def test_quarantined_names_lead_back(name: str, held: str) -> None:
    assert quarantined(Path(name)) == quarantined(quarantined(Path(name))) == Path(held)
    assert freed(Path(held)) == freed(Path(name)) == Path(name)
    assert (is_quarantined(Path(held)), is_quarantined(Path(name))) == (True, False)


def test_an_approved_result_gets_its_name_with_all_that_belongs_to_it(house: Stage, work: Path) -> None:
    file = result(work / "hero.quarantined.mp4", sheet={"name": "hero.quarantined.sheet.png", "sha256": "sha256:0"})
    (work / "hero.quarantined.sheet.png").write_bytes(b"sheet")
    (work / "hero.quarantined.c2pa").write_bytes(b"manifest")
    with pytest.raises(InputError, match="nobody has approved it"):
        release(house.gate(), file, work / "hero.mp4")
    assert not (work / "hero.mp4").exists()
    house.approved(file)
    written = release(house.gate(), file, work / "hero.mp4")
    assert written[-1] == work / "hero.mp4"
    assert names(work) == {"hero.mp4", "hero.json", "hero.sheet.png", "hero.c2pa"}
    assert (work / "hero.mp4").read_bytes() == MP4
    record = json.loads((work / "hero.json").read_text())
    assert (record["out"], record["result"]["name"], record["sheet"]["name"]) == (
        "hero.mp4",
        "hero.mp4",
        "hero.sheet.png",
    )
    assert record["released"]["from"] == "hero.quarantined.mp4"
    assert len(record["released"]["decisions"]) == 1
    assert house.check(work / "hero.mp4").decisions
    with house.database.read() as session:
        from wanimate.serve.approvals import releases

        (gone,) = releases.of(session, [record["result"]["sha256"].removeprefix("sha256:")])
    assert (gone.release.way, gone.release.place) == ("release", str(work / "hero.mp4"))


def test_a_folder_of_pictures_is_released_whole(house: Stage, work: Path) -> None:
    folder = work / "frames-quarantined"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number:06d}.png").write_bytes(b"picture %d" % number)
    house.approved(folder)
    release(house.gate(), folder, work / "frames", keep=True)
    assert names(work) == {"frames", "frames-quarantined"}
    assert [path.read_bytes() for path in sorted((work / "frames").iterdir())] == [b"picture %d" % i for i in range(3)]


@pytest.mark.parametrize("taken", ["hero.mp4", "hero.json", "hero.sheet.png"])
def test_nothing_is_written_over(house: Stage, work: Path, taken: str) -> None:
    file = result(work / "hero.quarantined.mp4")
    (work / "hero.quarantined.sheet.png").write_bytes(b"sheet")
    house.approved(file)
    (work / taken).write_bytes(b"mine")
    with pytest.raises(OutputError, match="writes over nothing"):
        release(house.gate(), file, work / "hero.mp4")
    assert (work / taken).read_bytes() == b"mine"
    assert file.exists()


def test_a_name_that_is_taken_at_the_last_moment_stays(
    house: Stage, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, write = result(work / "hero.quarantined.mp4"), releasing._write
    house.approved(file)

    def late(path: Path, pieces: Iterator[bytes]) -> None:
        write(path, pieces)
        (work / "hero.mp4").write_bytes(b"mine")

    monkeypatch.setattr(releasing, "_write", late)
    with pytest.raises(OutputError, match="writes over nothing"):
        release(house.gate(), file, work / "hero.mp4")
    assert (work / "hero.mp4").read_bytes() == b"mine"


def test_other_bytes_between_check_and_copy_do_not_leave(
    house: Stage, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, copied = result(work / "hero.quarantined.mp4"), releasing._names
    house.approved(file)

    def swapped(source: Path, out: Path) -> dict[Path, Path]:
        file.write_bytes(MP4 + b"!")
        return copied(source, out)

    monkeypatch.setattr(releasing, "_names", swapped)
    with pytest.raises(InputError, match="changed while it was copied"):
        release(house.gate(), file, work / "hero.mp4")
    assert names(work) == {"hero.quarantined.mp4", "hero.quarantined.json"}


def test_a_link_that_is_put_in_between_check_and_copy_does_not_leave(
    house: Stage, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, copied = result(work / "hero.quarantined.mp4"), releasing._names
    house.approved(file)
    (work / "secret").write_bytes(MP4)

    def swapped(source: Path, out: Path) -> dict[Path, Path]:
        file.unlink()
        file.symlink_to(work / "secret")
        return copied(source, out)

    monkeypatch.setattr(releasing, "_names", swapped)
    with pytest.raises(InputError, match="a link"):
        release(house.gate(), file, work / "hero.mp4")
    assert not (work / "hero.mp4").exists()


def test_a_release_keeps_the_ending(house: Stage, work: Path) -> None:
    file = result(work / "hero.quarantined.mp4")
    house.approved(file)
    with pytest.raises(OutputError, match="ends otherwise"):
        release(house.gate(), file, work / "hero.mov")


def test_what_is_in_review_is_found_again(house: Stage, work: Path) -> None:
    file = result(work / "hero.mp4")
    first, again = house.add(file), house.add(file)
    assert (first.job, first.shot, first.mode) == (again.job, again.shot, "replacement")
    house.reviews.storage.remove_tree(f"jobs/{first.job}")
    bare = work / "bare.mp4"
    bare.write_bytes(b"nobody's")
    added = house.add(bare)
    assert (added.mode, added.why) == ("replacement", "no record lies beside it (bare.json)")
