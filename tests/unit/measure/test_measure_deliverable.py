"""What `check` finds is what is in the file: against files of known content, and against PyAV's own reading."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from wanimate.cli.main import app
from wanimate.config import OutputSettings
from wanimate.errors import InputError
from wanimate.finish.encode import Carried, OutputWriter
from wanimate.measure.deliverable import Deliverable, examine
from wanimate.measure.loudness import loudness_of
from wanimate.measure.presets import RULES, held

RATE = Fraction(24000, 1001)
SIZE = (192, 128)


def moving(count: int, stills: tuple[int, ...] = (), blacks: tuple[int, ...] = ()) -> torch.Tensor:
    """Frames of a slope that moves; `stills` repeat the one before."""
    slope = torch.linspace(0.2, 0.8, SIZE[0]).expand(3, SIZE[1], SIZE[0])
    frames: list[torch.Tensor] = []
    for i in range(count):
        frames.append(frames[-1] if i in stills else torch.zeros_like(slope) if i in blacks else slope.roll(16 * i, 2))
    return torch.stack(frames)


def result(path: Path, frames: torch.Tensor, opacity: torch.Tensor | None = None, **settings: Any) -> Path:
    start = settings.pop("start", 86400)
    with OutputWriter(path, RATE, *SIZE, OutputSettings(**settings), carried=Carried(start, reel="A001")) as writer:
        writer.write(frames, opacity)
    return path


def tone(path: Path, level: float, seconds: float = 4, rate: int = 48000, count: int = 96) -> Path:
    """A video with a sine of 997 Hz, whose peak is `level` dBFS, in both channels."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=24)
        stream.width, stream.height = SIZE
        sound = out.add_stream("pcm_s16le", rate=rate)
        sound.layout = "stereo"
        for _ in range(count):
            out.mux(
                stream.encode(av.VideoFrame.from_ndarray(np.full((SIZE[1], SIZE[0], 3), 90, np.uint8), format="rgb24"))
            )
        out.mux(stream.encode(None))
        at = np.arange(int(seconds * rate)) / rate
        wave = np.round(32767 * 10 ** (level / 20) * np.sin(2 * math.pi * 997 * at)).astype(np.int16)
        for start in range(0, len(wave), 4800):
            part = np.repeat(wave[None, start : start + 4800], 2, axis=1)
            frame = av.AudioFrame.from_ndarray(part, format="s16", layout="stereo")
            frame.sample_rate, frame.pts = rate, start
            out.mux(sound.encode(frame))
        out.mux(sound.encode(None))
    return path


@pytest.mark.parametrize("level", [-23.0, -33.0])
@pytest.mark.parametrize("rate", [48000, 44100])
def test_loudness_of_known_tones(tmp_path: Path, level: float, rate: int) -> None:
    """EBU Tech 3341, tests 1 and 2: a stereo sine of 1 kHz whose peak is -23 dBFS has -23 LUFS."""
    found = loudness_of(tone(tmp_path / "a.mov", level, rate=rate), "file")
    assert found is not None
    assert found.integrated == pytest.approx(level, abs=0.1)
    assert found.range == pytest.approx(0, abs=0.1)
    assert found.true_peak == pytest.approx(level, abs=0.2)


def test_silence_has_no_loudness(tmp_path: Path) -> None:
    found = loudness_of(tone(tmp_path / "a.mov", -200), "file")
    assert found is not None
    assert (found.integrated, found.true_peak) == (None, None)


@pytest.mark.parametrize(("name", "codec", "depth"), [
    ("a.mp4", "h264", 8), ("a.mov", "h265", 10), ("a.mkv", "av1", 10), ("a.mov", "prores-hq", 10), ("a.mkv", "ffv1", 16),
])  # fmt: skip
def test_findings_are_those_of_an_independent_reading(tmp_path: Path, name: str, codec: str, depth: int) -> None:
    """FFmpeg's, which ffprobe shows, by its own functions."""
    path = result(tmp_path / name, moving(30), codec=codec, depth=depth)
    found = examine(path)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        context = stream.codec_context
        assert (found.codec, found.profile, found.pixels) == (
            context.codec.canonical_name,
            context.profile,
            frames[0].format.name,
        )
        assert (found.width, found.height, found.picture.frames) == (*SIZE, len(frames))
        assert found.rate == stream.average_rate == RATE
        assert (found.primaries, found.transfer, found.matrix) == (
            frames[0].color_primaries, frames[0].color_trc, frames[0].colorspace,
        )  # fmt: skip
        wanted = {"h264": context.level / 10, "h265": context.level / 30}.get(codec)
        assert found.level == (wanted if wanted is None or wanted > 0 else None)
    assert found.depth == depth
    assert found.timecode == "01:00:00:00"
    assert found.reel == (None if name == "a.mp4" else "A001"), "mp4 has no place for it"
    assert found.jitter <= 0.0006
    assert found.seconds == pytest.approx(30 / RATE, abs=0.01)
    assert found.streamable is (True if name.endswith(("mp4", "mov")) else None)
    assert all(verdict.passed for verdict in held(found, "any"))


