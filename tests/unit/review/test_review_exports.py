"""Exports: markers that other programs read at the right frame, and that no spreadsheet computes."""

from __future__ import annotations

import csv
import io
import json
import re
from typing import Any

import pytest
from pydantic import ValidationError

from wanimate.errors import InputError
from wanimate.media import timecode
from wanimate.review.exports import as_csv, as_edl, as_json
from wanimate.review.markers import COLUMNS, safe_cell
from wanimate.review.records import Comment, Remark, Reply, Shot, Signature, State, Stroke, Version

MARKER = re.compile(r"^ \|C:ResolveColor(\w+) \|M:([^|]*) \|D:(\d+)$")


def shot(rate: str | None, *comments: Comment, frames: int = 200_000) -> Shot:
    version = Version(
        job="job-1",
        number=2,
        name="Wave",
        state=State.NEEDS_REVIEW,
        added=1,
        mode="animation",
        frames=frames,
        rate=rate,
    )
    other = version.model_copy(update={"job": "job-0", "number": 1})
    return Shot(
        id="shot_1", owner="ann", name="Scene 12", state=State.NEEDS_REVIEW, created=1, changed=2, versions=(other, version),
        comments=comments, decisions=(), intact=True,
    )  # fmt: skip


def comment(text: str, frame: int, **more: Any) -> Comment:
    told = {"id": f"c{frame}", "job": "job-1", "author": "Ann", "role": "owner", "at": frame} | more
    return Comment(text=text, frame=frame, **told)


def rows(text: str) -> list[dict[str, str]]:
    """The markers of a CSV export."""
    lines = text.splitlines(keepends=True)
    assert lines[0].lstrip('"').startswith("# ")
    return list(csv.DictReader(io.StringIO("".join(lines[1:]))))


# CSV


def test_markers_in_drop_frame_time() -> None:
    found = shot("30000/1001", comment("The hand is gone.", 107_892, duration=30))
    (row,) = rows(as_csv(found, found.versions[1]))
    assert list(row) == list(COLUMNS)
    assert (row["in"], row["out"], row["duration"]) == ("01:00:00;00", "01:00:01;00", "00:00:01:00")
    assert "rate 30000/1001 frames/s, drop-frame timecode" in as_csv(found, found.versions[1])


def test_a_film_rate_is_never_dropped() -> None:
    found = shot("24000/1001", comment("Here", 86_400))
    assert rows(as_csv(found, found.versions[1]))[0]["in"] == "01:00:00:00"


@pytest.mark.parametrize("rate", ["15", "16", "25/2"])
def test_a_rate_without_timecode_counts_frames_and_says_so(rate: str) -> None:
    found = shot(rate, comment("Here", 31, duration=4))
    text = as_csv(found, found.versions[1])
    assert "the rate has no timecode" in text.splitlines()[0]
    assert (rows(text)[0]["in"], rows(text)[0]["out"], rows(text)[0]["duration"]) == ("31", "35", "4")


def test_the_file_begins_where_its_timecode_says() -> None:
    found = shot("25", comment("Here", 10))
    assert rows(as_csv(found, found.versions[1], "01:00:00:00"))[0]["in"] == "01:00:00:10"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "  =1", "\t=1", "＝1"])
def test_no_cell_is_a_formula(text: str) -> None:
    assert safe_cell(text).startswith("'")
    found = shot("25", comment(text.strip() or text, 1, author="=cmd|' /C calc'!A0"))
    (row,) = rows(as_csv(found, found.versions[1]))
    assert row["comment"].startswith("'")
    assert row["name"].startswith("'")


def test_plain_cells_stay_as_they_are() -> None:
    found = shot("25", comment('He said "no", then\nleft; 3 - 2 = 1', 1))
    assert rows(as_csv(found, found.versions[1]))[0]["comment"] == 'He said "no", then\nleft; 3 - 2 = 1'


def test_only_the_version_that_is_asked_for_in_the_order_of_frames() -> None:
    found = shot("25", comment("b", 9), comment("a", 3, resolved=5), comment("other", 1, job="job-0"))
    read = rows(as_csv(found, found.versions[1]))
    assert [(row["comment"], row["colour"]) for row in read] == [("a", "Green"), ("b", "Red")]


# EDL


