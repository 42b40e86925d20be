"""A master becomes what is delivered: size, rate, codec, sound, timecode, opacity; the master itself is never touched."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from wanimate.config import OutputSettings
from wanimate.errors import Cancelled, InputError, OutputError, setting
from wanimate.events import Finished, Notice, Stage, StageProgress
from wanimate.finish.encode import Carried, OutputWriter
from wanimate.finish.lock import OutputLock
from wanimate.jobs.cancel import CancelToken
from wanimate.jobs.delivery import Order, take_of
from wanimate.jobs.finish import finish
from wanimate.media import timecode
from wanimate.media.master import open_master
from wanimate.post.base import VideoSpec
from wanimate.post.stages import result_for, stages_of
from wanimate.types import Result

RATE, COUNT, SIZE = Fraction(16), 8, (64, 48)


def frames(count: int = COUNT, size: tuple[int, int] = SIZE) -> torch.Tensor:
    """[count, 3, H, W]; every frame is one grey with a square that moves."""
    width, height = size
    made = torch.zeros(count, 3, height, width)
    for i, frame in enumerate(made):
        frame += (20 + 10 * i) / 255
        frame[:, 10:20, 2 * i : 2 * i + 10] = 200 / 255
    return made


def write(
    path: Path, given: torch.Tensor, fps: Fraction = RATE, carried: Carried = Carried(),
    opacity: torch.Tensor | None = None, **settings: Any,
) -> Path:  # fmt: skip
    output = OutputSettings(**settings)
    with OutputWriter(path, fps, given.shape[3], given.shape[2], output, carried=carried) as writer:
        writer.write(given, opacity)
    return path


@pytest.fixture
def master(tmp_path: Path) -> Path:
    return write(tmp_path / "master.mkv", frames(), codec="ffv1")


def events_of(master: Path, out: Path, fps: Fraction | None = None, **settings: Any) -> list[Any]:
    return list(finish(master, out, OutputSettings(**settings), fps, "cpu"))


def finished(master: Path, out: Path, fps: Fraction | None = None, **settings: Any) -> Result:
    last = events_of(master, out, fps, **settings)[-1]
    assert isinstance(last, Finished)
    return last.result


def stored(path: Path) -> torch.Tensor:
    return torch.cat(list(open_master(path).with_opacity()))


def test_a_master_stays_what_it_is(master: Path, tmp_path: Path) -> None:
    before = hashlib.sha256(master.read_bytes()).hexdigest()
    result = finished(master, tmp_path / "out.mkv", codec="ffv1")
    assert (result.count, result.size, result.fps, result.seed) == (COUNT, SIZE, RATE, None)
    assert torch.equal(stored(result.out), stored(master))
    assert hashlib.sha256(master.read_bytes()).hexdigest() == before


def test_the_record_tells_master_and_result(master: Path, tmp_path: Path) -> None:
    result = finished(master, tmp_path / "out.mkv", codec="ffv1", fps_out=25, interpolate="hold", slate=True)
    made = json.loads((tmp_path / "out.json").read_text())
    assert made["mode"] == "finish"
    assert made["inputs"]["master"]["sha256"].endswith(hashlib.sha256(master.read_bytes()).hexdigest())
    assert made["delivered"] == {"frames": result.count + 1, "fps": "25", "size": list(SIZE)}
    assert made["output"]["fps_out"] == "25"
    assert made["seconds"]["finish"] > 0
    assert len(stored(result.out)) == result.count + 1


@pytest.mark.parametrize("fps", [Fraction(25), Fraction(24000, 1001), Fraction(60)])
def test_frames_of_the_master_are_the_same_bits_at_another_rate(master: Path, tmp_path: Path, fps: Fraction) -> None:
    result = finished(master, tmp_path / "out.mkv", codec="ffv1", fps_out=fps, interpolate="blend")
    made, given = stored(result.out), stored(master)
    assert result.fps == fps
    assert abs(result.count / fps - COUNT / RATE) <= 1 / (2 * fps)
    for i in range(result.count):
        place = i * RATE / fps
        if place.denominator == 1 and place < COUNT:
            assert torch.equal(made[i], given[int(place)]), f"frame {i} is frame {place} of the master"
    between = next(i for i in range(result.count) if (i * RATE / fps).denominator > 1)
    assert not any(torch.equal(made[between], frame) for frame in given)


def test_nothing_is_mixed_across_a_cut(tmp_path: Path) -> None:
    texture = torch.rand(2, 3, 12, 40, generator=torch.Generator().manual_seed(3)).repeat_interleave(8, 2)
    texture = texture.repeat_interleave(8, 3) * torch.tensor([[1.0, 0.2, 0.1], [0.1, 0.3, 1.0]]).view(2, 3, 1, 1)
    scenes = torch.stack([texture[i // 8, :, :, 4 * i : 4 * i + 160] for i in range(16)])
    master = write(tmp_path / "cut.mkv", scenes, codec="ffv1")
    result = finished(master, tmp_path / "out.mkv", codec="ffv1", fps_out=50, interpolate="blend")
    made = stored(result.out)
    red, blue = (made[:, channel].mean(dim=(1, 2)) for channel in (0, 2))
    share = red / (red + blue)
    assert share[0] > 0.8
    assert share[-1] < 0.2
    assert ((share > 0.8) | (share < 0.2)).all(), "no frame is of both scenes"


def test_a_master_is_enlarged_to_the_very_size(master: Path, tmp_path: Path) -> None:
    result = finished(master, tmp_path / "out", codec="png", depth=16, upscale="2x", upscale_detail=0.5)
    assert result.size == (128, 96)
    made = stored(result.out)
    assert made.shape == (COUNT, 3, 96, 128)
    assert torch.allclose(made[3, :, 80, 100], stored(master)[3, :, 40, 50], atol=4 / 255)


def test_opacity_is_enlarged_and_interpolated_with_its_frames(tmp_path: Path) -> None:
    opacity = torch.zeros(COUNT, 1, 48, 64)
    opacity[..., 16:48] = 1
    master = write(tmp_path / "m.mkv", frames(), opacity=opacity, codec="ffv1", alpha="straight")
    result = finished(
        master, tmp_path / "out.mkv", codec="ffv1", alpha="straight", upscale="2x", fps_out=32, interpolate="dis"
    )
    made = stored(result.out)
    assert made.shape == (2 * COUNT, 4, 96, 128)
    assert made[:, 3, :, 40:90].min() > 0.99
    assert made[:, 3, :, :25].max() < 0.01


def test_timecode_reel_and_sound_are_carried_over(tmp_path: Path) -> None:
    rate = Fraction(30000, 1001)
    start = timecode.parse("01:00:00;00", rate)
    master = write(tmp_path / "m.mov", frames(30, (64, 64)), rate, Carried(start, True, "A001"), codec="prores-hq")
    finished(master, tmp_path / "out.mov", codec="prores-hq", slate=True)
    with av.open(str(tmp_path / "out.mov")) as file:
        said = {key: text for stream in file.streams for key, text in stream.metadata.items()}
    assert said["timecode"] == "00:59:59;29"
    assert said["reel_name"] == "A001"


def test_sound_stays_as_long_as_it_was(tmp_path: Path) -> None:
    silent = write(tmp_path / "silent.mp4", frames(24), Fraction(24))
    loud = tmp_path / "loud.mp4"
    with av.open(str(silent)) as source, av.open(str(loud), "w") as file:
        video: Any = file.add_stream_from_template(source.streams.video[0])
        sound: Any = file.add_stream("aac", rate=48000, layout="mono")
        wave = (8000 * np.sin(np.arange(48000) / 20)).astype(np.int16)[None]
        tone: Any = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
        tone.sample_rate = 48000
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = video
                file.mux(packet)
        for packet in [*sound.encode(tone), *sound.encode(None)]:
            file.mux(packet)
    finished(loud, tmp_path / "out.mp4", fps_out=50, interpolate="hold")
    with av.open(str(tmp_path / "out.mp4")) as file:
        samples = sum(frame.samples for frame in file.decode(audio=0))
    assert abs(samples / 48000 - 1) < 0.05


def test_a_folder_takes_its_rate_from_its_record_or_from_the_caller(master: Path, tmp_path: Path) -> None:
    finished(master, tmp_path / "pictures", codec="png", start_number=1001)
    assert (tmp_path / "pictures" / "001001.png").is_file()
    assert finished(tmp_path / "pictures", tmp_path / "a.mp4").fps == RATE
    (tmp_path / "pictures.json").unlink()
    events = events_of(tmp_path / "pictures", tmp_path / "b.mp4")
    assert any(isinstance(event, Notice) and "24 a second" in event.message for event in events)
    assert finished(tmp_path / "pictures", tmp_path / "c.mp4", Fraction(30)).fps == 30


def test_one_frame_is_enough(tmp_path: Path) -> None:
    master = write(tmp_path / "one.mkv", frames(1), codec="ffv1")
    result = finished(master, tmp_path / "out.mkv", codec="ffv1", fps_out=48, interpolate="dis")
    assert result.count == 3
    assert all(torch.equal(frame, stored(master)[0]) for frame in stored(result.out))


def test_a_lossy_master_is_told(tmp_path: Path) -> None:
    master = write(tmp_path / "m.mp4", frames())
    told = [event.message for event in events_of(master, tmp_path / "o.mp4", upscale="2x") if isinstance(event, Notice)]
    assert any("lost detail" in text for text in told)
    assert "lost detail" in " ".join(json.loads((tmp_path / "o.json").read_text())["warnings"])


def test_progress_reaches_the_end_and_time_belongs_to_finishing(master: Path, tmp_path: Path) -> None:
    events = events_of(master, tmp_path / "o.mp4", fps_out=32, interpolate="hold")
    steps = [event for event in events if isinstance(event, StageProgress)]
    assert steps[-1].stage is Stage.FINISH
    assert (steps[-1].done, steps[-1].total) == (16, 16)
    assert events[-1].fraction == 1


def test_a_cancelled_job_leaves_nothing(master: Path, tmp_path: Path) -> None:
    token = CancelToken()

    def until_asked() -> Iterator[Any]:
        for event in finish(
            master, tmp_path / "o.mp4", OutputSettings(fps_out="32", interpolate="hold"), None, "cpu", token
        ):
            if isinstance(event, StageProgress) and event.done >= 3:
                token.cancel()
            yield event

    with pytest.raises(Cancelled):
        list(until_asked())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["master.mkv"]


def _refused(master: Path, out: Path, fps: Fraction | None = None, **settings: Any) -> InputError | OutputError:
    folder = out.parent
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises((InputError, OutputError)) as caught:
        events_of(master, out, fps, **settings)
    assert sorted(path.name for path in folder.iterdir()) == before, "nothing is written"
    return caught.value


def test_what_a_master_cannot_be_is_refused(master: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.mov"
    assert _refused(master, out, codec="prores-4444", alpha="straight").field == "output.alpha"
    assert _refused(master, tmp_path / "o.mp4", sheet=True).field == "output.sheet"
    assert _refused(master, tmp_path / "o.mp4", upscale="32x24").field == "output.upscale"
    assert _refused(master, master, codec="ffv1").field == "out"
    assert _refused(tmp_path / "none.mkv", tmp_path / "o.mp4").field == "master"
    empty = tmp_path / "empty"
    empty.mkdir()
    assert _refused(empty, tmp_path / "o.mp4").field == "master"
    assert _refused(master, out, codec="prores-hq", timecode="01:00:00:00").field == "output.timecode"


def test_hdr_masters_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "hdr.mp4"
    with av.open(str(path), "w") as file:
        stream: Any = file.add_stream("libx265", rate=24, options={"x265-params": "log-level=error"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p10le"
        context = stream.codec_context
        context.color_primaries, context.color_trc, context.colorspace, context.color_range = 9, 16, 9, 1
        for i in range(4):
            picture: Any = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 90, np.uint8), format="rgb24")
            picture = picture.reformat(format="yuv420p10le")
            picture.pts = i
            for packet in stream.encode(picture):
                file.mux(packet)
        for packet in stream.encode(None):
            file.mux(packet)
    assert "HDR" in _refused(path, tmp_path / "o.mp4", upscale="2x").rule


@pytest.mark.parametrize("spelled", ["0x", "huge", "1919x1080", "12", "17x", "1x1"])
def test_sizes_that_are_none_are_refused(spelled: str) -> None:
    with pytest.raises(InputError) as caught:
        OutputSettings(upscale=spelled)
    assert caught.value.field == "output.upscale"


def test_what_comes_out_is_known_before_anything_runs() -> None:
    spec = VideoSpec((1280, 720), Fraction(15), 75)
    settings = OutputSettings(upscale="1080p", fps_out=30, interpolate="hold")
    result = result_for(settings, spec)
    assert (result.size, result.fps, result.count) == ((1920, 1080), 30, 150)
    assert result_for(OutputSettings(), spec) == spec
    assert stages_of(OutputSettings(), torch.device("cpu")) == []


def test_timecode_of_a_few_frames_in_matroska_is_that_of_the_stated_rate(tmp_path: Path) -> None:
    """Stamps of whole milliseconds alone would give 1375/23 frames a second, which has no drop-frame."""
    rate = Fraction(60000, 1001)
    start = timecode.parse("01:00:59;28", rate)
    master = write(tmp_path / "m.mkv", frames(12), rate, Carried(start, True), codec="ffv1")
    finished(master, tmp_path / "out.mov", codec="prores-hq")
    assert open_master(tmp_path / "out.mov").timecode == "01:00:59;28"


def test_timecode_and_reel_of_openexr_are_carried_over(tmp_path: Path) -> None:
    pytest.importorskip("OpenEXR")
    carried = Carried(timecode.parse("01:00:00:05", Fraction(24)), reel="A003")
    write(tmp_path / "m", frames(), Fraction(24), carried, codec="exr")
    finished(tmp_path / "m", tmp_path / "out.mov", codec="prores-hq", fps_out=48, interpolate="hold")
    assert (open_master(tmp_path / "out.mov").timecode, open_master(tmp_path / "out.mov").reel) == (
        "01:00:00:10", "A003",
    )  # fmt: skip


def test_words_on_a_frame_name_its_file(tmp_path: Path) -> None:
    """A slate takes the first number of a sequence; in a video, frames are counted without it."""
    numbers = {}
    for codec in ("png", "h264"):
        output = OutputSettings(codec=codec, slate=True, start_number=1001 if codec == "png" else 0)
        spec = VideoSpec(SIZE, RATE, COUNT)
        with OutputLock(tmp_path / ("out" if codec == "png" else "out.mp4"), output) as lock:
            numbers[codec] = take_of(lock, Order(spec), spec).words(0, "frame")
    assert numbers == {"png": "001002", "h264": "000000"}


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"codec": "prores-hq", "timecode": "01:00:00:00"}, "output.fps_out"),
        ({"codec": "dnxhr-hqx"}, "output.upscale"),
    ],
)
def test_remedies_name_settings_that_finishing_has(
    master: Path, tmp_path: Path, settings: dict[str, Any], told: str
) -> None:
    error = _refused(master, tmp_path / "o.mov", **settings)
    assert setting(told) in error.remedy
    assert setting("preprocess.fps") not in error.remedy


def test_a_network_without_a_size_is_refused(master: Path, tmp_path: Path) -> None:
    """It would do nothing."""
    with pytest.raises(InputError) as caught:
        OutputSettings(upscale_network="4x.safetensors")
    assert (caught.value.field, setting("output.upscale") in caught.value.remedy) == ("output.upscale_network", True)
