"""Upscaling and interpolation on a GPU beside the processor."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "post"))
from post_pictures import picture

from wanimate.config.target import parse_target
from wanimate.post.base import VideoSpec
from wanimate.post.flow import PyramidFlow
from wanimate.post.interpolate.choose import open_between
from wanimate.post.upscale.stage import Upscaler, Work
from wanimate.post.upscale.styles import open_enlarger
from wanimate.provenance.watermark import Watermark

pytestmark = pytest.mark.gpu
HERE, GPU = torch.device("cpu"), torch.device("cuda")


def frames(device: torch.device) -> torch.Tensor:
    return torch.stack([torch.from_numpy(picture(128, 64, shift)) for shift in (0, 2, 5)]).to(device)


def test_upscaling_is_that_of_the_processor() -> None:
    made = []
    for device in (HERE, GPU):
        enlarger = open_enlarger("filmed", device, dtype=torch.float32 if device == HERE else None)
        stage = Upscaler(parse_target("1.5x"), enlarger, PyramidFlow(), 0.75, Work(device, 96, 2))
        spec = VideoSpec((128, 64), Fraction(24), 3)
        made.append(torch.cat(list(stage.run(spec, [frames(device)]))))
        stage.close()
    assert made[1].device.type == "cuda"
    assert (made[1].cpu() - made[0]).square().mean().sqrt() < 0.1 / 255


def test_rife_is_that_of_the_processor() -> None:
    made = [open_between("rife", device)(frames(device)[:1], frames(device)[1:2], [0.5]) for device in (HERE, GPU)]
    assert made[1].device.type == "cuda"
    assert (made[1].cpu() - made[0]).square().mean().sqrt() < 0.1 / 255


def test_the_watermark_is_that_of_the_processor() -> None:
    mark = Watermark(128, 64, 0xA5C3197E)
    made = [mark.on(frames(device)) for device in (HERE, GPU)]
    assert made[1].device.type == "cuda"
    assert (made[1].cpu() - made[0]).abs().max() < 0.01 / 255
