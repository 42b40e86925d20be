"""A packet that is lost or damaged in the middle costs its frames, not the clip; what is missing is told, with its place."""

from __future__ import annotations

import random
from fractions import Fraction
from pathlib import Path

import av
import pytest
from make_clips import leave_out, make_clip, number_of

from wanimate.errors import InputError
from wanimate.media.decode import Damage, places
from wanimate.media.probe import probe
from wanimate.media.video import iter_indices
from wanimate.types import Clip

GROUPS = {"preset": "ultrafast", "g": "12", "crf": "20"}


def decoded(clip: Clip) -> tuple[list[int], str | None]:
    """Numbers of all frames, and what is told of damage."""
    damage = Damage()
    return [number_of(frame) for frame in iter_indices(clip, range(clip.count), damage=damage)], damage.told(clip)


def packets(path: Path) -> list[tuple[int, int]]:
    with av.open(str(path)) as container:
        return [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_lost_packets(tmp_path: Path, name: str) -> None:
    """Frames 30 and 31 are not in the file. Those from the next key frame on are whole, and keep their times."""
    whole = make_clip(tmp_path / "whole.mp4", frames=75, options=GROUPS)
    clip = probe(leave_out(whole, tmp_path / name, {30, 31}))
    assert (clip.count, clip.fps) == (73, 30)
    assert clip.duration == pytest.approx(2.5, abs=0.01)
    assert clip.times[29:31] == pytest.approx((29 / 30, 32 / 30), abs=0.002)
    (told,) = clip.notices
    assert told == "2 frames are missing in the clip (after 0.97 s); the frame before stays as long"
    numbers, damage = decoded(clip)
    assert damage is None
    assert numbers[:30] + numbers[34:] == [*range(30), *range(36, 75)]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
@pytest.mark.parametrize("rate", [24, Fraction(24000, 1001), 30, Fraction(30000, 1001)])
def test_many_lost_packets_are_told_and_leave_the_rate_exact(tmp_path: Path, name: str, rate: Fraction) -> None:
    """Every sixth frame is lost; Matroska's stamps are of whole milliseconds."""
    whole = make_clip(tmp_path / "whole.mp4", frames=72, fps=rate, options=GROUPS)
    clip = probe(leave_out(whole, tmp_path / name, set(range(5, 70, 6))))
    assert clip.fps == rate
    (told,) = clip.notices
    assert told.startswith("11 frames are missing in the clip (after 0.")


def test_a_packet_that_lost_its_head_leaves_the_other_times(tmp_path: Path) -> None:
    """In a transport stream the time stamp lies at the start of a packet. 20 small packets are lost there."""
    path = make_clip(tmp_path / "a.ts", frames=75, options={"preset": "medium", "bf": "3", "g": "12", "crf": "3"})
    data = path.read_bytes()
    with av.open(str(path)) as container:
        whole = {packet.pts for packet in container.demux(video=0) if packet.size}
    for at in range(len(data) // 188 // 3 * 188, len(data), 188):
        path.write_bytes(data[:at] + data[at + 8 * 188 :])
        with av.open(str(path)) as container:
            left = [packet.pts for packet in container.demux(video=0) if packet.size]
        if None in left:
            break
    clip = probe(path)
    assert clip.times[-1] == pytest.approx(74 / 30, abs=0.01)
    assert len(whole) - 8 < clip.count < len(whole)
    numbers, _ = decoded(clip)
    assert numbers[:15] == list(range(15))
    assert numbers[-12:] == list(range(63, 75))


@pytest.mark.parametrize("filling", ["zeros", "noise"])
def test_a_damaged_packet(tmp_path: Path, filling: str) -> None:
    path = make_clip(tmp_path / "a.mp4", frames=75, options=GROUPS)
    data, (position, size) = bytearray(path.read_bytes()), packets(path)[30]
    data[position : position + size] = bytes(size) if filling == "zeros" else random.Random(0).randbytes(size)
    path.write_bytes(data)
    clip = probe(path)
    assert (clip.count, clip.fps, clip.variable_rate, clip.notices) == (75, 30, False, ())
    numbers, told = decoded(clip)
    assert told == "1 frame is damaged or missing in the clip (at 1.00 s); the clip goes on"
    assert numbers[:30] + numbers[36:] == [*range(30), *range(36, 75)]
    assert numbers[30] == 29


def test_lost_packets_of_a_transport_stream(tmp_path: Path) -> None:
    """Its packets of 188 bytes carry parts of frames; one that is missing is no end."""
    path = make_clip(
        tmp_path / "a.ts", frames=75, size=(640, 480), options={"preset": "ultrafast", "g": "12", "crf": "3"}
    )
    data = path.read_bytes()
    at = len(data) // 188 // 2 * 188
    path.write_bytes(data[:at] + data[at + 5 * 188 :])
    clip = probe(path)
    assert clip.times[-1] == pytest.approx(74 / 30, abs=0.01)
    numbers, told = decoded(clip)
    assert clip.notices or told is not None
    assert numbers[-12:] == list(range(63, 75))


def test_a_hole_in_a_matroska_file(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mkv", frames=75, options=GROUPS, muxer={"cluster_time_limit": "300"})
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 1500] = bytes(1500)
    path.write_bytes(data)
    clip = probe(path)
    assert clip.duration == pytest.approx(2.5, abs=0.05)
    (told,) = clip.notices
    assert "frames are missing in the clip (after 1." in told
    numbers, _ = decoded(clip)
    assert numbers[-12:] == list(range(63, 75))


def test_a_matroska_file_that_ends_early_may_be_cut_off(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mkv", frames=150, options=GROUPS, muxer={"cluster_time_limit": "300"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    (told,) = probe(path).notices
    assert "though its file says 5.00 s: it may be cut off" in told


def test_a_pause_of_a_variable_rate_is_no_damage(tmp_path: Path) -> None:
    uneven = [Fraction(i, 30) + Fraction(i * 7 % 5, 300) for i in range(70)]
    assert probe(make_clip(tmp_path / "a.mp4", frames=70, times=uneven)).notices == ()


def test_a_frame_of_a_gif_that_stays_is_no_damage(tmp_path: Path) -> None:
    times = [Fraction(i, 10) + (i > 12) for i in range(25)]
    clip = probe(make_clip(tmp_path / "a.gif", frames=25, fps=10, codec="gif", pixels="rgb8", times=times))
    assert clip.variable_rate
    assert clip.notices == ()


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("b-frames.mp4", {"options": {"preset": "medium", "bf": "3", "g": "20"}}),
        ("open.mkv", {"options": {"preset": "medium", "bf": "3", "g": "12", "x264-params": "open-gop=1"}}),
        ("a.ts", {"options": {"preset": "medium", "bf": "2", "g": "12"}}),
        ("a.avi", {"codec": "mpeg4", "options": {"g": "12"}}),
        ("a.mpg", {"codec": "mpeg2video", "options": {"g": "12", "bf": "2"}}),
        ("a.webm", {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}}),
        ("a.gif", {"codec": "gif", "pixels": "rgb8", "fps": 10}),
    ],
)
def test_whole_clips_have_no_damage(tmp_path: Path, name: str, made: dict) -> None:
    clip = probe(make_clip(tmp_path / name, **made))
    assert clip.notices == ()
    assert decoded(clip) == (list(range(60)), None)


def test_cut_off_is_said_where_it_is(tmp_path: Path) -> None:
    data = make_clip(tmp_path / "a.mp4", muxer={"movflags": "+faststart"}).read_bytes()
    (tmp_path / "a.mp4").write_bytes(data[:-500])
    with pytest.raises(InputError, match="it is cut off"):
        probe(tmp_path / "a.mp4")


def test_places_are_few_and_in_seconds() -> None:
    times = [i / 10 for i in range(40)]
    assert places(times, [3, 4, 5, 9]) == "0.30-0.50 s, 0.90 s"
    assert places(times, range(0, 40, 2)).endswith("0.80 s and 15 more places")
