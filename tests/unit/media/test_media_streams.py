"""The film is taken, not a thumbnail, a proxy or a short stream beside it; and the user is told where there was a choice."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import pytest
from make_clips import add_tone, make_clip, number_of, numbered

from wanimate.config import OutputSettings
from wanimate.finish.encode import OutputWriter
from wanimate.media.levels import from_levels
from wanimate.media.probe import probe
from wanimate.media.video import VideoFrames, iter_frames


@dataclass(frozen=True)
class Made:
    """A stream: frames numbered from `first` on."""

    size: tuple[int, int] = (320, 240)
    frames: int = 63
    codec: str = "libx264"
    pixels: str = "yuv420p"
    first: int = 0
    default: bool | None = None


def make_streams(path: Path, *streams: Made, sound: bool = False) -> Path:
    with av.open(str(path), "w") as out:
        added = []
        for made in streams:
            fast = {"preset": "ultrafast"} if made.codec == "libx264" else {}
            stream = out.add_stream(made.codec, rate=30, options=fast)
            stream.width, stream.height, stream.pix_fmt = *made.size, made.pixels
            if made.default is not None:
                stream.disposition = av.stream.Disposition.default if made.default else av.stream.Disposition(0)
            added.append(stream)
        tone = out.add_stream("aac", rate=48000) if sound else None
        if tone is not None:
            tone.layout = "mono"
        for i in range(max(made.frames for made in streams)):
            for made, stream in zip(streams, added, strict=True):
                if i < made.frames:
                    frame = numbered(made.first + i, *made.size)
                    picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format=made.pixels)
                    picture.pts, picture.time_base = i, Fraction(1, 30)
                    out.mux(stream.encode(picture))
        for stream in added:
            out.mux(stream.encode())
        if tone is not None:
            add_tone(out, tone, 2.1)
    return path


THUMBNAIL = Made((160, 160), 1, "mjpeg", "yuvj420p", 200)
FILM = Made(first=100)
CASES = {
    "thumbnail first": ("a.mov", (THUMBNAIL, FILM)),
    "thumbnail last": ("a.mov", (FILM, THUMBNAIL)),
    "a thumbnail marked as the default": ("a.mkv", (Made((640, 480), 1, "mjpeg", "yuvj420p", 200, True), FILM)),
    "proxy first": ("a.mkv", (Made((80, 60), default=True), FILM)),
    "short stream first": ("a.mkv", (Made(frames=20, size=(640, 480), default=True), FILM)),
    "the default one": ("a.mkv", (Made((480, 360), default=False), Made(first=100, default=True))),
    "the larger one": ("a.ts", (Made((240, 180)), FILM)),
    "the longer one": ("a.ts", (Made(frames=50), FILM)),
    "the first of two alike": ("a.mkv", (FILM, Made())),
}


@pytest.mark.parametrize("case", CASES)
def test_the_film_is_taken(tmp_path: Path, case: str) -> None:
    name, streams = CASES[case]
    path = make_streams(tmp_path / name, *streams)
    clip = probe(path)
    assert (clip.width, clip.height, clip.count) == (320, 240, 63)
    assert [number_of(frame) for frame in iter_frames(clip)] == list(range(100, 163))
    assert number_of(VideoFrames(path).take([7])[0]) == 107
    (told,) = [text for text in clip.notices if "video streams" in text]
    assert f"number {clip.stream} (320x240, 2.1 s) is read" in told


def test_one_stream_is_no_choice(tmp_path: Path) -> None:
    assert probe(make_clip(tmp_path / "a.mp4")).notices == ()


def test_sound_is_taken_beside_the_film(tmp_path: Path) -> None:
    """The result's sound is that of the file, also where the film is not its first stream."""
    path = make_streams(tmp_path / "a.mov", THUMBNAIL, FILM, sound=True)
    clip = probe(path)
    assert (clip.stream, len(clip.audio)) == (1, 1)
    with OutputWriter(tmp_path / "out.mp4", clip.fps, clip.width, clip.height, OutputSettings(), clip) as writer:
        for frame in iter_frames(clip):
            writer.write(from_levels(frame[None]))
    assert probe(tmp_path / "out.mp4").audio[0].duration == pytest.approx(2.0, abs=0.15)
