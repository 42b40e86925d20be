"""Packages to Frame.io: against a stand-in that keeps its limits, order, signatures and sizes, and fails by a seed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from parcels import Item, Package, Studio, frameio_studio, noise, write_package
from standin import TestClock
from standin_frameio import FrameIoStandIn

from wanimate.errors import InputError
from wanimate.handoff.remote.base import check_bytes, parse_target
from wanimate.handoff.remote.http import RemoteError
from wanimate.handoff.remote.journal import Journal
from wanimate.media.lock import HeldError

TO = "frameio:Spots"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[tuple[FrameIoStandIn, Studio]]:
    with frameio_studio(tmp_path) as found:
        yield found
        assert found[0].violations == []


def journal_of(studio: Studio) -> Path:
    (path,) = (studio.home / "journals").glob("*.jsonl")
    return path


def test_a_package_arrives_part_by_part(world: tuple[FrameIoStandIn, Studio]) -> None:
    standin, studio = world
    package = studio.package()
    sent = studio.send(package, TO)
    (review,), (record,) = standin.files("hero.mp4"), standin.files("hero.json")
    assert standin.bytes_of(review) == (package.folder / "hero.mp4").read_bytes()
    assert standin.bytes_of(record) == (package.folder / "hero.json").read_bytes()
    assert [number for file, number in standin.puts if file == review.id] == [0, 1, 2, 3, 4]
    assert standin.puts[0][0] == record.id, "the review copy goes last"
    assert {one.name: one.id for one in sent.files} == {"hero.mp4": review.id, "hero.json": record.id}
    assert sent.files[0].url.endswith(record.id)
    assert (sent.target, sent.decisions) == (TO, ("decision_1",))


def test_the_gate_is_asked_before_and_told_before_the_first_byte(world: tuple[FrameIoStandIn, Studio]) -> None:
    standin, studio = world
    studio.gate.no = True
    with pytest.raises(InputError, match="nobody has approved"):
        studio.send(studio.package(), TO)
    assert standin.asked == []
    studio.gate.no = False
    seen: list[int] = []
    studio.gate.left = lambda leaving, passed: seen.append(len(standin.nodes))  # type: ignore[method-assign]
    studio.send(studio.package(), TO)
    assert seen == [1], "there was only the root when the gate was told"


def test_the_gate_knows_what_leaves_and_is_told_once(world: tuple[FrameIoStandIn, Studio]) -> None:
    _, studio = world
    package = studio.package()
    for _ in range(2):
        studio.send(package, TO)
    (leaving,) = studio.gate.leaving
    assert (leaving.way, leaving.place, leaving.regions) == ("frameio", TO, ("EU",))
    assert set(leaving.derived) == {(item.name, item.sha256) for item in package.files}
    assert leaving.output_sha256 == package.output_sha256


def test_a_second_run_sends_nothing_again(world: tuple[FrameIoStandIn, Studio]) -> None:
    standin, studio = world
    package = studio.package()
    first = studio.send(package, TO)
    puts = list(standin.puts)
    assert studio.send(package, TO) == first
    assert (standin.puts, len(standin.files())) == (puts, 2)


@pytest.mark.parametrize("seed", range(4))
def test_it_arrives_over_a_bad_line(tmp_path: Path, seed: int) -> None:
    with frameio_studio(tmp_path) as (standin, studio):
        standin.faults = 0.2
        standin.rng.seed(seed)
        for version in ("1", "2", "3"):
            package = studio.package(version, int(version))
            sent = studio.send(package, f"{TO}/Finals", version, make_folders=True, fields={"Take": version})
            node = standin.nodes[next(one.id for one in sent.files if one.name == "hero.mp4")]
            assert standin.bytes_of(node) == (package.folder / "hero.mp4").read_bytes()
            assert standin.values[node.id] == {"Take": version}
        assert standin.violations == []
        stacks = [one for one in standin.nodes.values() if one.type == "version_stack"]
        folders = [one for one in standin.nodes.values() if one.name == "Finals"]
        assert (len(stacks), len(folders), len(standin.fields)) == (1, 1, 1)
        assert len([one for one in standin.files("hero.mp4") if one.parent_id == stacks[0].id]) == 3


def test_our_side_keeps_the_limits(world: tuple[FrameIoStandIn, Studio]) -> None:
    standin, studio = world
    files = {f"{number:03}.png": ("frame", noise(10, number)) for number in range(30)}
    studio.send(write_package(studio.home / "many", files), TO)
    assert (standin.limited, len(standin.files())) == (0, 30)


def test_refusals_for_their_number_are_waited_out(world: tuple[FrameIoStandIn, Studio]) -> None:
    standin, studio = world
    for _ in range(100):
        standin._counted("other", 100, 60.0)  # somebody else has used them up
    studio.send(studio.package(), TO)
    assert standin.limited > 0
    assert len(standin.files()) == 2


# Places


def test_places_by_name_and_by_id(world: tuple[FrameIoStandIn, Studio]) -> None:
    standin, studio = world
    standin.page = 2
    above = standin.add("Finals", "folder", standin.root)
    for number in range(5):
        standin.add(f"other {number}", "folder", above.id)
    below = standin.add("Scene 12", "folder", above.id)
    package = studio.package()
    for version, place in enumerate(
        ("Spots/Finals/Scene 12", f"{standin.project}/{above.id}/Scene 12", f"Spots/{below.id}"), 1
    ):
        studio.send(package, f"frameio:{place}", str(version))
        assert len([one for one in standin.files("hero.json") if one.parent_id == below.id]) == version


def test_folders_are_made_only_if_asked(world: tuple[FrameIoStandIn, Studio]) -> None:
    standin, studio = world
    with pytest.raises(InputError, match="no folder 'Finals'"):
        studio.send(studio.package(), f"{TO}/Finals/A")
    assert len(standin.nodes) == 1
    studio.send(studio.package(), f"{TO}/Finals/A", make_folders=True)
    names = {one.name: one.parent_id for one in standin.nodes.values() if one.type == "folder"}
    assert standin.nodes[names["A"]].name == "Finals"


def test_names_that_several_have_are_refused(world: tuple[FrameIoStandIn, Studio]) -> None:
    standin, studio = world
    twins = [standin.add("Twin", "folder", standin.root).id for _ in range(2)]
    with pytest.raises(InputError, match=twins[0]):
        studio.send(studio.package(), f"{TO}/Twin")
    standin.more_projects = [{"id": "other", "name": "Spots", "root_folder_id": "r"}]
    with pytest.raises(InputError, match="2 projects"):
        studio.send(studio.package(), TO)
    with pytest.raises(InputError, match="no such project"):
        studio.send(studio.package(), "frameio:Nowhere")


@pytest.mark.parametrize("text", ["frameio:", "frameio:a//b", "frameio:/a", "dropbox:a", "descript: ", "folder"])
def test_no_place(text: str) -> None:
    with pytest.raises(InputError, match="no place"):
        parse_target(text)


def test_folders_of_a_package_become_folders(world: tuple[FrameIoStandIn, Studio]) -> None:
    standin, studio = world
    studio.send(write_package(studio.home / "p", {"exr/a/1.exr": ("exr", b"1"), "exr/a/2.exr": ("exr", b"2")}), TO)
    folders = [one.name for one in standin.nodes.values() if one.type == "folder"]
    assert folders == ["root", "exr", "a"]
    assert {standin.nodes[one.parent_id].name for one in standin.files()} == {"a"}


# Versions


def versions_of(standin: FrameIoStandIn) -> dict[str, list[str]]:
    """Stack -> ids of its files, in the order of being made."""
    found: dict[str, list[str]] = {}
    for one in standin.files("hero.mp4"):
        if standin.nodes[one.parent_id].type == "version_stack":
            found.setdefault(one.parent_id, []).append(one.id)
    return found


def sent_versions(studio: Studio, *versions: int) -> None:
    for version in versions:
        studio.send(studio.package(str(version), version, 500), TO, str(version))


def test_versions_are_stacked(world: tuple[FrameIoStandIn, Studio]) -> None:
    standin, studio = world
    sent_versions(studio, 1)
    assert versions_of(standin) == {}
    sent_versions(studio, 2)
    made = list(standin.asked)
    sent_versions(studio, 3, 4)
    assert [len(files) for files in versions_of(standin).values()] == [4]
    assert sum(line.endswith("/version_stacks") and line.startswith("POST") for line in standin.asked) == 1
    assert sum(line.endswith("/move") for line in standin.asked[len(made) :]) == 2


def test_more_than_ten_loose_versions(world: tuple[FrameIoStandIn, Studio]) -> None:
    standin, studio = world
    sent_versions(studio, *range(1, 13))
    (stack,) = versions_of(standin)
    for one in standin.files("hero.mp4"):  # somebody has taken the stack apart
        one.parent_id = standin.root
    del standin.nodes[stack]
    sent_versions(studio, 13)
    assert [len(files) for files in versions_of(standin).values()] == [13]


def test_versions_that_were_moved_or_removed_stay_out_of_it(world: tuple[FrameIoStandIn, Studio]) -> None:
    standin, studio = world
    sent_versions(studio, 1)
    away = standin.add("Old", "folder", standin.root)
    standin.files("hero.mp4")[0].parent_id = away.id
    sent_versions(studio, 2)
    assert versions_of(standin) == {}
    assert any("another folder" in text for text in studio.told)
    del standin.nodes[standin.files("hero.mp4")[0].id]
    sent_versions(studio, 3)
    assert [len(files) for files in versions_of(standin).values()] == [2]


def test_other_shots_are_not_stacked_together(world: tuple[FrameIoStandIn, Studio]) -> None:
    from wanimate.handoff.remote.send import send

    standin, studio = world
    for shot in ("a", "b"):
        send(studio.package(), TO, studio.gate, studio.shipment(shot=shot), studio.options(), studio.services)
    assert versions_of(standin) == {}


# What goes on, and what begins anew


def test_expired_addresses_are_asked_for_anew(world: tuple[FrameIoStandIn, Studio]) -> None:
    standin, studio = world
    standin.life, clock = 60.0, studio.services.clock
    package, late = studio.package(), list[bool]()
    original = standin.part_sent

    def third_is_late(*args: object) -> object:
        if len(standin.puts) == 3 and not late:
            late.append(True)
            clock.sleep(61.0)
        return original(*args)  # type: ignore[arg-type]

    standin.part_sent = third_is_late  # type: ignore[method-assign, assignment]
    studio.send(package, TO, roles=("review",))
    (only,) = standin.files()
    assert standin.bytes_of(only) == (package.folder / "hero.mp4").read_bytes()
    assert any("anew" in text for text in studio.told)


def test_a_wrong_signature_is_no_expired_address(world: tuple[FrameIoStandIn, Studio]) -> None:
    standin, studio = world
    standin._signature = lambda node, number, ends: "other" + str(len(standin.asked))  # type: ignore[method-assign]
    with pytest.raises(RemoteError, match="SignatureDoesNotMatch"):
        studio.send(studio.package(), TO)


def test_changed_bytes_begin_anew(world: tuple[FrameIoStandIn, Studio]) -> None:
    standin, studio = world
    package = studio.package()
    standin.arrive = 1e9
    with pytest.raises(RemoteError, match="has not arrived"):
        studio.send(package, TO, roles=("review",), patience=5.0)
    standin.arrive = 0.0
    changed = studio.package(seed=9)
    studio.send(changed, TO, roles=("review",))
    newest = standin.files("hero.mp4")[-1]
    assert standin.bytes_of(newest) == (changed.folder / "hero.mp4").read_bytes()
    assert newest.name == "hero.mp4"


def test_a_package_that_has_changed_under_the_gate_is_refused(world: tuple[FrameIoStandIn, Studio]) -> None:
    standin, studio = world
    package = studio.package()
    (package.folder / "hero.mp4").write_bytes(noise(4500, 5))
    with pytest.raises(InputError, match="has changed"):
        studio.send(package, TO)
    out = Package(package.folder, (Item("../a", "review", "0" * 64, 1, "video/mp4"),))
    with pytest.raises(InputError, match="leads out"):
        check_bytes(out, out.files)
    assert standin.asked == []


def test_a_file_that_changes_on_its_way_is_refused(world: tuple[FrameIoStandIn, Studio]) -> None:
    standin, studio = world
    package = studio.package()
    original = standin.part_sent

    def meanwhile(*args: object) -> object:
        (package.folder / "hero.mp4").write_bytes(noise(4500, 6))
        return original(*args)  # type: ignore[arg-type]

    standin.part_sent = meanwhile  # type: ignore[method-assign, assignment]
    with pytest.raises(InputError, match="changes while it is sent"):
        studio.send(package, TO, roles=("review",))
    assert all(one.whole_at is None for one in standin.files())


def test_what_was_removed_there_is_sent_again(world: tuple[FrameIoStandIn, Studio]) -> None:
    standin, studio = world
    studio.send(studio.package(), TO)
    del standin.nodes[standin.files("hero.mp4")[0].id]
    studio.send(studio.package(), TO)
    assert len(standin.files("hero.mp4")) == 1


def test_two_processes_at_once_are_refused(world: tuple[FrameIoStandIn, Studio]) -> None:
    standin, studio = world
    studio.send(studio.package(), TO)
    about = {"service": "frameio", "shot": "shot_1", "folder": standin.root}
    with Journal(journal_of(studio), about), pytest.raises(HeldError, match="another job"):
        studio.send(studio.package(), TO)


def test_it_waits_for_slow_transcodes(world: tuple[FrameIoStandIn, Studio]) -> None:
    standin, studio = world
    standin.arrive, standin.transcode = 5.0, 120.0
    clock = studio.services.clock
    assert isinstance(clock, TestClock)
    with pytest.raises(RemoteError, match="not ready"):
        studio.send(studio.package(), TO, until="ready", patience=60.0)
    puts = len(standin.puts)
    studio.send(studio.package(), TO, until="ready")
    assert len(standin.puts) == puts
    assert standin._status(standin.files("hero.mp4")[0]) == "transcoded"


# Fields and links


def test_fields_are_made_where_missing_and_set(world: tuple[FrameIoStandIn, Studio]) -> None:
    standin, studio = world
    standin.fields = {
        "1": {"id": "1", "name": "Rating", "field_type": "number"},
        "2": {"id": "2", "name": "Mood", "field_type": "select"},
    }
    sent = studio.send(studio.package(), TO, fields={"Rating": "4", "Mood": "calm", "Approval": "decision_1"})
    assert all(standin.values[one.id] == {"Rating": 4.0, "Approval": "decision_1"} for one in sent.files)
    assert any("Mood is of the type select" in text for text in studio.told)


def test_frameio_gets_a_file_from_a_link(world: tuple[FrameIoStandIn, Studio]) -> None:
    standin, studio = world
    package = studio.package()
    data = (package.folder / "hero.mp4").read_bytes()
    standin.remote = {"https://films.example/hero.mp4": data, "https://films.example/short.mp4": data[:-1]}
    studio.send(package, TO, roles=("review",), links={"hero.mp4": "https://films.example/hero.mp4"})
    assert (standin.puts, standin.bytes_of(standin.files()[0])) == ([], data)
    with pytest.raises(InputError, match="gives 4499 bytes"):
        studio.send(package, TO, "2", roles=("review",), links={"hero.mp4": "https://films.example/short.mp4"})
    with pytest.raises(RemoteError, match="lost an upload"):
        studio.send(package, TO, "3", roles=("review",), links={"hero.mp4": "https://films.example/none.mp4"})
    studio.send(package, TO, "3", roles=("review",), links={"hero.mp4": "https://films.example/hero.mp4"})
    assert standin.bytes_of(standin.files()[-1]) == data
