from __future__ import annotations

import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType, SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from post_pictures import picture
from torch import Tensor, nn

from wanimate.config.target import parse_target
from wanimate.errors import InputError
from wanimate.post.base import VideoSpec
from wanimate.post.flow import DisFlow, Preset, PyramidFlow
from wanimate.post.upscale.base import in_tiles
from wanimate.post.upscale.resample import resize
from wanimate.post.upscale.stage import Upscaler, Work
from wanimate.post.upscale.styles import open_enlarger, open_upscaler

HERE = torch.device("cpu")
RATE = Fraction(24)


@pytest.mark.parametrize(
    ("text", "source", "size"),
    [
        ("1920x1080", (1280, 720), (1920, 1080)),
        ("3840X2160", (1280, 720), (3840, 2160)),
        (" 1920 x 1080 ", (832, 480), (1872, 1080)),
        ("1920x1080", (360, 640), (608, 1080)),
        ("1080p", (720, 1280), (1080, 1920)),
        ("1080p", (1280, 720), (1920, 1080)),
        ("2160p", (1920, 800), (3840, 1600)),
        ("1080p", (848, 480), (1920, 1080)),
        ("1080p", (961, 541), (1920, 1080)),
        ("1080p", (941, 541), (1878, 1080)),
        ("2x", (321, 181), (642, 362)),
        ("1.5x", (833, 481), (1250, 722)),
        ("1080p", (1920, 1080), (1920, 1080)),
        ("1x", (321, 181), (321, 181)),
        ("16x", (1, 1), (16, 16)),
    ],
)  # fmt: skip
def test_targets(text: str, source: tuple[int, int], size: tuple[int, int]) -> None:
    assert parse_target(text).size(source) == size


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("large", "it is no size"), ("", "it is no size"), ("1920", "it is no size"), ("-2x", "it is no size"),
        ("1921x1080", "not even"), ("0x1080", "not even"), ("1081p", "not an even"), ("000p", "not an even"),
        ("0.5x", "between 1 and 16"), ("17x", "between 1 and 16"), ("nanx", "it is no size"),
    ],
)  # fmt: skip
def test_other_targets_are_refused(text: str, rule: str) -> None:
    with pytest.raises(InputError, match=rule) as caught:
        parse_target(text)
    assert caught.value.field == "output.upscale"


@pytest.mark.parametrize(
    ("text", "source", "rule"),
    [
        ("720p", (1920, 1080), "has 1920x1080 pixels, which is more"),
        ("1280x720", (640, 800), "which is more"),
        ("2160p", (64, 64), "the limits are 16 times"),
        ("16x", (1280, 720), "16384 pixels"),
    ],
)
def test_videos_that_do_not_fit_a_target(text: str, source: tuple[int, int], rule: str) -> None:
    with pytest.raises(InputError, match=rule):
        parse_target(text).size(source)


@pytest.mark.parametrize("size", [(60, 44), (81, 45), (20, 11), (53, 64), (160, 30)])
def test_sizes_change_as_in_opencv(size: tuple[int, int]) -> None:
    frame = torch.from_numpy(picture(80, 44))
    made = resize(frame[None], size)[0].permute(1, 2, 0).numpy()
    grown = [a > b for a, b in zip(size, (80, 44), strict=True)]
    wanted = frame.permute(1, 2, 0).numpy()
    for axis, larger in ((0, grown[0]), (1, grown[1])):
        side = (size[0], wanted.shape[0]) if axis == 0 else (wanted.shape[1], size[1])
        wanted = cv2.resize(wanted, side, interpolation=cv2.INTER_LANCZOS4 if larger else cv2.INTER_AREA)
    assert np.abs(made - wanted).max() < 2e-4


class Doubler:
    """Enlarges twice, and adds a pattern of its own to every frame: detail that is never the same."""

    scale, reach = 2, 4

    def __init__(self, noise: float = 0.0) -> None:
        self.noise, self.shapes, self.closed = noise, list[torch.Size](), False
        self.generator = torch.Generator().manual_seed(1)

    def __call__(self, frames: Tensor) -> Tensor:
        self.shapes.append(frames.shape)
        wide = F.interpolate(frames, scale_factor=2, mode="nearest")
        blurred = F.avg_pool2d(wide, 5, 1, 2)
        return (blurred + self.noise * torch.randn(blurred.shape, generator=self.generator)).clamp(0, 1)

    def close(self) -> None:
        self.closed = True