def test_an_event_and_a_marker_for_each_comment() -> None:
    answers = (Reply(id="r", author="Bob", role="guest", at=2, text="done"),)
    found = shot("30000/1001", comment("Too | dark\nhere", 1800, duration=3, replies=answers), comment("End", 17_982))
    lines = as_edl(found, found.versions[1]).splitlines()
    assert lines[:3] == ["TITLE: Scene 12 version 2", "FCM: DROP FRAME", ""]
    assert lines[3] == "001  AX       V     C        00:01:00;02 00:01:00;05 01:01:00;02 01:01:00;05"
    assert lines[4] == " |C:ResolveColorRed |M:Ann: Too / dark here / Bob: done |D:3"
    assert lines[6].startswith("002  AX       V     C        00:10:00;00 ")


@pytest.mark.parametrize("rate", ["24000/1001", "25", "30", "60000/1001", "15"])
def test_every_marker_is_read_back_at_its_frame(rate: str) -> None:
    found = shot(rate, *(comment(f"at {frame}", frame) for frame in (0, 1, 1799, 1800, 3600, 107_892)))
    version = found.versions[1]
    text = as_edl(found, version)
    exact = version.exact_rate
    assert exact is not None
    header = "FCM: DROP FRAME" if timecode.may_drop(exact) else "FCM: NON-DROP FRAME"
    assert text.splitlines()[1] == header
    hour = timecode.parse("01:00:00;00" if timecode.may_drop(exact) else "01:00:00:00", exact)
    events = [line.split() for line in text.splitlines() if re.match(r"\d{3}  AX", line)]
    markers = [found[2] for line in text.splitlines() if (found := MARKER.match(line))]
    for event, marker in zip(events, markers, strict=True):
        frame = int(marker.rpartition(" ")[2])
        assert timecode.parse(event[4], exact) == frame
        assert timecode.parse(event[6], exact) == hour + frame
        assert timecode.parse(event[5], exact) == frame + 1
    assert ("HAS NO TIMECODE" in text) is (rate == "15")


def test_the_name_of_a_shot_breaks_no_line() -> None:
    """It comes from a job, whose name may be anything."""
    found = shot("25", comment("Here", 1)).model_copy(update={"name": "Scene\n=12\x1b[31m"})
    assert as_edl(found, found.versions[1]).splitlines()[0] == "TITLE: Scene =12[31m version 2"
    assert as_csv(found, found.versions[1]).splitlines()[1] == ",".join(COLUMNS)


def test_without_a_rate_only_json_is_exported() -> None:
    found = shot(None, comment("Here", 1))
    for export in (as_csv, as_edl):
        with pytest.raises(InputError, match="JSON"):
            export(found, found.versions[1])
    assert json.loads(as_json(found))["comments"][0]["frame"] == 1


# JSON


def test_json_has_everything() -> None:
    stroke = Stroke(points=((0.1, 0.2), (0.3, 0.4)), colour="#00ff00", width=0.01)
    found = shot("25", comment("Look", 3, x=0.25, y=0.75, marks=(stroke,)))
    told = json.loads(as_json(found))
    assert told["format"] == "wanimate.review/1"
    assert told["comments"][0]["marks"] == [{"points": [[0.1, 0.2], [0.3, 0.4]], "colour": "#00ff00", "width": 0.01}]
    assert Shot.model_validate({name: value for name, value in told.items() if name != "format"}) == found


# What people write


@pytest.mark.parametrize(
    "wrong",
    [
        {"text": ""}, {"text": "  \n "}, {"text": "a\0b"}, {"text": "\x1b[31m"}, {"text": "x" * 5001}, {"frame": -1},
        {"duration": 0}, {"x": 0.5}, {"x": 1.1, "y": 0.5}, {"x": float("nan"), "y": 0.5}, {"more": 1},
        {"marks": [{"points": []}]}, {"marks": [{"points": [[0.5, 2.0]]}]},
        {"marks": [{"points": [[0.5, 0.5]], "colour": "red"}]}, {"marks": [{"points": [[0.5, 0.5]], "width": 1.0}]},
        {"marks": [{"points": [[0.5, 0.5]]}] * 65}, {"marks": [{"points": [[0.5, 0.5]] * 2000}] * 5},
    ],
)  # fmt: skip
def test_a_remark_has_bounds(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Remark.model_validate({"text": "Here", "frame": 3} | wrong)
    assert Remark.model_validate({"text": " Here\r\nand there ", "frame": 3}).text == "Here\nand there"


@pytest.mark.parametrize("name", ["", " ", "a\nb", "a\tb", "\u202egnp.a", "x" * 81])
def test_a_name_is_one_line_that_reads_as_it_is(name: str) -> None:
    with pytest.raises(ValidationError):
        Signature(name=name)
    assert Signature(name=" Zoë Ó Briain ").name == "Zoë Ó Briain"
