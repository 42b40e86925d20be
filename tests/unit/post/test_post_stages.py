"""Which stages settings lead to, in which order, and what they are expected to take."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
import torch

from wanimate.config import OutputSettings
from wanimate.errors import InputError
from wanimate.post.base import VideoSpec, run_stages
from wanimate.post.interpolate.stage import Interpolator
from wanimate.post.stages import Cost, cost_of, result_for, stages_of
from wanimate.post.upscale.stage import Upscaler

CPU, GPU = torch.device("cpu"), torch.device("cuda")
SPEC = VideoSpec((1280, 720), Fraction(15), 75)


def expected(settings: OutputSettings, device: torch.device) -> Cost:
    return cost_of(settings, SPEC, result_for(settings, SPEC), device)


def test_the_rate_comes_before_the_size() -> None:
    stages = stages_of(OutputSettings(upscale="1080p", fps_out=30, interpolate="hold"), CPU)
    assert [type(stage) for stage in stages] == [Interpolator, Upscaler]
    for stage in stages:
        stage.close()


def test_what_is_expected_grows_with_the_work() -> None:
    nothing = expected(OutputSettings(), CPU)
    assert (nothing.seconds, nothing.bytes) == (0, 0)
    full, four = (expected(OutputSettings(upscale=size), GPU) for size in ("1080p", "2160p"))
    both = expected(OutputSettings(upscale="1080p", fps_out=30), GPU)
    assert 3 * 2**30 < full.bytes < four.bytes < 6 * 2**30
    assert full.seconds < both.seconds < expected(OutputSettings(upscale="1080p"), CPU).seconds
    assert expected(OutputSettings(fps_out=30, interpolate="blend"), CPU).bytes == 0


def test_opacity_is_not_looked_at_by_what_moves_it() -> None:
    """Colours are the same with opacity and without."""
    spec = VideoSpec((64, 64), Fraction(10), 3)
    frames = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(5))
    opacity = torch.linspace(0, 1, 64).expand(3, 1, 64, 64)
    for method in ("rife", "dis"):
        settings = OutputSettings(upscale="2x", fps_out=20, interpolate=method)
        plain, whole = (
            torch.cat(list(run_stages(stages_of(settings, CPU), spec, [given])))
            for given in (frames, torch.cat((frames, opacity), dim=1))
        )
        assert torch.equal(whole[:, :3], plain)
        assert whole.shape == (6, 4, 128, 128)
        assert whole[:, 3, :, 120:].mean() > 0.9


def test_missing_networks_are_told_before_anything_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANIMATE_MODELS", str(tmp_path))
    with pytest.raises(InputError, match=r"python -m wanimate\.post\.models"):
        result_for(OutputSettings(upscale="1080p"), SPEC)
