"""The sound of a stretch of a clip begins where its first frame does."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "media"))
from make_clips import numbered

from wanimate.config import OutputSettings
from wanimate.finish.encode import Carried, OutputWriter
from wanimate.media.levels import from_levels
from wanimate.media.probe import probe

RATE, FPS, SIZE = 48000, 25, (64, 48)
CLICKS = (0.5, 1.22, 2.0, 2.9)
"""Seconds of the clip at which there is a short loud noise; else there is a faint one."""
START, SECONDS = 1.12, 1.48
"""What is used: the frames from 28 on, so that neither falls on the beginning of a packet."""


def clicking(path: Path, codec: str, seconds: float = 3.4) -> Path:
    """A clip whose sound clicks."""
    noise = np.random.default_rng(1)
    wave = 0.001 * noise.standard_normal(round(seconds * RATE))
    for click in CLICKS:
        at = round(click * RATE)
        wave[at : at + 480] = 0.6 * np.sign(noise.standard_normal(480))
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=FPS, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        sound = out.add_stream(codec, rate=RATE)
        sound.layout = "mono"
        for i in range(round(seconds * FPS)):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(numbered(i, *SIZE), format="rgb24")))
        out.mux(stream.encode())
        size = sound.codec_context.frame_size or 1024
        kind = sound.codec_context.format.name
        for start in range(0, len(wave), size):
            part = wave[None, start : start + size].astype(np.float32)
            part = part if kind.startswith("flt") else (part * 32767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(part, format=kind, layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, start, Fraction(1, RATE)
            out.mux(sound.encode(frame))
        out.mux(sound.encode())
    return path


def clicks(path: Path) -> tuple[list[float], float, float]:
    """Seconds after the first picture at which it clicks, and at which the sound begins and ends."""
    with av.open(str(path)) as container:
        first = next(container.decode(video=0)).time
    level: list[tuple[float, float]] = []
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            samples = frame.to_ndarray().astype(np.float64)
            scale = 32768 if np.issubdtype(frame.to_ndarray().dtype, np.integer) else 1
            level += [(frame.time + i / frame.sample_rate - first, abs(s) / scale) for i, s in enumerate(samples[0])]
    loud = [at for at, s in level if s > 0.2]
    begun = [at for i, at in enumerate(loud) if i == 0 or at - loud[i - 1] > 0.1]
    return begun, level[0][0], level[-1][0]


@pytest.mark.parametrize(
    ("source", "codec", "out"),
    [
        ("in.mp4", "aac", "a.mp4"),
        ("in.mp4", "aac", "a.mov"),
        ("in.mp4", "aac", "a.mkv"),
        ("in.mov", "pcm_s16le", "a.mp4"),
        ("in.mov", "pcm_s16le", "a.mkv"),
        ("in.mov", "pcm_s16le", "a.mov"),
        ("in.mkv", "aac", "a.mp4"),
    ],
)
def test_it_is_heard_when_it_is_seen(tmp_path: Path, source: str, codec: str, out: str) -> None:
    clip = probe(clicking(tmp_path / source, codec), None)
    assert clip.times[28] == pytest.approx(START)
    settings = OutputSettings()
    with OutputWriter(
        tmp_path / out, Fraction(FPS), *SIZE, settings, clip, carried=Carried(audio_start=clip.times[28])
    ) as writer:
        writer.write(from_levels(np.stack([numbered(i, *SIZE) for i in range(28, 65)])))
    heard, begins, ends = clicks(tmp_path / out)
    assert heard == pytest.approx([1.22 - START, 2.0 - START], abs=0.002)
    assert begins == pytest.approx(0, abs=0.045)
    assert begins >= -0.0215
    assert ends == pytest.approx(SECONDS, abs=0.03)