def stage(target: str, enlarger: Doubler, strength: float = 0.75, tile: int = 640, batch: int = 2) -> Upscaler:
    return Upscaler(parse_target(target), enlarger, PyramidFlow(), strength, Work(HERE, tile, batch))


def video(*shifts: int, size: tuple[int, int] = (48, 32)) -> Tensor:
    return torch.stack([torch.from_numpy(picture(*size, shift)) for shift in shifts])


def made_by(upscaler: Upscaler, frames: Tensor, *cuts: int, chunk: int = 2) -> Tensor:
    spec = VideoSpec((frames.shape[3], frames.shape[2]), RATE, len(frames), cuts)
    return torch.cat(list(upscaler.run(spec, frames.split(chunk))))


@pytest.mark.parametrize(
    ("target", "size"), [("2x", (96, 64)), ("1.5x", (72, 48)), ("5x", (240, 160)), ("90x64", (90, 60))]
)
def test_frames_get_exactly_the_size(target: str, size: tuple[int, int]) -> None:
    upscaler, spec = stage(target, Doubler()), VideoSpec((48, 32), RATE, 3, (1,))
    assert upscaler.result(spec) == VideoSpec(size, RATE, 3, (1,))
    made = made_by(upscaler, video(0, 1, 2), 1)
    assert made.shape == (3, 3, size[1], size[0])
    assert made.dtype == torch.float32
    assert 0 <= made.min() <= made.max() <= 1
    assert (resize(made, (48, 32)) - video(0, 1, 2)).abs().mean() < 0.04


def test_a_video_of_that_size_passes() -> None:
    enlarger, frames = Doubler(), video(0, 1)
    assert torch.equal(made_by(stage("48x32", enlarger), frames), frames)
    assert not enlarger.shapes


def test_strength_zero_is_lanczos() -> None:
    enlarger, frames = Doubler(), video(0, 1)
    assert torch.equal(made_by(stage("2x", enlarger, 0.0), frames), resize(frames, (96, 64)).clamp(0, 1))
    assert not enlarger.shapes


def test_how_frames_come_and_are_batched_changes_nothing() -> None:
    frames = video(0, 2, 4, 5, 7)
    first = made_by(stage("2x", Doubler(), batch=1), frames, 3, chunk=5)
    assert torch.allclose(first, made_by(stage("2x", Doubler(), batch=3), frames, 3, chunk=2), atol=1e-5)


def test_detail_holds_still_and_starts_anew_at_cuts() -> None:
    frames = video(0, 0, 0, 0, 0, 0)
    plain = resize(frames, (96, 64))
    steady, cut = (made_by(stage("2x", Doubler(0.05)), frames, *cuts) - plain for cuts in ((), (4,)))
    own = (plain[:1] + 0.75 * (Doubler(0.05)(frames[:2])[:1] - plain[:1])).clamp(0, 1) - plain[:1]
    flicker = (steady[1:] - steady[:-1]).abs().mean((1, 2, 3))
    noise = 0.75 * 0.05 * 2 / 3.14**0.5  # mean difference of two patterns
    assert (flicker < 0.6 * noise).all()
    assert torch.equal(steady[:4], cut[:4])
    assert (cut[4] - cut[3]).abs().mean() > 0.8 * flicker.mean() / 0.6
    assert (steady[:1] - own).abs().max() < 1e-5


def test_tiles_leave_no_seams_and_are_small() -> None:
    enlarger, frames = Doubler(), video(0, 3, size=(75, 50))
    whole = enlarger(frames)
    enlarger.shapes.clear()
    assert torch.allclose(in_tiles(enlarger, frames, 20), whole, atol=1e-6)
    assert len(enlarger.shapes) == 4 * 3
    assert all(max(shape[2:]) <= 20 + 2 * enlarger.reach for shape in enlarger.shapes)


def test_span_in_tiles_is_span_at_once() -> None:
    enlarger, frames = open_enlarger("filmed", HERE, dtype=torch.float32), video(0, size=(90, 40))
    assert (in_tiles(enlarger, frames, 45) - enlarger(frames)).abs().max() < 1e-5


@pytest.mark.parametrize("style", ["filmed", "drawn"])
def test_styles_enlarge(style: str) -> None:
    upscaler = open_upscaler("2x", style)
    made = made_by(upscaler, video(0, 1, size=(32, 24)))
    assert made.shape == (2, 3, 48, 64)
    assert (resize(made, (32, 24)) - video(0, 1, size=(32, 24))).abs().mean() < 0.03
    upscaler.close()
    upscaler.close()


