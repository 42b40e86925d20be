"""A hand-off is whole or not there, goes on where it was killed, and takes the place of nothing but its own."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import av
import numpy as np
import opentimelineio
import pytest
import torch
from PIL import Image
from results import COUNT, SIZE, clip_with_sound, result

from wanimate.approval.leaving import Leaving, Passed
from wanimate.config import OutputSettings
from wanimate.errors import Cancelled, InputError, OutputError
from wanimate.events import Notice, StageStarted
from wanimate.finish.lock import record_path
from wanimate.handoff.copies import review_size
from wanimate.handoff.folder import read_package, work_path
from wanimate.handoff.package import Package
from wanimate.handoff.run import Order, hand_off, handing_off
from wanimate.jobs.cancel import CancelToken
from wanimate.jobs.finish import finish
from wanimate.media.files import sha256
from wanimate.media.probe import probe
from wanimate.provenance import xmp
from wanimate.review.records import Comment, Shot, State, Version

ROLES = {
    "review", "mezzanine", "thumbnail", "otio", "fcpxml", "edl", "markers", "xmp", "approval", "checksums", "record",
}  # fmt: skip


class Asked:
    """A gate that passes what it is told to, and remembers what it was asked."""

    def __init__(self, refused_from: int = 99) -> None:
        self.checked, self.gone, self._refused_from = list[Leaving](), list[Leaving](), refused_from

    def check(self, result: Path, leaving: Leaving) -> Passed:
        assert record_path(result).is_file()
        self.checked.append(leaving)
        if len(self.checked) > self._refused_from:
            raise InputError("result", result.name, "its approval was taken back", "Ask again.")
        return Passed(("decision_1",), "2027-01-01T00:00:00.000Z")

    def left(self, leaving: Leaving, passed: Passed) -> None:
        assert not Path(leaving.place).exists()
        assert passed.decisions == ("decision_1",)
        self.gone.append(leaving)


def seen(path: Path) -> dict[str, Any]:
    """What an independent reader finds in a video."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        found = {
            "codec": context.name, "pixels": context.pix_fmt, "size": (context.width, context.height),
            "rate": stream.average_rate, "timecode": stream.metadata.get("timecode", ""), "profile": stream.profile,
            "tags": (context.color_primaries, context.color_trc, context.colorspace),
            "sound": [one.codec_context.name for one in container.streams.audio],
            "tmcd": [one.type for one in container.streams].count("data"), "form": container.format.name,
        }  # fmt: skip
        times = [round(frame.time * stream.average_rate) for frame in container.decode(video=0)]
        assert times == list(range(len(times)))
        assert float(stream.duration * stream.time_base * stream.average_rate) == pytest.approx(len(times), abs=0.05)
        return found | {"frames": len(times)}


def names(package: Package, role: str) -> list[str]:
    return [item.name for item in package.files if item.role == role]


def packets(path: Path) -> bytes:
    """The coded pictures of a video."""
    with av.open(str(path)) as container:
        return b"".join(bytes(packet) for packet in container.demux(video=0))


@pytest.fixture(scope="session")
def package(ready: Path, tmp_path_factory: pytest.TempPathFactory) -> Package:
    """What is made of `ready`. Tests only read it."""
    return hand_off(ready, tmp_path_factory.mktemp("out") / "S010_v003")


# What is in it


def test_every_file_is_there_with_its_hash(package: Package, ready: Path) -> None:
    assert {item.role for item in package.files} == ROLES
    assert {item.name for item in package.files} == set(os.listdir(package.folder))
    for item in package.files:
        path = package.path(item)
        assert (sha256(path), path.stat().st_size) == (item.sha256, item.size)
    assert package.output_sha256 == sha256(ready)
    assert read_package(package.folder) == package
    assert os.listdir(package.folder.parent) == [package.folder.name]


