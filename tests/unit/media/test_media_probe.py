"""What a clip truly holds, whatever its container claims; and clear refusals of what is no usable clip."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from make_clips import make_clip, make_sound, number_of

from wanimate.config import ClipLimits
from wanimate.errors import InputError
from wanimate.finish.encode import OutputWriter
from wanimate.media.probe import probe
from wanimate.media.video import LosslessWriter, VideoFrames, iter_frames, plan_frames

VP9 = {"deadline": "realtime", "cpu-used": "8"}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", {"sound": "aac"}),
        ("a.mov", {}),
        ("a.mkv", {"sound": "aac"}),
        ("a.webm", {"codec": "libvpx-vp9", "options": VP9, "sound": "libopus"}),
        ("vp8.webm", {"codec": "libvpx", "options": VP9}),
        ("a.avi", {"codec": "mpeg4", "options": {}}),
        ("a.ts", {}),
        ("a.flv", {}),
        ("h265.mp4", {"codec": "libx265", "options": {"preset": "ultrafast", "x265-params": "log-level=none"}}),
        ("b-frames.mp4", {"options": {"preset": "medium", "bf": "3", "g": "20"}}),
        ("odd.mp4", {"size": (321, 243), "pixels": "yuv444p"}),
    ],
)
def test_constant_rate_clips_of_all_containers(tmp_path: Path, name: str, options: dict) -> None:
    clip = probe(make_clip(tmp_path / name, **options))
    assert (clip.width, clip.height) == options.get("size", (320, 240))
    assert clip.count == 60
    assert clip.times[0] == 0
    assert clip.times[-1] == pytest.approx(59 / 30, abs=0.001)
    assert clip.duration == pytest.approx(2.0, abs=0.002)
    assert clip.fps == 30
    assert not clip.variable_rate
    assert len(clip.audio) == (1 if "sound" in options else 0)
    assert [number_of(f) for f in iter_frames(clip)] == list(range(60))


def test_audio_tracks_are_described(tmp_path: Path) -> None:
    (track,) = probe(make_clip(tmp_path / "a.mp4", sound="aac")).audio
    assert (track.index, track.codec, track.sample_rate, track.channels) == (0, "aac", 48000, 1)
    assert track.duration == pytest.approx(2.0, abs=0.05)


def test_rational_rate_is_kept(tmp_path: Path) -> None:
    assert probe(make_clip(tmp_path / "a.mp4", fps=Fraction(30000, 1001))).fps == Fraction(30000, 1001)
    assert probe(make_clip(tmp_path / "a.mkv", fps=Fraction(24000, 1001))).fps == Fraction(24000, 1001)


def test_animated_gif_is_accepted(tmp_path: Path) -> None:
    clip = probe(make_clip(tmp_path / "a.gif", frames=30, fps=10, codec="gif", pixels="rgb8"))
    assert (clip.container, clip.count, clip.fps) == ("gif", 30, 10)
    assert clip.duration == pytest.approx(3.0)
    assert [number_of(f) for f in iter_frames(clip)] == list(range(30))


def test_variable_rate_with_a_pause(tmp_path: Path) -> None:
    times = [Fraction(i, 30) + (1 if i > 20 else 0) for i in range(40)]
    clip = probe(make_clip(tmp_path / "a.mp4", frames=40, times=times))
    assert clip.variable_rate
    assert clip.times == pytest.approx([float(t) for t in times], abs=1e-4)
    assert clip.fps == 30  # while frames come; the average would be 17
    assert clip.duration == pytest.approx(70 / 30, abs=0.01)
    shown = [number_of(f) for f in iter_frames(clip)]
    assert len(shown) == 70
    assert shown[:21] == list(range(21))
    assert set(shown[21:50]) == {20}
    assert shown[51:] == list(range(21, 40))


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotated_clips_come_out_upright(tmp_path: Path, rotation: int) -> None:
    clip = probe(make_clip(tmp_path / "a.mp4", size=(240, 320), rotation=rotation))
    assert (clip.width, clip.height, clip.orientation) == (240, 320, {90: 6, 180: 3, 270: 8}[rotation])
    frames = list(iter_frames(clip))
    assert frames[0].shape == (320, 240, 3)
    assert [number_of(f) for f in frames] == list(range(60))


def test_the_matrix_that_phones_write_turns_clockwise(tmp_path: Path) -> None:
    # Portrait recordings carry (a b c d) = (0 1 -1 0) in the track header: x' = -y, y' = x, a quarter turn clockwise.
    path = make_clip(tmp_path / "a.mp4", size=(320, 240))
    data = bytearray(path.read_bytes())
    header = data.index(b"tkhd") + 4
    matrix = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 240 << 16, 0, 1 << 30)
    data[header + 40 : header + 76] = matrix
    path.write_bytes(data)
    clip = probe(path)
    assert (clip.orientation, clip.width, clip.height) == (6, 240, 320)


def test_wrong_durations_in_the_header_are_not_believed(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4")
    data = bytearray(path.read_bytes())
    for box, offset in ((b"mvhd", 16), (b"mdhd", 16)):
        at = data.index(box) + 4 + offset
        data[at : at + 4] = struct.pack(">I", 77_000_000)
    path.write_bytes(data)
    assert probe(path).duration == pytest.approx(2.0, abs=0.05)


def test_missing_counts_are_counted(tmp_path: Path) -> None:
    # Fragmented files say nothing about their length in the header.
    clip = probe(make_clip(tmp_path / "a.mp4", muxer={"movflags": "frag_keyframe+empty_moov"}))
    assert clip.count == 60
    assert clip.duration == pytest.approx(2.0, abs=0.05)


def refusal(path: Path, limits: ClipLimits | None = ClipLimits()) -> str:
    with pytest.raises(InputError) as caught:
        probe(path, limits)
    assert caught.value.exit_code == 2
    assert caught.value.field == "video"
    assert caught.value.remedy
    return str(caught.value)


def test_missing_folder_and_empty(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "nothing.mp4")
    assert "not a file" in refusal(tmp_path)
    (tmp_path / "empty.mp4").touch()
    assert "is empty" in refusal(tmp_path / "empty.mp4")


@pytest.mark.parametrize(
    "text",
    [
        "just words, no video\n" * 50,
        "1\n00:00:00,000 --> 00:00:05,000\nsubtitles\n\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nother.ts\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '/etc/hostname'\n",
        "\x1b[31m red \x1b[0m\r\n" * 30,
    ],
    ids=["words", "subtitles", "playlist", "concat", "terminal"],
)
def test_text_named_mp4(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.mp4").write_text(text)
    assert "not a video file" in refusal(tmp_path / "a.mp4")


def test_cut_off_before_its_index(tmp_path: Path) -> None:
    data = make_clip(tmp_path / "whole.mp4").read_bytes()
    assert data.index(b"mdat") < data.index(b"moov")
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 2])
    assert "cut off: its index" in refusal(tmp_path / "cut.mp4")


@pytest.mark.parametrize("share", [0.5, 0.9, 0.999])
def test_cut_off_behind_its_index(tmp_path: Path, share: float) -> None:
    data = make_clip(tmp_path / "whole.mp4", muxer={"movflags": "+faststart"}).read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    (tmp_path / "cut.mp4").write_bytes(data[: int(len(data) * share)])
    assert "cut off" in refusal(tmp_path / "cut.mp4")


def test_no_frames(tmp_path: Path) -> None:
    data = make_clip(tmp_path / "a.mp4", muxer={"movflags": "frag_keyframe+empty_moov"}).read_bytes()
    (tmp_path / "none.mp4").write_bytes(data[: data.index(b"moof") - 4])  # header and tracks, no fragment
    assert "its video has 0 frames" in refusal(tmp_path / "none.mp4")


def test_sound_only(tmp_path: Path) -> None:
    assert "only sound" in refusal(make_sound(tmp_path / "a.mp4"))


def test_length_limits(tmp_path: Path) -> None:
    short = make_clip(tmp_path / "short.mp4", frames=15)
    long = make_clip(tmp_path / "long.mp4", frames=200, fps=5)
    assert "0.50 s long, shorter than 2 s" in refusal(short)
    message = refusal(long)
    assert "40.00 s long, longer than 30 s" in message
    assert message.endswith("Cut it, or allow it with max_seconds.")
    assert probe(long, ClipLimits(max_seconds=None)).duration == pytest.approx(40)
    assert probe(short, None).duration == pytest.approx(0.5)


def test_size_limits(tmp_path: Path) -> None:
    assert "short side must be over 200" in refusal(make_clip(tmp_path / "a.mp4", size=(300, 150)))
    assert "short side must be over 200" in refusal(make_clip(tmp_path / "b.mp4", size=(200, 300)))
    assert "between 1:3 and 3:1" in refusal(make_clip(tmp_path / "c.mp4", size=(880, 220)))
    assert "between 1:3 and 3:1" in refusal(make_clip(tmp_path / "d.mp4", size=(220, 880)))
    assert probe(make_clip(tmp_path / "e.mp4", size=(660, 220))).width == 660


def test_201_megabytes_are_refused_without_reading_them(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4")
    with open(path, "r+b") as file:
        file.truncate(201 * 2**20)  # sparse
    assert "201.0 MB, above the limit of 200 MB" in refusal(path)


def test_no_frame_decodes(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4")
    data = bytearray(path.read_bytes())
    start, end = data.index(b"mdat") + 4, data.index(b"moov") - 4
    data[start:end] = bytes(end - start)
    path.write_bytes(data)
    assert "decoded" in refusal(path)


def test_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_clip(tmp_path / "a.mp4")
    monkeypatch.setattr("os.access", lambda *_: False)  # tests may run as root, whom no mode stops
    assert "may not be read" in refusal(path)


@pytest.mark.parametrize(
    ("fps", "job"),
    [
        (Fraction(8), Fraction(8)),
        (Fraction(24000, 1001), Fraction(24000, 1001)),
        (Fraction(30000, 1001), Fraction(30000, 1001)),
        (Fraction(60000, 1001), Fraction(30000, 1001)),
        (Fraction(120000, 1001), Fraction(30000, 1001)),
        (Fraction(240), Fraction(30)),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_rates_stay_exact_to_the_result(tmp_path: Path, name: str, fps: Fraction, job: Fraction) -> None:
    """From the clip over the guides' rate to the result."""
    count = round(2.1 * fps)
    clip = probe(make_clip(tmp_path / name, count, fps, (224, 208)))
    assert (clip.fps, clip.variable_rate, clip.notices) == (fps, False, ())
    indices, rate = plan_frames(clip, None)
    assert rate == job
    assert indices == tuple(range(0, count, int(fps / job)))
    with LosslessWriter(tmp_path / "pose.mkv", rate, 64, 48) as guide:
        for _ in range(20):
            guide.write(np.zeros((48, 64, 3), np.uint8))
    assert VideoFrames(tmp_path / "pose.mkv").fps == job
    with OutputWriter(tmp_path / f"out-{name}", rate, 64, 48) as writer:
        writer.write(torch.zeros(20, 3, 48, 64))
    assert probe(tmp_path / f"out-{name}", None).fps == job
