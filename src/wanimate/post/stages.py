"""The stages that settings ask for, in their order: another rate first, then a larger size, so that fewer pixels are looked at
for movement."""

from __future__ import annotations

from contextlib import ExitStack

import torch

from wanimate.config import FinishingSettings
from wanimate.post.base import PostStage, VideoSpec, result_of
from wanimate.post.interpolate.choose import open_interpolator
from wanimate.post.upscale.styles import open_upscaler

_SECONDS = {"cpu": 2.2e-6, "cuda": 8e-9}
"""Of a pixel that is enlarged, about, before the first one is (benchmarks/results/)."""


def stages_of(settings: FinishingSettings, device: torch.device) -> list[PostStage]:
    """The stages; none where the frames stay as they are. Whoever runs them closes them.

    Raises:
        InputError: networks are missing; the user's own is none.
    """
    with ExitStack() as undo:
        stages: list[PostStage] = []
        if settings.fps_out is not None:
            stages.append(open_interpolator(settings.fps_out, settings.interpolate, device))
            undo.callback(stages[-1].close)
        if settings.upscale is not None:
            style = settings.upscale_style if settings.upscale_network is None else str(settings.upscale_network)
            stages.append(open_upscaler(settings.upscale, style, settings.upscale_detail, device))
        undo.pop_all()
    return stages


def result_for(settings: FinishingSettings, spec: VideoSpec) -> VideoSpec:
    """What finishing makes of a video, before it is done.

    Raises:
        InputError: as `stages_of`; the video cannot be brought to the size.
    """
    stages = stages_of(settings, torch.device("cpu"))
    try:
        return result_of(stages, spec)
    finally:
        for stage in stages:
            stage.close()


def seconds_of(settings: FinishingSettings, result: VideoSpec, device: torch.device) -> float:
    """Seconds of a finished frame, roughly; 0 where nothing is finished."""
    stages = (settings.fps_out is not None) + (settings.upscale is not None)
    return stages * result.size[0] * result.size[1] * _SECONDS.get(device.type, _SECONDS["cpu"])