def test_hashes_are_checked_by_sha256sum(package: Package) -> None:
    (name,) = names(package, "checksums")
    listed = {line.partition("  ")[2] for line in (package.folder / name).read_text().splitlines()}
    assert listed == set(os.listdir(package.folder)) - {name}
    if shutil.which("sha256sum") is None:
        pytest.skip("no sha256sum on this machine")
    done = subprocess.run(["sha256sum", "-c", "--strict", name], cwd=package.folder, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_result_for_review_stays_as_it_is(package: Package, ready: Path) -> None:
    (name,) = names(package, "review")
    assert name == "S010_v003.review.mp4"
    assert sha256(package.folder / name) == sha256(ready)
    found = seen(package.folder / name)
    assert (found["codec"], found["pixels"], found["tags"]) == ("h264", "yuv420p", (1, 1, 1))
    assert (found["timecode"], found["tmcd"], found["sound"]) == ("01:00:00;00", 1, ["aac"])


def test_the_file_for_the_edit(package: Package) -> None:
    (name,) = names(package, "mezzanine")
    found = seen(package.folder / name)
    assert (found["codec"], found["profile"], found["pixels"]) == ("prores", "HQ", "yuv422p10le")
    assert (found["size"], found["rate"], found["frames"]) == (SIZE, Fraction(30000, 1001), COUNT)
    assert (found["timecode"], found["tmcd"], found["sound"]) == ("01:00:00;00", 1, ["aac"])
    assert found["tags"] == (1, 1, 1)


def test_thumbnails_are_those_frames(package: Package) -> None:
    pictures = {
        name.split(".")[1]: np.asarray(Image.open(package.folder / name)) for name in names(package, "thumbnail")
    }
    assert {picture.shape for picture in pictures.values()} == {(SIZE[1], SIZE[0], 3)}
    for part, index in (("first", 0), ("middle", 5), ("last", COUNT - 1)):
        assert abs(float(pictures[part][50:, 70:].mean()) - (30 + 8 * index)) < 3


def test_markers_tell_segments_and_warnings(package: Package) -> None:
    (name,) = names(package, "markers")
    text = (package.folder / name).read_text(encoding="utf-8-sig")
    assert "rate 30000/1001 frames/s, drop-frame timecode" in text.splitlines()[0]
    rows = [(row["name"], row["in"], row["colour"]) for row in csv.DictReader(io.StringIO(text.partition("\n")[2]))]
    assert rows == [
        ("segment 1", "01:00:00;00", "Blue"), ("warning", "01:00:00;00", "Yellow"), ("warning", "01:00:00;00", "Yellow"),
        ("segment 2", "01:00:00;09", "Blue"),
    ]  # fmt: skip
    assert "'=the hand was hidden" in text


def test_record_metadata_and_what_it_is(package: Package, ready: Path) -> None:
    assert (package.folder / "S010_v003.json").read_bytes() == record_path(ready).read_bytes()
    told = xmp.read((package.folder / "S010_v003.xmp").read_bytes())
    assert told.source_type is not None
    assert told.source_type.endswith("/trainedAlgorithmicMedia")
    made = json.loads((package.folder / "S010_v003.handoff.json").read_text())
    assert (made["output_sha256"], made["mode"], made["decisions"]) == (package.output_sha256, "animation", [])
    assert (made["rate"], made["start"], made["frames"]) == ("30000/1001", "01:00:00;00", COUNT)


# What is made of which result


def test_a_result_without_timecode_is_only_wrapped_anew(tmp_path: Path) -> None:
    sound = clip_with_sound(tmp_path / "sound.mp4")
    for name, start in (("a.mp4", None), ("b.mov", "10:00:00:00"), ("c.mkv", "10:00:00:00")):
        made = result(tmp_path / name, Fraction(24000, 1001), start, sound=sound)
        package = hand_off(made, tmp_path / f"out-{name}", mezzanine="none")
        review = package.folder / names(package, "review")[0]
        found = seen(review)
        assert (found["frames"], found["timecode"], found["tmcd"]) == (COUNT, start or "00:00:00:00", 1)
        assert found["rate"] == Fraction(24000, 1001)
        assert found["sound"] == ["aac"]
        if name != "c.mkv":  # Matroska's packets are framed otherwise
            assert packets(review) == packets(made)
        assert names(package, "mezzanine") == []


@pytest.mark.parametrize(
    ("codec", "ending", "wanted", "expected"),
    [
        ("prores-hq", "mov", "auto", "same"), ("dnxhr-hqx", "mov", "auto", "same"),
        ("prores-4444", "mkv", "auto", "wrapped"), ("prores-hq", "mov", "dnxhr-hqx", "dnxhd"),
        ("ffv1", "mkv", "prores-4444", "prores"),
    ],
)  # fmt: skip
def test_a_result_for_the_edit_stays_as_it_is(
    tmp_path: Path, codec: Any, ending: str, wanted: Any, expected: str
) -> None:
    rate = Fraction(30000, 1001)
    made = result(tmp_path / f"a.{ending}", rate, "01:00:00;00", codec=codec, size=(256, 128), count=3)
    package = hand_off(made, tmp_path / "out", mezzanine=wanted)
    mezzanine = package.folder / names(package, "mezzanine")[0]
    if expected == "wrapped":
        assert packets(mezzanine) == packets(made)
        assert (seen(mezzanine)["frames"], seen(mezzanine)["timecode"]) == (3, "01:00:00;00")
        assert seen(mezzanine)["rate"] == rate
    elif expected == "same":
        assert mezzanine.read_bytes() == made.read_bytes()
    else:
        assert seen(mezzanine)["codec"] == expected
    found = seen(package.folder / names(package, "review")[0])
    assert (found["codec"], found["pixels"], found["timecode"]) == ("h264", "yuv420p", "01:00:00;00")
    assert found["tags"] == (1, 1, 1)


def test_sound_that_a_mov_does_not_hold(tmp_path: Path) -> None:
    """ProRes with FLAC in an mkv: the sound is encoded anew, and so is the picture."""
    with av.open(str(tmp_path / "sound.mkv"), "w") as container:
        video: Any = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio: Any = container.add_stream("flac", rate=48000)
        audio.layout = "stereo"
        picture: Any = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
        picture.pts = 0
        container.mux([*video.encode(picture), *video.encode(None)])
        sound: Any = av.AudioFrame.from_ndarray(np.zeros((1, 2 * 24000), np.int16), format="s16", layout="stereo")
        sound.sample_rate, sound.pts = 48000, 0
        container.mux([*audio.encode(sound), *audio.encode(None)])
    clip = probe(tmp_path / "sound.mkv", None)
    made = result(tmp_path / "a.mkv", codec="prores-hq", sound=clip, count=3)
    assert [track.codec for track in probe(made, None).audio] == ["flac"]
    package = hand_off(made, tmp_path / "out")
    found = seen(package.folder / names(package, "mezzanine")[0])
    assert (found["codec"], found["sound"]) == ("prores", ["aac"])


def test_opacity_and_matte(tmp_path: Path) -> None:
    opacity = torch.zeros(COUNT, 1, SIZE[1], SIZE[0])
    opacity[:, :, 20:40, 30:60] = 1
    made = result(tmp_path / "a.mkv", opacity=opacity, codec="ffv1", alpha="straight", matte=tmp_path / "m.mkv")
    package = hand_off(made, tmp_path / "out")
    (mezzanine,) = names(package, "mezzanine")
    assert seen(package.folder / mezzanine)["pixels"] == "yuva444p12le"
    (matte,) = names(package, "matte")
    assert (package.folder / matte).read_bytes() == (tmp_path / "m.mkv").read_bytes()
    (tmp_path / "m.mkv").write_bytes(b"another")
    assert names(hand_off(made, tmp_path / "other"), "matte") == []


def test_a_folder_of_pictures(tmp_path: Path) -> None:
    opacity = torch.ones(COUNT, 1, SIZE[1], SIZE[0])
    made = result(
        tmp_path / "frames", Fraction(24), "01:00:00:00", opacity=opacity, codec="png", matte=tmp_path / "matte"
    )
    package = hand_off(made, tmp_path / "out")
    for role in ("review", "mezzanine", "matte"):
        found = seen(package.folder / names(package, role)[0])
        assert (found["frames"], found["rate"], found["timecode"]) == (COUNT, 24, "01:00:00:00")
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(made.iterdir())))
    assert package.output_sha256 == digest.hexdigest()


