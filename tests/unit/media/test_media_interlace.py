"""Interlaced clips come out without combs, one frame for each; telecine is told."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from make_clips import make_clip

from wanimate.media.probe import probe
from wanimate.media.video import VideoFrames, iter_frames
from wanimate.types import Frame

SIZE = (320, 240)
SPEED = 6
"""Pixels from one field to the next."""
FILM = [picture for picture in range(64) for _ in range(2 + picture % 2)]
"""The picture of every field where film of 24 fills 30 frames/s."""


def field(picture: int) -> Frame:
    """A light bar on grey that stands further right in every picture."""
    frame = np.full((SIZE[1], SIZE[0], 3), 90, np.uint8)
    left = 20 + picture * SPEED % 240
    frame[:, left : left + 30] = 220
    return frame


def make_interlaced(path: Path, pictures: list[int], codec: str = "libx264", pixels: str = "yuv420p") -> Path:
    """`pictures` of the fields in order, the top one first."""
    options = (
        {"preset": "ultrafast", "crf": "8", "x264-params": "tff=1"}
        if codec == "libx264"
        else {"qscale": "2", "g": "12"}
    )
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=Fraction(30000, 1001), options=options)
        stream.width, stream.height, stream.pix_fmt = *SIZE, pixels
        if codec != "libx264":
            stream.codec_context.flags |= 0x40000 | 0x20000000  # interlaced transform and motion
        for i in range(len(pictures) // 2):
            frame = field(pictures[2 * i])
            frame[1::2] = field(pictures[2 * i + 1])[1::2]
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format=pixels)
            picture.pts, picture.time_base = i, Fraction(1001, 30000)
            out.mux(stream.encode(picture))
        out.mux(stream.encode())
    return path


def combs(frame: Frame) -> int:
    """The most by which the bar's left edge differs from one row to the next."""
    edges = np.argmax(frame[8:-8, :, 1] > 155, axis=1)
    return int(np.abs(np.diff(edges)).max())


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.mpg", "mpeg2video"), ("a.avi", "mpeg4")])
def test_combs_are_gone(tmp_path: Path, name: str, codec: str) -> None:
    path = make_interlaced(tmp_path / name, list(range(130)), codec)
    with av.open(str(path)) as container:
        assert combs(list(container.decode(video=0))[20].to_ndarray(format="rgb24")) == SPEED
    clip = probe(path)
    assert clip.notices == ("the clip is interlaced; its frames are deinterlaced",)
    assert (clip.count, clip.fps) == (65, Fraction(30000, 1001))
    frames = list(iter_frames(clip))
    assert len(frames) == 65
    assert max(combs(frame) for frame in frames[1:-1]) <= 1
    lefts = [int(np.argmax(frame[120, :, 1] > 155)) for frame in frames[1:18]]
    assert np.abs(np.diff(lefts) - 2 * SPEED).max() <= 1  # every frame keeps its time
    source = VideoFrames(path)
    source._cache_frames = 2
    for i in (40, 7, 64, 0):
        assert np.abs(source.take([i])[0].astype(int) - frames[i]).mean() < 1.5


def test_whole_frames_stay_as_they_are(tmp_path: Path) -> None:
    """A bar that stands still in both fields shows that frames not called interlaced are not touched."""
    path = make_clip(tmp_path / "a.mp4")
    assert probe(path).notices == ()


def test_telecine_is_told(tmp_path: Path) -> None:
    clip = probe(make_interlaced(tmp_path / "a.mp4", FILM[:140]))
    (told,) = clip.notices
    assert "telecine" in told
    assert max(combs(frame) for frame in list(iter_frames(clip))[1:-1]) <= 1


def test_telecine_by_time_stamps_is_told(tmp_path: Path) -> None:
    times = [Fraction(1001, 60000) * sum(2 + k % 2 for k in range(i)) for i in range(60)]
    clip = probe(make_clip(tmp_path / "a.mp4", times=times))
    assert clip.fps == Fraction(24000, 1001)
    (told,) = clip.notices
    assert "soft telecine" in told
    assert "23.976 frames/s" in told