def test_black_and_frozen_frames(tmp_path: Path) -> None:
    path = result(tmp_path / "a.mkv", moving(20, stills=(5, 6, 7), blacks=(12,)), codec="ffv1")
    found = examine(path).picture
    assert (found.frames, found.black, found.frozen) == (20, [(12, 13)], [(5, 8)])


def test_levels_outside_of_the_range(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w") as out:
        stream = out.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.color_range = 1
        planes = np.full((72, 64), 128, np.uint8)
        planes[:12] = 250  # a quarter of the luma
        out.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        out.mux(stream.encode(None))
    assert examine(tmp_path / "a.mkv").picture.excursions == pytest.approx(0.25)


def test_alpha_and_whether_it_is_multiplied(tmp_path: Path) -> None:
    opacity = torch.linspace(0, 0.5, SIZE[0]).expand(4, 1, SIZE[1], SIZE[0])
    straight, multiplied = (
        examine(result(tmp_path / f"{kind}.mkv", moving(4), opacity, codec="ffv1", depth=16, alpha=kind)).picture
        for kind in ("straight", "premultiplied")
    )
    for found in (straight, multiplied):
        assert (found.least_alpha, found.most_alpha) == (pytest.approx(0, abs=1e-3), pytest.approx(0.5, abs=1e-3))
    assert straight.unmultiplied is not None
    assert straight.unmultiplied > 0.3
    assert multiplied.unmultiplied == 0


@pytest.mark.parametrize(("preset", "settings", "broken"), [
    ("web", {"codec": "h264"}, set()), ("web", {"codec": "prores-hq"}, {"codec", "pixels"}),
    ("vfx", {"codec": "prores-hq"}, set()), ("vfx", {"codec": "h264"}, {"codec", "depth", "chroma"}),
    ("broadcast", {"codec": "prores-hq"}, {"size"}),
    ("broadcast", {"codec": "ffv1", "start": None}, {"codec", "size", "timecode"}),
])  # fmt: skip
def test_presets(tmp_path: Path, preset: Any, settings: dict[str, Any], broken: set[str]) -> None:
    name = "a.mkv" if settings["codec"] == "ffv1" else "a.mov"
    verdicts = held(examine(result(tmp_path / name, moving(30), **settings)), preset)
    assert {verdict.name for verdict in verdicts if not verdict.passed} == broken
    assert {rule.name for rule in RULES["any"]} <= {verdict.name for verdict in verdicts}


def test_variable_rates_lengths_and_loud_sound_are_found(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "v.mp4"), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height = SIZE
        for i in range(40):
            frame = av.VideoFrame.from_ndarray(np.full((SIZE[1], SIZE[0], 3), 4 * i, np.uint8), format="rgb24")
            frame.pts, frame.time_base = i + (i > 20), Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    assert not {v.name: v.passed for v in held(examine(tmp_path / "v.mp4"), "any")}["constant rate"]
    loud = {v.name: v.passed for v in held(examine(tone(tmp_path / "l.mov", -3, seconds=3.5)), "web")}
    assert (loud["loudness"], loud["true peak"], loud["sound length"]) == (False, True, False)


def test_the_command_says_and_returns_it(tmp_path: Path) -> None:
    path = result(tmp_path / "a.mp4", moving(12))
    for preset, code in (("web", 0), ("vfx", 1)):
        run = CliRunner().invoke(app, ["check", str(path), "--preset", preset, "--json"])
        assert run.exit_code == code
        said = json.loads(run.stdout.splitlines()[-1])
        assert said["passed"] is (code == 0)
        assert said["found"]["rate"] == "24000/1001"
        assert {rule["name"] for rule in said["rules"] if not rule["passed"]} == (
            {"codec", "depth", "chroma"} if code else set()
        )
    run = CliRunner().invoke(app, ["check", str(path)])
    assert run.exit_code == 0
    assert "12 frames at 23.976" in run.stdout.replace("\n", " ")
    (tmp_path / "b.mp4").write_bytes(path.read_bytes()[:-2000])
    assert CliRunner().invoke(app, ["check", str(tmp_path / "b.mp4")]).exit_code == 2
    assert CliRunner().invoke(app, ["check", str(path), "--preset", "tv"]).exit_code == 2


def test_a_file_without_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("no video")
    with pytest.raises(InputError, match="not a video file"):
        examine(tmp_path / "a.txt")
    assert isinstance(examine(result(tmp_path / "one.mp4", moving(1))), Deliverable), "a clip of one frame"