def test_the_best_master_is_taken(tmp_path: Path) -> None:
    """A file that was only encoded anew from a lossless master: the edit gets the master's frames."""
    master = result(tmp_path / "master.mkv", codec="ffv1")
    for name, more, best in (("a.mp4", {}, "master.mkv"), ("b.mp4", {"watermark": True}, "b.mp4")):
        list(finish(master, tmp_path / name, OutputSettings(crf=40, **more), None, "cpu"))
        found = open_best(tmp_path / name)
        assert found == best
    (tmp_path / "master.mkv").write_bytes(b"another")
    assert open_best(tmp_path / "a.mp4") == "a.mp4"


def open_best(path: Path) -> str:
    from wanimate.handoff.source import open_source

    return open_source(path).best.path.name


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1280, 720), (1280, 720)), ((3840, 2160), (1920, 1080)), ((2160, 3840), (1080, 1920)),
        ((97, 65), (98, 66)), ((2001, 1201), (1800, 1080)), ((1920, 1080), (1920, 1080)), ((4096, 2160), (1920, 1012)),
        ((4000, 4000), (1080, 1080)),
    ],
)  # fmt: skip
def test_a_review_copy_is_1080p_at_most(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert review_size(*size) == expected


def test_an_odd_result_is_4_2_0_for_review(tmp_path: Path) -> None:
    made = result(tmp_path / "a.mp4", size=(97, 65), count=3)
    package = hand_off(made, tmp_path / "out")
    found = seen(package.folder / names(package, "review")[0])
    assert (found["size"], found["pixels"]) == ((98, 66), "yuv420p")
    assert seen(package.folder / names(package, "mezzanine")[0])["size"] == (97, 65)
    with pytest.raises(InputError, match="even width"):
        hand_off(made, tmp_path / "other", mezzanine="prores-hq")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("rate", [Fraction(15), Fraction(16), Fraction(25, 2)], ids=str)
def test_a_rate_without_timecode(tmp_path: Path, rate: Fraction) -> None:
    made = result(tmp_path / "a.mp4", rate)
    events = handing_off(made, Order(tmp_path / "out"))
    notices = [event.message for event in events if isinstance(event, Notice)]
    assert any(f"no projects of {rate} frames a second" in text for text in notices)
    found = seen(tmp_path / "out" / "a.review.mp4")
    assert (found["rate"], found["timecode"], found["tmcd"]) == (rate, "", 0)
    assert json.loads((tmp_path / "out" / "a.handoff.json").read_text())["start"] is None


def test_markers_follow_a_slate_and_another_rate(tmp_path: Path) -> None:
    """Segments are those of the master's job, whose frames come behind the slate, twice as many."""
    master = result(tmp_path / "master.mkv", start="01:00:00:00", codec="ffv1")
    settings = OutputSettings(slate=True, fps_out=Fraction(50), interpolate="hold")
    list(finish(master, tmp_path / "a.mp4", settings, None, "cpu"))
    package = hand_off(tmp_path / "a.mp4", tmp_path / "out", mezzanine="none")
    rows = list(csv.DictReader((package.folder / "a.markers.csv").read_text("utf-8-sig").splitlines()[1:]))
    assert [(row["name"], row["in"], row["out"]) for row in rows] == [
        ("segment 1", "01:00:00:00", "01:00:00:18"), ("segment 2", "01:00:00:18", "01:00:00:24"),
    ]  # fmt: skip
    assert seen(package.folder / "a.review.mp4")["timecode"] == "00:59:59:49"
    first = np.asarray(Image.open(package.folder / "a.first.jpg"))
    assert abs(float(first[50:, 70:].mean()) - 30) < 3  # the picture, not the slate


def test_a_file_that_is_swapped_meanwhile_does_not_leave(tmp_path: Path) -> None:
    """Nor does a copy that was made of it, when the result is there again."""
    made, other = result(tmp_path / "a.mp4", count=3), result(tmp_path / "b.mp4", count=3, crf=50)
    whole = hand_off(made, tmp_path / "whole")
    before = made.read_bytes()
    events = handing_off(made, Order(tmp_path / "out"))
    for event in events:
        if isinstance(event, StageStarted):
            shutil.copy(other, made)
            break
    with pytest.raises(InputError, match="has changed while it was handed off"):
        list(events)
    assert not (tmp_path / "out").exists()
    made.write_bytes(before)
    assert hand_off(made, tmp_path / "out").files == whole.files


# Names


def test_names_are_not_only_ascii(ready: Path, tmp_path: Path) -> None:
    package = hand_off(ready, tmp_path / "größe – 1", name="Szene 1 – größe\n#2", mezzanine="none")
    assert names(package, "review") == ["Szene 1 – größe_#2.review.mp4"]
    assert read_package(package.folder) == package
    read = opentimelineio.adapters.read_from_file(str(package.path(next(package.of("otio")))))
    url = next(iter(read.find_clips())).media_reference.target_url
    assert unquote(url) == "Szene 1 – größe_#2.review.mp4"
    assert url.isascii()
    if shutil.which("sha256sum"):
        (sums,) = names(package, "checksums")
        assert subprocess.run(["sha256sum", "-c", "--quiet", sums], cwd=package.folder).returncode == 0


def test_names_are_filled_in(ready: Path, tmp_path: Path) -> None:
    record = {"version": 7, "output": {"shot": "S/0:1", "take": 2, "codec": "h264"}}
    made = result(tmp_path / "a.mp4", count=3, record=record)
    package = hand_off(made, tmp_path / "{shot}" / "{shot}_{take}_v{version:03}", name="{shot}_v{version:03}")
    assert package.folder == tmp_path / "S_0_1" / "S_0_1_2_v007"
    assert names(package, "review") == ["S_0_1_v007.review.mp4"]
    with pytest.raises(InputError, match=r"the name has \{version\}"):
        hand_off(ready, tmp_path / "{version}")
    for name in ("", "..", " ", "{shot}{take}{version}"):
        with pytest.raises(InputError):
            hand_off(ready, tmp_path / "never", name=name)
    with pytest.raises(InputError, match="it is no folder"):
        hand_off(ready, "elsewhere:project/folder")


# Whose folder it is


def test_its_own_folder_is_replaced(ready: Path, tmp_path: Path) -> None:
    place = tmp_path / "out"
    place.mkdir()  # an empty folder is taken
    first = hand_off(ready, place, mezzanine="none")
    with_edit = hand_off(ready, place)
    assert names(first, "mezzanine") == []
    assert names(with_edit, "mezzanine") == ["S010_v003.mov"]
    assert read_package(place) == with_edit
    assert os.listdir(tmp_path) == ["out"]


def test_the_package_of_another_result_stays(ready: Path, package: Package, tmp_path: Path) -> None:
    place = Path(shutil.copytree(package.folder, tmp_path / "out"))
    other = result(tmp_path / "a.mp4", count=3)
    with pytest.raises(OutputError, match="it is the package of another result"):
        hand_off(other, place)
    assert read_package(place) is not None


SPOILED: dict[str, Callable[[Path], object]] = {
    "a file more": lambda place: (place / "mine.txt").write_text("mine"),
    "a folder more": lambda place: (place / "mine").mkdir(),
    "a changed file": lambda place: (place / "S010_v003.mov").write_bytes(b"graded"),
    "a file less": lambda place: (place / "S010_v003.edl").unlink(),
    "no hashes": lambda place: (place / "S010_v003.sha256").unlink(),
    "no proof": lambda place: (place / "S010_v003.handoff.json").unlink(),
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
def test_a_folder_that_is_not_proved_stays(
    ready: Path, package: Package, tmp_path: Path, spoil: Callable[[Path], object]
) -> None:
    place = Path(shutil.copytree(package.folder, tmp_path / "out"))
    assert read_package(place) is not None
    spoil(place)
    before = {path.name: path.stat().st_mtime_ns for path in place.iterdir()}
    with pytest.raises(OutputError, match="nothing proves that they are a package"):
        hand_off(ready, place)
    assert {path.name: path.stat().st_mtime_ns for path in place.iterdir()} == before
    assert os.listdir(tmp_path) == ["out"]


def test_other_things_of_its_name_stay(ready: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("file", "link"):
        with pytest.raises(OutputError, match="the name is taken"):
            hand_off(ready, tmp_path / name)
    foreign = work_path(tmp_path / "new")
    foreign.mkdir()
    (foreign / "mine").write_text("mine")
    with pytest.raises(OutputError, match="no folder of this program"):
        hand_off(ready, tmp_path / "new")
    assert (foreign / "mine").read_text() == "mine"
    with pytest.raises(OutputError, match="is an input of the job"):
        hand_off(ready, ready.parent)


def test_the_same_again_changes_nothing(ready: Path, tmp_path: Path) -> None:
    first = hand_off(ready, tmp_path / "out")
    states = {path.name: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    events = list(handing_off(ready, Order(tmp_path / "out")))
    assert [event.message for event in events if isinstance(event, Notice)] == [
        "this package is there already, with the same files"
    ]
    assert not any(isinstance(event, StageStarted) for event in events)
    assert {path.name: path.stat().st_mtime_ns for path in first.folder.iterdir()} == states
    assert os.listdir(tmp_path) == ["out"]


# The gate


def test_the_gate_is_asked_before_and_told_before_the_name_is_given(ready: Path, tmp_path: Path) -> None:
    gate = Asked()
    package = hand_off(ready, tmp_path / "out", regions=["EU"], gate=gate)
    assert {(one.output_sha256, one.way, one.place, one.regions) for one in gate.checked} == {
        (package.output_sha256, "handoff", str(tmp_path / "out"), ("EU",))
    }
    (gone,) = gate.gone
    shown = ("review", "mezzanine", "thumbnail")
    assert set(gone.derived) == {(item.name, item.sha256) for item in package.of(*shown)}
    made = json.loads((package.folder / "S010_v003.handoff.json").read_text())
    assert (made["decisions"], made["expires"]) == (["decision_1"], "2027-01-01T00:00:00.000Z")


@pytest.mark.parametrize("passes", [0, 1], ids=["before", "taken back meanwhile"])
def test_what_may_not_leave_leaves_nothing(ready: Path, tmp_path: Path, passes: int) -> None:
    gate = Asked(passes)
    with pytest.raises(InputError, match="taken back"):
        hand_off(ready, tmp_path / "below" / "out", gate=gate)
    assert (os.listdir(tmp_path), gate.gone) == ([], [])


def test_replacements_are_held_without_a_gate(tmp_path: Path) -> None:
    made = result(tmp_path / "a.mkv", mode="replacement", codec="ffv1", count=3)
    with pytest.raises(InputError, match="it is a replacement, and no approval of this very file is shown"):
        hand_off(made, tmp_path / "out")
    list(finish(made, tmp_path / "b.mp4", OutputSettings(), None, "cpu"))
    with pytest.raises(InputError, match="it is a replacement"):
        hand_off(tmp_path / "b.mp4", tmp_path / "out")
    made.rename(tmp_path / "renamed.mkv")
    with pytest.raises(InputError, match="no record tells by which mode"):
        hand_off(tmp_path / "b.mp4", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    package = hand_off(tmp_path / "b.mp4", tmp_path / "out", gate=Asked())
    assert package.folder.is_dir()


def test_a_result_is_what_its_record_tells_of(ready: Path, tmp_path: Path) -> None:
    copy = shutil.copy(ready, tmp_path / "a.mp4")
    with pytest.raises(InputError, match=r"a\.json is not beside it"):
        hand_off(copy, tmp_path / "out")
    shutil.copy(record_path(ready), tmp_path / "a.json")
    with open(copy, "ab") as file:
        file.write(b"\0")
    with pytest.raises(InputError, match="it is not the file that its record tells of"):
        hand_off(copy, tmp_path / "out")
    with pytest.raises(InputError, match="there is no such file"):
        hand_off(tmp_path / "none.mp4", tmp_path / "out")


# Comments of a review


def test_comments_are_markers(ready: Path, tmp_path: Path) -> None:
    version = Version(
        job="j",
        number=3,
        name="S010",
        state=State.NEEDS_REVIEW,
        added=1,
        mode="animation",
        frames=COUNT,
        rate="30000/1001",
    )
    said = Comment(id="c", job="j", author="Ann", role="owner", at=1, text="Too dark", frame=5, resolved=2)
    late = said.model_copy(update={"id": "d", "frame": 10**6, "text": "Behind the end", "resolved": None})
    shot = Shot(
        id="shot_1", owner="ann", name="Scene 12", state=State.NEEDS_REVIEW, created=1, changed=2, versions=(version,),
        comments=(said, late), decisions=(), intact=True,
    )  # fmt: skip
    package = hand_off(ready, tmp_path / "{shot}_v{version}", review=(shot, version), mezzanine="none")
    assert package.folder.name == "Scene_12_v3"
    text = (package.folder / "Scene_12_v003.markers.edl").read_text()
    assert "01:00:00;05 01:00:00;06 01:00:00;05 01:00:00;06\n |C:ResolveColorGreen |M:Ann: Too dark |D:1" in text
    assert "01:00:00;11 01:00:00;12 01:00:00;11 01:00:00;12\n |C:ResolveColorRed |M:Ann: Behind the end |D:1" in text
    again = hand_off(
        ready, package.folder, mezzanine="none", review=(shot.model_copy(update={"comments": ()}), version)
    )
    assert "Ann" not in (again.folder / "Scene_12_v003.markers.edl").read_text()


# Stopped


def test_a_stopped_hand_off_goes_on(ready: Path, tmp_path: Path) -> None:
    token = CancelToken()
    events = handing_off(ready, Order(tmp_path / "out"), cancel=token)
    for event in events:
        if isinstance(event, StageStarted):
            break
    token.cancel()
    with pytest.raises(Cancelled):
        next(events)
    assert not (tmp_path / "out").exists()
    kept = work_path(tmp_path / "out") / "files" / "S010_v003.review.mp4"
    before = kept.stat().st_ino
    package = hand_off(ready, tmp_path / "out")
    assert (package.folder / "S010_v003.review.mp4").stat().st_ino == before
    assert os.listdir(tmp_path) == ["out"]


def test_what_was_damaged_meanwhile_is_made_again(ready: Path, tmp_path: Path) -> None:
    whole = hand_off(ready, tmp_path / "whole")
    events = handing_off(ready, Order(tmp_path / "out"))
    for event in events:
        if isinstance(event, StageStarted):
            break
    events.close()
    files = work_path(tmp_path / "out") / "files"
    (files / "S010_v003.review.mp4").write_bytes(b"damaged")
    (files / "strange").write_bytes(b"no file of the package")
    package = hand_off(ready, tmp_path / "out")
    assert package.files == whole.files


KILLED = textwrap.dedent("""
    import os, signal, sys
    from pathlib import Path
    import torch
    torch.set_num_threads(1)
    from wanimate.handoff import folder
    from wanimate.handoff.run import Order, hand_off

    result, out, moments = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])

    def killing(real, left):
        def call(*args, **more):
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **more)
        return call

    for moment in range(moments):
        pid = os.fork()
        if pid == 0:
            left = [moment]
            os.replace, os.rename = killing(os.replace, left), killing(os.rename, left)
            hand_off(result, out)
            os._exit(0)
        print(os.waitpid(pid, 0)[1], out.exists(), flush=True)
""")


@pytest.mark.slow
def test_killed_at_any_moment_the_same_command_goes_on(ready: Path, package: Package, tmp_path: Path) -> None:
    """SIGKILL at the first rename of a hand-off, then at the second of the next in the same place, until one comes through."""
    line = [sys.executable, "-c", KILLED, str(ready), str(tmp_path / "out"), "36"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    ends = [line.split() for line in done.stdout.splitlines()]
    assert [end for i, end in enumerate(ends) if end not in ends[:i]] == [["9", "False"], ["9", "True"], ["0", "True"]]
    made = read_package(tmp_path / "out")
    assert made is not None
    assert made.files == package.files
    assert [name for name in os.listdir(tmp_path) if not name.endswith(".lock")] == ["out"]