def test_reduced_types_stay_close() -> None:
    frames = video(0, size=(32, 24))
    exact = open_enlarger("filmed", HERE, dtype=torch.float32)(frames)
    made = open_enlarger("filmed", HERE, dtype=torch.bfloat16)(frames)
    assert made.dtype == torch.float32
    assert 0 < (made - exact).square().mean().sqrt() < 1 / 255


def test_memory_does_not_grow_with_the_length() -> None:
    """Frames are asked for a batch at a time, and given on before the next ones are."""
    asked = 0

    def coming() -> Iterator[Tensor]:
        nonlocal asked
        for _ in range(9):
            asked += 1
            yield video(0, size=(16, 16))

    upscaler = stage("2x", Doubler())
    for number, _ in enumerate(upscaler.run(VideoSpec((16, 16), RATE, 9), coming())):
        assert asked <= 2 * number + 3


def test_strengths_outside_are_refused() -> None:
    with pytest.raises(InputError, match="outside of 0 to 1"):
        open_upscaler("2x", strength=1.5)


def test_a_style_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such file.* choose filmed or drawn"):
        open_upscaler("2x", "sharpest")


def test_own_networks_need_spandrel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.pth").write_bytes(b"1")
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(InputError, match=r"pip install 'wanimate\[spandrel\]'"):
        open_upscaler("2x", str(tmp_path / "own.pth"))


class Described(SimpleNamespace):
    """What spandrel says of a network, as far as it is asked. It takes one frame at a time."""

    def __call__(self, frame: Tensor) -> Tensor:
        assert len(frame) == 1
        made: Tensor = self.model(frame)
        return made


def spandrel(monkeypatch: pytest.MonkeyPatch, **values: object) -> None:
    """spandrel with one network, that of every file but b"broken"."""
    module = ModuleType("spandrel")
    usual: dict[str, object] = {
        "model": nn.Upsample(scale_factor=3), "scale": 3, "input_channels": 3, "output_channels": 3, "supports_half": False,
        "supports_bfloat16": False,
    }  # fmt: skip

    class ModelLoader:
        def __init__(self, device: str) -> None:
            assert device == "cpu"

        def load_from_file(self, path: Path) -> Described:
            if path.read_bytes() == b"broken":
                raise RuntimeError("unsupported")
            return Described(**usual | values)

    monkeypatch.setattr(module, "ModelLoader", ModelLoader, raising=False)
    monkeypatch.setattr(module, "ImageModelDescriptor", Described, raising=False)
    monkeypatch.setitem(sys.modules, "spandrel", module)


def test_own_networks_enlarge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.pth").write_bytes(b"1")
    spandrel(monkeypatch)
    upscaler = open_upscaler("2x", str(tmp_path / "own.pth"), strength=1.0)
    assert made_by(upscaler, video(0, 1)).shape == (2, 3, 64, 96)
    spandrel(monkeypatch, input_channels=1)
    with pytest.raises(InputError, match="does not enlarge RGB"):
        open_upscaler("2x", str(tmp_path / "own.pth"))
    (tmp_path / "own.pth").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"cannot read it \(unsupported\)"):
        open_upscaler("2x", str(tmp_path / "own.pth"))


@pytest.mark.parametrize("flow", [DisFlow("medium"), PyramidFlow()], ids=["DIS", "pyramid"])
def test_flows_find_a_shift(flow: DisFlow | PyramidFlow) -> None:
    a, b = (torch.from_numpy(picture(96, 64, shift))[None, :1] for shift in (0, 3))
    found = flow(torch.cat((a, b)), torch.cat((b, a)))
    assert found.shape == (2, 2, 64, 96)
    inner = found[:, :, 12:-12, 16:-16].median(3).values.median(2).values
    assert torch.allclose(inner, torch.tensor([[3.0, 0.0], [-3.0, 0.0]]), atol=0.1)
    assert flow(a[..., :1, :1], b[..., :1, :1]).shape == (1, 2, 1, 1)
    flow.close()


@pytest.mark.parametrize("preset", ["fast", "medium"])
@pytest.mark.parametrize("size", [(300, 17), (17, 300), (1, 50), (89, 31), (600, 20), (33, 32)])
def test_thin_pictures_do_not_crash_dis(size: tuple[int, int], preset: Preset) -> None:
    a = torch.from_numpy(picture(*size))[None, :1]
    flow = DisFlow(preset, threads=1)
    assert flow(a, a).abs().max() < 0.5
    assert flow(a, a).shape == (1, 2, size[1], size[0])
