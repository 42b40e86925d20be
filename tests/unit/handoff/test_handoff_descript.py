"""Packages to Descript: what it takes, names, jobs, addresses that expire, minutes that run out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from parcels import Item, Package, Studio, descript_studio, noise, write_package
from standin import TestClock
from standin_descript import DescriptStandIn, Project

from wanimate.errors import InputError
from wanimate.handoff.remote.http import RemoteError
from wanimate.handoff.remote.tokens import DESCRIPT_TOKEN

TO = "descript:Spring spots"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[tuple[DescriptStandIn, Studio]]:
    with descript_studio(tmp_path) as found:
        yield found
        assert found[0].violations == []


def film(path: Path, codec: str, pixels: str, shade: int = 90) -> bytes:
    """A few frames in a codec."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 36, pixels
        for number in range(3):
            picture = np.full((36, 64, 3), shade + number, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format=pixels)
            for packet in stream.encode(frame):
                out.mux(packet)
        for packet in stream.encode():
            out.mux(packet)
    return path.read_bytes()


def tone(path: Path, codec: str) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=48000)
        stream.layout = "mono"
        form = stream.codec_context.format.name
        kind = {"fltp": np.float32, "s16": np.int16, "s16p": np.int16, "s32p": np.int32}[form]
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4608), kind), form, "mono")
        frame.sample_rate = 48000
        for packet in [*stream.encode(frame), *stream.encode()]:
            out.mux(packet)
    return path.read_bytes()


@pytest.fixture(scope="module")
def shot(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, bytes]]:
    home = tmp_path_factory.mktemp("films")
    return {
        "hero.review.mp4": ("review", film(home / "a.mp4", "libx264", "yuv420p")),
        "hero.mov": ("mezzanine", film(home / "b.mov", "prores_ks", "yuva444p10le")),
        "hero.json": ("record", b"{}"),
    }


def names(standin: DescriptStandIn) -> list[str]:
    (project,) = standin.projects.values()
    return list(project.media)


def test_the_review_copy_becomes_media_and_a_composition(
    world: tuple[DescriptStandIn, Studio], shot: dict[str, tuple[str, bytes]]
) -> None:
    standin, studio = world
    sent = studio.send(write_package(studio.home / "p", shot), TO, team="comment", team_folder="Clients/Acme")
    (project,) = standin.projects.values()
    assert (project.name, project.access, project.folder) == ("Spring spots", "comment", "Clients/Acme")
    assert project.media == {"hero.review.mp4": shot["hero.review.mp4"][1]}
    assert project.compositions == [
        {"name": "hero.review", "width": 64, "height": 36, "clips": [{"media": "hero.review.mp4"}]}
    ]
    assert sent.left_out == ("hero.mov", "hero.json")
    assert (sent.url, sent.decisions) == (f"https://web.descript.com/{project.id}", ("decision_1",))
    assert [leaving.derived for leaving in studio.gate.leaving] == [
        (("hero.review.mp4", write_package(studio.home / "q", shot).files[0].sha256),)
    ]


@pytest.mark.parametrize(("role", "what"), [("mezzanine", "prores in mov"), ("record", "json"), ("exr", "exr")])
def test_what_descript_does_not_take_is_refused_before_anything_is_sent(
    world: tuple[DescriptStandIn, Studio], shot: dict[str, tuple[str, bytes]], role: str, what: str
) -> None:
    standin, studio = world
    package = write_package(studio.home / "p", {**shot, "exr/hero.0001.exr": ("exr", b"v/1\x01" + noise(50))})
    with pytest.raises(InputError, match="make a review copy") as caught:
        studio.send(package, TO, roles=("review", role))
    assert what in str(caught.value)
    assert (standin.asked, studio.gate.events) == ([], [])


def test_a_package_with_nothing_for_descript(world: tuple[DescriptStandIn, Studio]) -> None:
    _, studio = world
    with pytest.raises(InputError, match="nothing that Descript takes"):
        studio.send(write_package(studio.home / "p", {"a.json": ("record", b"{}")}), TO)


@pytest.mark.parametrize(
    ("name", "codec", "takes"),
    [("a.wav", "pcm_s16le", True), ("a.flac", "flac", True), ("a.mp3", "libmp3lame", True), ("a.m4a", "aac", True),
     ("a.opus", "libopus", False), ("a.mkv", "libx264", False)],
)  # fmt: skip
def test_containers_and_sounds(world: tuple[DescriptStandIn, Studio], name: str, codec: str, takes: bool) -> None:
    standin, studio = world
    made = studio.home / name
    data = film(made, codec, "yuv420p") if codec == "libx264" else tone(made, codec)
    package = write_package(studio.home / "p", {name: ("sound", data)})
    if not takes:
        with pytest.raises(InputError, match="nothing that Descript takes"):
            studio.send(package, TO)
        return
    studio.send(package, TO)
    assert names(standin) == [name]


def test_names_are_new_in_the_project(
    world: tuple[DescriptStandIn, Studio], shot: dict[str, tuple[str, bytes]]
) -> None:
    standin, studio = world
    for version in ("1", "2", "3"):
        data = film(studio.home / version / "x.mp4", "libx264", "yuv420p", 20 * int(version))
        studio.send(write_package(studio.home / f"p{version}", {"hero.mp4": ("review", data)}), TO, version)
    assert names(standin) == ["hero.mp4", "hero (2).mp4", "hero (3).mp4"]


