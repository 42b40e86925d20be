"""Timelines and markers: every time is the frame that is meant, at every rate, with dropped labels and without."""

from __future__ import annotations

import csv
import io
import json
import re
import xml.etree.ElementTree as ET
from fractions import Fraction
from typing import Any

import opentimelineio
import pytest

from wanimate.handoff.timelines import Cut, Sound, fcpxml, otio, seconds
from wanimate.media import timecode
from wanimate.review.markers import Count, Marker, cut_edl, markers_csv, markers_edl

NTSC, FAST, FILM = Fraction(30000, 1001), Fraction(60000, 1001), Fraction(24000, 1001)
EDGES = [
    # rate, label of a frame, its number
    (NTSC, "00:00:59;29", 1799), (NTSC, "00:01:00;02", 1800), (NTSC, "00:09:59;29", 17981),
    (NTSC, "00:10:00;00", 17982), (NTSC, "01:00:00;00", 107892), (NTSC, "23:59:59;29", 2589407),
    (FAST, "00:00:59;59", 3599), (FAST, "00:01:00;04", 3600), (FAST, "00:10:00;00", 35964), (FAST, "01:00:00;00", 215784),
    (NTSC, "00:00:59:29", 1799), (NTSC, "00:01:00:00", 1800), (NTSC, "00:10:00:00", 18000), (NTSC, "01:00:00:00", 108000),
    (FAST, "01:00:00:00", 216000), (FILM, "00:01:00:00", 1440), (FILM, "01:00:00:00", 86400),
    (Fraction(24), "01:00:00:00", 86400), (Fraction(25), "00:10:00:00", 15000), (Fraction(25), "01:00:00:00", 90000),
    (Fraction(30), "01:00:00:00", 108000), (Fraction(50), "00:00:59:49", 2999), (Fraction(60), "01:00:00:00", 216000),
]  # fmt: skip
NO_TIMECODE = [Fraction(15), Fraction(16), Fraction(25, 2)]
CHILDREN: dict[str, dict[str, set[str]]] = {
    # element -> its children, its attributes, those that it has to have; of FCPXML 1.10
    "fcpxml": {"in": {"resources", "library"}, "may": {"version"}, "must": {"version"}},
    "resources": {"in": {"format", "asset"}, "may": set(), "must": set()},
    "format": {
        "in": set(), "must": {"id"}, "may": {"id", "name", "frameDuration", "width", "height", "colorSpace"},
    },
    "asset": {
        "in": {"media-rep"}, "must": {"id"},
        "may": {
            "id", "name", "start", "duration", "hasVideo", "format", "videoSources", "hasAudio", "audioSources",
            "audioChannels", "audioRate",
        },
    },
    "media-rep": {"in": set(), "may": {"kind", "src"}, "must": {"src"}},
    "library": {"in": {"event"}, "may": set(), "must": set()},
    "event": {"in": {"project"}, "may": {"name"}, "must": set()},
    "project": {"in": {"sequence"}, "may": {"name"}, "must": set()},
    "sequence": {
        "in": {"spine"}, "must": {"format"},
        "may": {"format", "duration", "tcStart", "tcFormat", "audioLayout", "audioRate"},
    },
    "spine": {"in": {"asset-clip"}, "may": set(), "must": set()},
    "asset-clip": {
        "in": {"marker"}, "must": {"ref"}, "may": {"ref", "name", "offset", "start", "duration", "format", "tcFormat"},
    },
    "marker": {
        "in": set(), "must": {"start", "value"}, "may": {"start", "duration", "value", "completed", "note"},
    },
}  # fmt: skip


def cut(count: Count, *markers: Marker, **more: Any) -> Cut:
    return Cut("S010", "S010 v3.mov", 50, (1920, 1080), count, markers, **{"sound": Sound(2, 48000)} | more)


