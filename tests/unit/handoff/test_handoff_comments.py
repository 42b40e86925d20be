"""Comments both ways, each once, also where a run was killed between saying and writing down."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from parcels import Studio, frameio_studio
from standin import TestClock
from standin_frameio import FrameIoStandIn

from wanimate.errors import InputError
from wanimate.handoff.remote import drawing
from wanimate.handoff.remote.comments import Synced, syncing
from wanimate.handoff.remote.journal import Journal
from wanimate.handoff.remote.send import frameio, send
from wanimate.review.records import Comment, Remark, Reply, Shot, State, Stroke, Version


class Desk:
    """A review in memory."""

    def __init__(self, *versions: str) -> None:
        self.comments: list[Comment] = []
        self.identities: list[str] = []
        self.broken = False
        self.versions = tuple(
            Version(
                job=job, number=number, name=job, state=State.NEEDS_REVIEW, added=0, mode="animation", frames=60, rate="25"
            )
            for number, job in enumerate(versions, 1)
        )  # fmt: skip

    def shot(self) -> Shot:
        return Shot(
            id="shot_1", owner="ann", name="Scene 12", state=State.NEEDS_REVIEW, created=0, changed=0, intact=True,
            versions=self.versions, comments=tuple(self.comments), decisions=(),
        )  # fmt: skip

    def add(self, version: str, author: str, identity: str, remark: Remark) -> str:
        made = self.say(version, author, **remark.model_dump())
        self.identities.append(identity)
        return made

    def reply(self, comment: str, author: str, identity: str, text: str) -> str:
        (place,) = (place for place, one in enumerate(self.comments) if one.id == comment)
        above, id_ = self.comments[place], f"reply_{sum(len(one.replies) for one in self.comments)}"
        reply = Reply(id=id_, author=author, role="guest", at=0, text=text)
        self.comments[place] = above.model_copy(update={"replies": (*above.replies, reply)})
        return id_

    def say(self, version: str, author: str, text: str, frame: int = 0, **more: Any) -> str:
        id_ = f"comment_{len(self.comments)}"
        self.comments.append(
            Comment(id=id_, job=version, author=author, role="owner", at=0, text=text, frame=frame, **more)
        )
        return id_


@pytest.fixture
def world(tmp_path: Path) -> Iterator[tuple[FrameIoStandIn, Studio, Desk, str]]:
    """A shot with one version at Frame.io, and the id of its file there."""
    with frameio_studio(tmp_path) as (standin, studio):
        studio.send(studio.package(), "frameio:Spots")
        yield standin, studio, Desk("1"), standin.files("hero.mp4")[0].id
        assert standin.violations == []


def synced(studio: Studio, desk: Desk) -> Synced:
    with frameio(None, studio.services) as api:
        return studio.run(syncing(api, desk, studio.home / "journals"))


def texts(standin: FrameIoStandIn, file: str) -> list[str]:
    return [one["text"] for one in standin.said.get(file, [])]


def test_ours_go_there_with_frame_place_and_marks(world: tuple[FrameIoStandIn, Studio, Desk, str]) -> None:
    standin, studio, desk, file = world
    line = Stroke(points=((0.1, 0.2), (0.3, 0.4), (0.5, 0.4)), colour="#00ff00", width=0.01)
    desk.say("1", "Ann Lee", "The hand.", 25, duration=10, x=0.25, y=0.5, marks=(line,))
    assert synced(studio, desk) == Synced(1, 0)
    (said,) = standin.said[file]
    assert (said["text"], said["timestamp"], said["duration"]) == ("Ann Lee: The hand.", 25, 10)
    assert said["anchor"] == {"x": 0.25, "y": 0.5}
    shapes = json.loads(said["annotation"])
    assert shapes[0] == {"tool": "line", "color": "#00ff00", "size": 13, "x1": 0.1, "y1": 0.2, "x2": 0.3, "y2": 0.4}
    assert [stroke.points for stroke in drawing.read(said["annotation"])] == [line.points]


def test_theirs_come_here_over_pages_with_answers(world: tuple[FrameIoStandIn, Studio, Desk, str]) -> None:
    standin, studio, desk, file = world
    standin.page = 2
    for number in range(5):
        standin.comment(file, f"note {number}", 10 * number, "Bo", duration=None)
    reply = {"id": "r1", "text": "Done.", "owner": {"id": "u9", "name": "Cy"}}
    standin.said[file][3] |= {"replies": [reply], "anchor": {"x": 0.1, "y": 0.9}, "duration": 99}
    assert synced(studio, desk) == Synced(0, 6)
    assert [(one.text, one.frame, one.author) for one in desk.comments] == [
        (f"note {number}", 10 * number, "Bo") for number in range(5)
    ]
    placed = desk.comments[3]
    assert (placed.x, placed.y, placed.duration) == (0.1, 0.9, 30), "it ends with the version"
    assert [(one.author, one.text) for one in placed.replies] == [("Cy", "Done.")]
    assert desk.identities == ["frameio:user-Bo"] * 5


def test_a_second_sync_doubles_nothing(world: tuple[FrameIoStandIn, Studio, Desk, str]) -> None:
    standin, studio, desk, file = world
    ours = desk.say("1", "Ann", "Ours.", 3)
    desk.reply(ours, "Bo", "x", "Yes.")
    standin.comment(file, "Theirs.", 4, "Cy", replies=[])
    assert synced(studio, desk) == Synced(2, 1)
    assert texts(standin, file) == ["Theirs.", "Ann: Ours.", "Bo to Ann: Yes."]
    for _ in range(2):
        assert synced(studio, desk) == Synced(0, 0)
    standin.said[file][0]["replies"].append({"id": "late", "text": "And more.", "owner": {"id": "c", "name": "Cy"}})
    assert synced(studio, desk) == Synced(0, 1)
    assert [one.text for one in desk.comments] == ["Ours.", "Theirs."]
    assert [one.text for one in desk.comments[1].replies] == ["And more."]


@pytest.mark.parametrize("kind", ["comment"])
@pytest.mark.parametrize("kept", range(6))
def test_a_kill_between_saying_and_writing_down_doubles_nothing(
    world: tuple[FrameIoStandIn, Studio, Desk, str], monkeypatch: pytest.MonkeyPatch, kind: str, kept: int
) -> None:
    standin, studio, desk, file = world
    ours = desk.say("1", "Ann", "Ours.", 3)
    desk.reply(ours, "Bo", "x", "Yes.")
    answer = {"id": "r1", "text": "No.", "owner": {"id": "c", "name": "Cy"}}
    standin.comment(file, "Theirs.", 4, "Cy", replies=[answer])
    standin.comment(file, "Theirs.", 4, "Cy", replies=[])
    left, real = [kept], Journal.add

    def add(self: Journal, what: str, **facts: Any) -> None:
        if what == kind:
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
        real(self, what, **facts)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "add", add)
        if kept < 5:
            with pytest.raises(KeyboardInterrupt):
                synced(studio, desk)
    synced(studio, desk)
    assert sorted(texts(standin, file)) == ["Ann: Ours.", "Bo to Ann: Yes.", "Theirs.", "Theirs."]
    assert sorted(one.text for one in desk.comments) == ["Ours.", "Theirs.", "Theirs."]
    assert sorted(reply.text for one in desk.comments for reply in one.replies) == ["No.", "Yes."]
    assert synced(studio, desk) == Synced(0, 0)


@pytest.mark.parametrize("seed", range(4))
def test_a_bad_line_doubles_nothing(world: tuple[FrameIoStandIn, Studio, Desk, str], seed: int) -> None:
    standin, studio, desk, file = world
    for number in range(6):
        desk.say("1", "Ann", f"note {number % 2}", number // 4)
        standin.comment(file, f"their {number}", number, "Bo")
    standin.faults = 0.25
    standin.rng.seed(seed)
    synced(studio, desk)
    assert sorted(texts(standin, file)) == sorted(
        [f"Ann: note {number % 2}" for number in range(6)] + [f"their {number}" for number in range(6)]
    )
    assert len(desk.comments) == 12


def test_the_slate_is_counted(tmp_path: Path) -> None:
    import dataclasses

    with frameio_studio(tmp_path) as (standin, studio):
        shipment = dataclasses.replace(studio.shipment(), lead=24)
        send(studio.package(), "frameio:Spots", studio.gate, shipment, studio.options(), studio.services)
        desk, file = Desk("1"), standin.files("hero.mp4")[0].id
        desk.say("1", "Ann", "Ours.", 3)
        standin.comment(file, "Theirs.", 30, "Bo")
        standin.comment(file, "Slate.", 2, "Bo")
        synced(studio, desk)
        assert standin.said[file][-1]["timestamp"] == 27
        assert [(one.text, one.frame) for one in desk.comments] == [("Ours.", 3), ("Theirs.", 6), ("Slate.", 0)]
        assert synced(studio, desk) == Synced(0, 0)


def test_versions_have_their_own_comments(world: tuple[FrameIoStandIn, Studio, Desk, str]) -> None:
    standin, studio, _, file = world
    studio.send(studio.package("2", 2), "frameio:Spots", "2")
    desk, second = Desk("1", "2"), standin.files("hero.mp4")[1].id
    desk.say("1", "Ann", "First.")
    desk.say("2", "Ann", "Second.")
    standin.comment(second, "Theirs.", 0, "Bo")
    synced(studio, desk)
    assert (texts(standin, file), texts(standin, second)) == (["Ann: First."], ["Theirs.", "Ann: Second."])
    assert [one.job for one in desk.comments] == ["1", "2", "2"]


def test_strange_comments_are_taken_as_far_as_they_go(world: tuple[FrameIoStandIn, Studio, Desk, str]) -> None:
    standin, studio, desk, file = world
    standin.comment(file, "no frame", None, "Bo")
    standin.comment(
        file, "", 3, "Bo", annotation='[{"tool":"rect","color":"red","size":3,"x":0.9,"y":0.9,"w":0.5,"h":0}]'
    )
    standin.comment(file, "far\x07 away\r\n" + "x" * 6000, 10**9, "B\u0000o\n" + "b" * 100, anchor={"x": 4, "y": "a"})
    standin.comment(file, "torn", 5, "Bo", annotation="[{", owner=None)
    synced(studio, desk)
    first, drawn, long, torn = desk.comments
    assert (first.frame, drawn.text, len(drawn.marks), drawn.marks[0].colour) == (0, "(drawn)", 1, "#ff3b30")
    assert (long.frame, len(long.text), long.x) == (59, 5000, None)
    assert long.text.startswith("far away\nxxx")
    assert len(long.author) == 80
    assert (torn.author, torn.marks) == ("Frame.io", ())
    assert synced(studio, desk) == Synced(0, 0)


def test_what_was_removed_stays_away(world: tuple[FrameIoStandIn, Studio, Desk, str]) -> None:
    standin, studio, desk, file = world
    standin.comment(file, "Theirs.", 0, "Bo", replies=[])
    desk.say("1", "Ann", "Ours.")
    synced(studio, desk)
    desk.comments = desk.comments[:1]
    standin.said[file] = standin.said[file][:1]
    standin.said[file][0]["replies"].append({"id": "r", "text": "More.", "owner": {"id": "b", "name": "Bo"}})
    assert synced(studio, desk) == Synced(0, 0)
    del standin.nodes[file]
    assert synced(studio, desk) == Synced(0, 0)
    assert any("gone from Frame.io" in text for text in studio.told)


def test_a_shot_that_is_not_there(world: tuple[FrameIoStandIn, Studio, Desk, str], tmp_path: Path) -> None:
    _, studio, desk, _ = world
    with frameio(None, studio.services) as api, pytest.raises(InputError, match="no version of it was handed off"):
        studio.run(syncing(api, desk, tmp_path / "empty"))


def test_the_limit_of_comments_is_kept(world: tuple[FrameIoStandIn, Studio, Desk, str]) -> None:
    standin, studio, desk, _ = world
    for number in range(120):
        desk.say("1", "Ann", f"note {number}", number % 60)
    synced(studio, desk)
    assert standin.limited == 0
    assert isinstance(studio.services.clock, TestClock)
    assert sum(studio.services.clock.sleeps) > 50.0


def test_many_points_are_thinned() -> None:
    points = tuple((index / 2000, 0.5) for index in range(2000))
    strokes = tuple(Stroke(points=points) for _ in range(4))
    text = drawing.written(strokes)
    assert text is not None
    assert len(json.loads(text)) <= 404
    back = drawing.read(text)
    assert [(one.points[0], one.points[-1]) for one in back] == [(points[0], points[-1])] * 4
    assert drawing.written((Stroke(points=((0.5, 0.5),)),)) is not None
    assert drawing.written(()) is None
    assert drawing.read(None) == drawing.read("nonsense") == drawing.read('{"tool":"line"}') == ()
    arrow = drawing.read('[{"tool":"arrow","color":"#FF0000","size":4,"x":0.2,"y":0.2,"w":0.1,"h":0.3}]')
    assert [(one.colour, one.points) for one in arrow] == [("#ff0000", ((0.2, 0.2), (pytest.approx(0.3), 0.5)))]