def test_projects_by_name_and_id(world: tuple[DescriptStandIn, Studio], shot: dict[str, tuple[str, bytes]]) -> None:
    standin, studio = world
    package = write_package(studio.home / "p", shot)
    ids = [f"{number:08}-0000-4000-8000-000000000000" for number in range(5)]
    for id_, name in zip(ids, ["Spring", "Spring spots 2", "spring spots", "Spring spots", "Twin"], strict=True):
        standin.projects[id_] = Project(id_, name)
    studio.send(package, TO)
    assert list(standin.projects[ids[3]].media) == ["hero.review.mp4"]
    studio.send(package, f"descript:{ids[0]}")
    assert list(standin.projects[ids[0]].media) == ["hero.review.mp4"]
    standin.projects["x"] = Project("x", "Twin")
    with pytest.raises(InputError, match="2 projects"):
        studio.send(package, "descript:Twin")
    with pytest.raises(InputError, match="no such project"):
        studio.send(package, f"descript:{ids[0].replace('0', '9')}")


def test_a_second_run_imports_nothing_again(
    world: tuple[DescriptStandIn, Studio], shot: dict[str, tuple[str, bytes]]
) -> None:
    standin, studio = world
    package = write_package(studio.home / "p", shot)
    assert studio.send(package, TO) == studio.send(package, TO)
    assert (len(standin.jobs), studio.gate.events.count("left")) == (1, 1)


@pytest.mark.parametrize("seed", range(4))
def test_it_arrives_over_a_bad_line(tmp_path: Path, shot: dict[str, tuple[str, bytes]], seed: int) -> None:
    with descript_studio(tmp_path) as (standin, studio):
        standin.faults = 0.2
        standin.rng.seed(seed)
        for number in range(3):
            studio.send(write_package(tmp_path / "p", shot), f"descript:Spot {number}", str(number + 1))
        assert standin.violations == []
        assert sorted(one.name for one in standin.projects.values() if one.media) == ["Spot 0", "Spot 1", "Spot 2"]
        assert len(standin.projects) == 3, "a call that broke off makes no second project"
        for project in standin.projects.values():
            assert set(project.media.values()) == {shot["hero.review.mp4"][1]}


def test_no_minutes_left(world: tuple[DescriptStandIn, Studio], shot: dict[str, tuple[str, bytes]]) -> None:
    standin, studio = world
    standin.minutes = 0
    with pytest.raises(RemoteError, match="no minutes left") as caught:
        studio.send(write_package(studio.home / "p", shot), TO)
    assert "Insufficient media minutes" in str(caught.value)
    assert "Buy minutes" in str(caught.value)


def test_retry_after_is_heeded(world: tuple[DescriptStandIn, Studio], shot: dict[str, tuple[str, bytes]]) -> None:
    standin, studio = world
    standin.calls, standin.window = 1, 5.0
    clock = studio.services.clock
    assert isinstance(clock, TestClock)
    studio.send(write_package(studio.home / "p", shot), TO)
    assert standin.limited >= 1
    assert clock.sleeps.count(7.0) == standin.limited, "one wait for each refusal is enough"


def test_addresses_hold_three_hours(world: tuple[DescriptStandIn, Studio], shot: dict[str, tuple[str, bytes]]) -> None:
    standin, studio = world
    package, clock = write_package(studio.home / "p", shot), studio.services.clock
    original = standin.sent
    standin.sent = lambda request, id_: clock.sleep(4 * 3600.0) or original(request, id_)  # type: ignore[method-assign, func-returns-value]
    with pytest.raises(RemoteError, match="expired"):
        studio.send(package, TO)
    standin.sent = original  # type: ignore[method-assign]
    studio.send(package, TO)
    assert [job.got is not None for job in standin.jobs.values()] == [False, False, False, True]
    assert names(standin) == ["hero.review.mp4"]


def test_an_import_that_takes_long_goes_on_later(
    world: tuple[DescriptStandIn, Studio], shot: dict[str, tuple[str, bytes]]
) -> None:
    standin, studio = world
    standin.seconds = 500.0
    package = write_package(studio.home / "p", shot)
    with pytest.raises(RemoteError, match="not finished after 100 s"):
        studio.send(package, TO, patience=100.0)
    studio.send(package, TO)
    assert len(standin.jobs) == 1


def test_an_import_that_fails_is_told_and_begun_anew(
    world: tuple[DescriptStandIn, Studio], shot: dict[str, tuple[str, bytes]]
) -> None:
    standin, studio = world
    standin.broken = {"hero.review.mp4"}
    package = write_package(studio.home / "p", shot)
    with pytest.raises(RemoteError, match="cannot be decoded"):
        studio.send(package, TO)
    standin.broken = set()
    studio.send(package, TO)
    assert len(standin.jobs) == 2


def test_a_token_is_needed(
    world: tuple[DescriptStandIn, Studio], shot: dict[str, tuple[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, studio = world
    package = write_package(studio.home / "p", shot)
    monkeypatch.setenv(DESCRIPT_TOKEN, "wrong")
    with pytest.raises(RemoteError, match="the token is refused") as caught:
        studio.send(package, TO)
    assert "wrong" not in str(caught.value)
    monkeypatch.delenv(DESCRIPT_TOKEN)
    with pytest.raises(InputError, match="no token for Descript"):
        studio.send(package, TO)


def test_a_file_that_is_none(world: tuple[DescriptStandIn, Studio], shot: dict[str, tuple[str, bytes]]) -> None:
    _, studio = world
    package = write_package(studio.home / "p", shot)
    item: Item = dataclasses.replace(package.files[0], name="../p/hero.review.mp4")
    with pytest.raises(InputError, match="leads out"):
        studio.send(Package(package.folder, (item,)), TO)