def valid(text: str) -> ET.Element:
    """The root of an FCPXML document, whose elements and attributes are those that the form knows."""
    root = ET.fromstring(text.encode())
    for element in root.iter():
        known = CHILDREN[element.tag]
        assert {child.tag for child in element} <= known["in"]
        assert known["must"] <= set(element.keys()) <= known["may"], element.attrib
    assert text.startswith('<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE fcpxml>\n')
    return root


def frames_of(time: str, rate: Fraction) -> int:
    """A time of FCPXML in whole frames."""
    found = re.fullmatch(r"(\d+)(?:/(\d+))?s", time)
    assert found is not None
    counted = Fraction(int(found[1]), int(found[2] or 1)) * rate
    assert counted.denominator == 1
    return int(counted)


@pytest.mark.parametrize(("rate", "label", "number"), EDGES, ids=[f"{rate} {label}" for rate, label, _ in EDGES])
def test_the_table_of_labels(rate: Fraction, label: str, number: int) -> None:
    count = Count.of(rate, label)
    assert (count.start, count.drop) == (number, ";" in label)
    assert count.label(number) == label
    marker = Marker(0, "Ann", "Here")
    (row,) = csv.DictReader(io.StringIO(markers_csv("S010", count, [marker]).partition("\r\n")[2]))
    assert row["in"] == label
    event = markers_edl("S010", count, [marker]).splitlines()[3].split()
    assert event[4] == label
    assert event[5] == timecode.format(number + 1, rate, ";" in label)
    assert cut_edl("S010", count, "A001", 1, "a.mov").splitlines()[3].split()[4] == label
    root = valid(fcpxml(cut(count, marker)))
    (asset,), (clip,), (at,) = root.iter("asset"), root.iter("asset-clip"), root.iter("marker")
    assert {frames_of(one.attrib["start"], rate) for one in (asset, clip, at)} == {number}
    assert clip.attrib["tcFormat"] == ("DF" if ";" in label else "NDF")
    read = opentimelineio.adapters.read_from_string(otio(cut(count, marker)), "otio_json")
    found = next(iter(read.find_clips()))
    assert found.source_range.start_time.value == number
    told = opentimelineio.opentime.to_timecode(found.source_range.start_time, float(rate), ";" in label)
    assert told == label


def test_an_hour_of_dropped_labels_in_fcpxml() -> None:
    assert seconds(107892, NTSC) == "107999892/30000s"
    (sequence,) = valid(fcpxml(cut(Count.of(NTSC, "00:00:00;00")))).iter("sequence")
    assert (sequence.attrib["tcStart"], sequence.attrib["tcFormat"]) == ("107999892/30000s", "DF")
    (sequence,) = valid(fcpxml(cut(Count.of(NTSC, "00:00:00:00")))).iter("sequence")
    assert (sequence.attrib["tcStart"], sequence.attrib["tcFormat"]) == ("108108000/30000s", "NDF")


@pytest.mark.parametrize("rate", NO_TIMECODE, ids=str)
def test_a_rate_without_timecode_counts_frames(rate: Fraction) -> None:
    count = Count.of(rate, "01:00:00:00")
    assert (count.start, count.exact) == (0, False)
    text = markers_csv("S010", count, [Marker(31, "Ann", "Here", 4)])
    assert f"rate {rate} frames/s, frame numbers" in text.splitlines()[0]
    (row,) = csv.DictReader(io.StringIO(text.partition("\r\n")[2]))
    assert (row["in"], row["out"], row["duration"]) == ("31", "35", "4")
    assert f"* RATE {rate} HAS NO TIMECODE." in cut_edl("S010", count, "", 50, "a.mov")
    root = valid(fcpxml(cut(count, Marker(31, "Ann", "Here", 4))))
    assert frames_of(next(root.iter("marker")).attrib["start"], rate) == 31
    assert frames_of(next(root.iter("format")).attrib["frameDuration"], rate) == 1
    read = opentimelineio.adapters.read_from_string(otio(cut(count)), "otio_json")
    assert read.duration() == opentimelineio.opentime.RationalTime(50, float(rate))


