"""Every format holds BT.709: patches in, the same patches out within a step of its depth, tags 1-1-1, limited range."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

import av
import numpy as np
import pytest
import torch
from make_patches import PATCHES, spread

from wanimate.config import FORMATS, OutputSettings
from wanimate.config.codecs import Codec
from wanimate.errors import InputError, OutputError
from wanimate.finish.encode import OutputWriter, check_size
from wanimate.media.levels import (
    coded_luma,
    decoded,
    from_light,
    noise,
    subsampled,
    to_levels,
    to_light,
    to_ycbcr,
    upsampled,
)
from wanimate.media.master import open_master

WIDTH, HEIGHT, COUNT = 320, 240, 3
RATE = Fraction(24000, 1001)
LOSSLESS = ("ffv1", "png", "exr")
KINDS = [
    (codec, depth, alpha)
    for codec, one in FORMATS.items()
    for depth in one.pixels
    for alpha in ("none", *one.alphas)
]  # fmt: skip


def fine_patches() -> torch.Tensor:
    """Patches whose values lie between the levels of 8 bits, [COUNT, 3, H, W]."""
    values = (PATCHES + np.array([0.3, 0.45, -0.35])) / 255
    frame = torch.from_numpy(spread(values, HEIGHT, WIDTH).astype(np.float32)).permute(2, 0, 1)
    return frame.expand(COUNT, -1, -1, -1)


def ramp() -> torch.Tensor:
    return torch.linspace(0, 1, WIDTH).expand(COUNT, 1, HEIGHT, WIDTH)


def written(path: Path, frames: torch.Tensor, opacity: torch.Tensor | None = None, **settings: Any) -> OutputWriter:
    output = OutputSettings(**settings)
    with OutputWriter(path, RATE, frames.shape[3], frames.shape[2], output) as writer:
        writer.write(frames[:1], None if opacity is None else opacity[:1])
        writer.write(frames[1:], None if opacity is None else opacity[1:])
    return writer


def middles(frame: torch.Tensor) -> np.ndarray:
    """What the eight patches show in the middle, [8, 3]."""
    _, height, width = frame.shape
    places = [((2 * (i // 4) + 1) * height // 4, (2 * (i % 4) + 1) * width // 8) for i in range(8)]
    return np.array([frame[:, y, x].numpy() for y, x in places])


def test_the_table_has_every_codec() -> None:
    assert tuple(FORMATS) == get_args(Codec)
    for one in FORMATS.values():
        assert set(one.odd) <= set(one.pixels)
        assert not one.alpha or set(one.alpha) == set(one.pixels)
        assert bool(one.alpha) == bool(one.alphas)


@pytest.mark.parametrize(("codec", "depth", "alpha"), KINDS)
def test_patches_through_every_format(tmp_path: Path, codec: Codec, depth: int, alpha: str) -> None:
    if codec == "exr":
        pytest.importorskip("OpenEXR")
    patches, opacity = fine_patches(), ramp()
    out = tmp_path / f"a{FORMATS[codec].endings[0]}"
    crf = {"crf": 4} if FORMATS[codec].takes_crf else {}
    given = None if alpha == "none" else opacity
    written(out, patches, given, codec=codec, depth=depth, alpha=alpha, **crf)
    master = open_master(out)
    assert (master.size, master.count, master.has_alpha) == ((WIDTH, HEIGHT), COUNT, alpha != "none")
    assert master.fps == (Fraction(24) if codec == "png" else RATE)
    (found,) = master.with_opacity()
    wanted = middles(patches[0])
    share = middles(opacity[0].expand(3, -1, -1))
    shown = middles(found[1, :3])
    if alpha == "premultiplied" and codec != "exr":
        shown = shown / share  # an EXR is read as straight
    step = 1 / (2**depth - 1) if codec in ("ffv1", "png") else 1 / 219 / 2 ** (depth - 8)
    if codec == "exr":
        step = 2**-10  # of half floats, on the curve
    lossy = 0.0 if codec in LOSSLESS else 1.5  # steps that quantisation of blocks may add
    allowed = (
        (1 + lossy) * step * (3 if codec not in LOSSLESS else 1) / (share.min() if alpha == "premultiplied" else 1)
    )
    assert np.abs(shown - wanted).max() <= allowed
    if alpha != "none":
        off = (found[:, 3:] - opacity).abs().max()
        assert off <= (2 / 255 if codec == "prores-4444" else 1.01 * step)
    if not FORMATS[codec].is_folder:
        assert tags(out) == ((1, 1, 1, 1) if "yuv" in FORMATS[codec].pixels[depth] else (1, 1, 0, 2))


def tags(path: Path) -> tuple[int, ...]:
    """Primaries, transfer, matrix, range of a frame; FFV1 of more than 8 bits does not tell its range."""
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        return frame.color_primaries, frame.color_trc, frame.colorspace, frame.color_range


@pytest.mark.parametrize(("codec", "depth", "profile"), [
    ("h264", 10, "High 10"), ("h265", 10, "Main 10"), ("h265", 12, "Rext"), ("av1", 10, "Main"), ("prores-hq", 10, "HQ"),
    ("prores-4444", 10, "4444"), ("dnxhr-hqx", 10, "DNXHR HQX"),
])  # fmt: skip
def test_profiles(tmp_path: Path, codec: Codec, depth: int, profile: str) -> None:
    out = tmp_path / f"a{FORMATS[codec].endings[0]}"
    written(out, torch.zeros(2, 3, 128, 256), codec=codec, depth=depth)
    with av.open(str(out)) as container:
        context = container.streams.video[0].codec_context
        assert (context.profile, context.pix_fmt) == (
            profile,
            {"prores-4444": "yuv444p12le"}.get(codec, FORMATS[codec].pixels[depth]),
        )


@pytest.mark.parametrize(("codec", "size", "rule"), [
    ("prores-hq", (321, 240), "even width, and the result has 321x240"),
    ("dnxhr-hqx", (321, 240), "4:2:2 colour needs an even width"),
    ("av1", (320, 241), "4:2:0 colour needs an even width and height"),
    ("dnxhr-hqx", (128, 96), "needs 256x120 pixels or more"),
])  # fmt: skip
def test_sizes_that_a_format_cannot_hold(codec: Codec, size: tuple[int, int], rule: str) -> None:
    with pytest.raises(OutputError, match=rule) as caught:
        check_size(OutputSettings(codec=codec), *size)
    assert caught.value.field == "output.codec"


def test_odd_sizes_where_they_can_be_held(tmp_path: Path) -> None:
    for codec, depth, name in (
        ("h264", 10, "a.mp4"),
        ("prores-4444", 10, "b.mov"),
        ("ffv1", 16, "c.mkv"),
        ("png", 16, "d"),
    ):
        written(tmp_path / name, torch.full((2, 3, 97, 131), 0.5), codec=codec, depth=depth)
        master = open_master(tmp_path / name)
        (found,) = master.frames()
        assert master.size == (131, 97)
        assert (found - 0.5).abs().max() < 0.004


@pytest.mark.parametrize(("settings", "field", "rule"), [
    ({"codec": "h264", "depth": 16}, "output.depth", "h264 has no 16 bits. Give 8 or 10."),
    ({"codec": "h264", "alpha": "straight"}, "output.alpha", "h264 holds no alpha"),
    ({"codec": "prores-hq", "alpha": "premultiplied"}, "output.alpha", "prores-hq holds no alpha"),
    ({"codec": "png", "alpha": "premultiplied"}, "output.alpha", "png holds straight alpha"),
    ({"codec": "exr", "alpha": "straight"}, "output.alpha", "exr holds premultiplied alpha"),
    ({"codec": "prores-hq", "matte": "m.mp4"}, "output.matte", "prores-hq, which needs .mov or .mkv"),
    ({"start_number": 1001}, "output.start_number", "h264 results are no sequence"),
    ({"timecode": "1:00"}, "output.timecode", "written otherwise"),
    ({"reel": "a/b"}, "output.reel", "written otherwise"),
    ({"burn_in": "name,seed"}, "output.burn_in", "no such choice"),
])  # fmt: skip
def test_settings_that_do_not_fit_together(settings: dict[str, Any], field: str, rule: str) -> None:
    with pytest.raises(InputError, match=rule) as caught:
        OutputSettings(**settings)
    assert caught.value.field == field


def test_numbers_are_rounded_to_the_nearest() -> None:
    values = torch.tensor([0.0, 0.49 / 1023, 0.51 / 1023, 1.0, 1.2, -0.1]).reshape(1, 1, 1, 6)
    assert to_levels(values, 1023).flatten().tolist() == [0, 0, 1, 1023, 1023, 0]
    assert coded_luma(torch.tensor([0.0, 0.5, 1.0]), 10).tolist() == [64, 502, 940]
    assert coded_luma(torch.tensor([0.0, 1.0]), 8).tolist() == [16, 235]


def test_dither_keeps_the_mean_and_whole_levels() -> None:
    grain = noise(0, 3, 256, 256, torch.device("cpu"))
    between = torch.full((3, 1, 256, 256), 100.3 / 255)
    levels = to_levels(between, 255, grain)
    assert set(levels.unique().tolist()) == {100, 101}
    assert levels.float().mean() == pytest.approx(100.3, abs=0.01)
    whole = torch.arange(256).reshape(1, 1, 1, 256).expand(3, 1, 256, 256) / 255
    assert (to_levels(whole, 255, grain) == whole.mul(255).round()).all()
    assert (grain[0] != grain[1]).any(), "every frame has noise of its own"
    assert torch.equal(noise(1, 2, 256, 256, torch.device("cpu")), grain[1:])


def test_dither_in_a_file_is_the_same_twice_and_finer_than_steps(tmp_path: Path) -> None:
    slope = torch.linspace(0.30, 0.32, WIDTH).expand(COUNT, 3, HEIGHT, WIDTH)
    for name in ("a.mkv", "b.mkv"):
        written(tmp_path / name, slope, codec="ffv1", dither=True)
    written(tmp_path / "c.mkv", slope, codec="ffv1")
    first, second, plain = (next(open_master(tmp_path / name).frames()) for name in ("a.mkv", "b.mkv", "c.mkv"))
    assert torch.equal(first, second)
    columns = slope[0, 0, 0]
    assert (first.mean((0, 1, 2)) - columns).abs().max() < 0.3 / 255 < (plain.mean((0, 1, 2)) - columns).abs().max()


def test_chroma_goes_down_and_up_in_place() -> None:
    slope = torch.linspace(-0.3, 0.3, 64).expand(1, 48, 64)
    for across, down in ((2, 1), (2, 2)):
        small = subsampled(slope, across, down)
        assert small.shape == (1, 48 // down, 32)
        back = upsampled(small, 48, 64)
        assert (back - slope)[..., 2:-2].abs().max() < 1e-6, "a slope stays where it is"


def test_ycbcr_and_back() -> None:
    rgb = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    y, cb, cr = to_ycbcr(rgb).unbind(1)
    planes = [(16 + 219 * y) * 256, (128 + 224 * cb) * 256, (128 + 224 * cr) * 256]
    assert (decoded(planes, 16, 1, full=False) - rgb).abs().max() < 1e-5


def test_the_curve_and_back() -> None:
    values = torch.linspace(0, 1, 1001)
    light = to_light(values)
    assert (from_light(light) - values).abs().max() < 1e-5
    assert light[500].item() == pytest.approx(((0.5 + 0.099) / 1.099) ** (1 / 0.45), abs=2e-4)