def test_a_label_that_the_rate_does_not_have_counts_as_none() -> None:
    assert Count.of(Fraction(25), "00:00:00:29") == Count(Fraction(25), 0, False)
    assert Count.of(NTSC, "00:01:00;00") == Count.of(NTSC) == Count(NTSC, 0, True)


def test_otio_is_read_by_its_own_library() -> None:
    said = (
        Marker(3, "Ann", "Too dark", 2, "Green", True, ("Bob: done",)),
        Marker(0, "segment 1", "from 0", 50, "Blue"),
    )
    read = opentimelineio.adapters.read_from_string(otio(cut(Count.of(NTSC, "01:00:00;00"), *said)), "otio_json")
    assert [track.kind for track in read.tracks] == ["Video", "Audio"]
    clip = next(iter(read.find_clips()))
    assert clip.media_reference.target_url == "S010%20v3.mov"
    assert clip.available_range() == clip.source_range
    told = [(one.name, one.color, one.comment, one.marked_range.start_time.value) for one in clip.markers]
    assert told == [("segment 1", "BLUE", "from 0", 107892), ("Ann", "GREEN", "Too dark\nBob: done", 107895)]
    assert clip.markers[1].marked_range.duration.value == 2
    assert read.metadata["wanimate"]["rate"] == "30000/1001"
    again = json.loads(opentimelineio.adapters.write_to_string(read, "otio_json"))
    assert again["tracks"]["children"][0]["children"][0]["OTIO_SCHEMA"] == "Clip.2"
    silent = opentimelineio.adapters.read_from_string(otio(cut(Count.of(NTSC), sound=None)), "otio_json")
    assert [track.kind for track in silent.tracks] == ["Video"]


def test_fcpxml_has_markers_within_the_clip() -> None:
    said = (
        Marker(3, 'Ann "A" <x>', "Too dark & cold\nnow\x0b", 2, "Red"),
        Marker(4, "Bo", "Done", 1, "Green", True),
        Marker(0, "segment 1", "0", 50, "Blue"),
    )
    root = valid(fcpxml(cut(Count.of(FAST, "00:00:59;58"), *said)))
    (clip,) = root.iter("asset-clip")
    told = [(one.get("value"), one.get("note"), one.get("completed")) for one in clip]
    assert told == [
        ("segment 1", "0", None), ('Ann "A" <x>', "Too dark & cold\nnow", "0"), ("Bo", "Done", "1"),
    ]  # fmt: skip
    first, length = frames_of(clip.attrib["start"], FAST), frames_of(clip.attrib["duration"], FAST)
    for marker in clip:
        assert first <= frames_of(marker.attrib["start"], FAST) < first + length
    assert (next(root.iter("media-rep"))).attrib["src"] == "./S010%20v3.mov"
    assert next(root.iter("format")).attrib["name"] == "FFVideoFormat1080p5994"
    ids = {one.attrib["id"] for one in root.iter() if "id" in one.attrib}
    assert {one.attrib[name] for one in root.iter() for name in ("ref", "format") if name in one.attrib} <= ids


def test_an_edl_has_one_event_for_the_file() -> None:
    lines = cut_edl("S010", Count.of(NTSC, "00:00:59;28"), "A001_C003_1122", 4, "S010.mov").splitlines()
    assert lines == [
        "TITLE: S010", "FCM: DROP FRAME", "",
        "001  A001C003 V     C        00:00:59;28 00:01:00;04 01:00:00;00 01:00:00;04",
        "* FROM CLIP NAME: S010.mov", "* REEL NAME: A001_C003_1122",
    ]  # fmt: skip
    assert "001  AX       V     C" in cut_edl("S010", Count.of(Fraction(25)), "", 4, "S010.mov")
