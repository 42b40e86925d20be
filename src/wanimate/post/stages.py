"""The stages that settings ask for, in their order: another rate first, then a larger size, so that fewer pixels are looked at
for movement."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

import torch

from wanimate.config import FinishingSettings
from wanimate.post.base import PostStage, VideoSpec, result_of
from wanimate.post.interpolate.choose import open_interpolator
from wanimate.post.upscale.styles import open_upscaler, work_on

_UPSCALE, _RIFE, _FLOW = (7e-6, 1.7e-8), (2.3e-6, 9e-9), (1.3e-7, 1.3e-7)
"""Seconds of a drawn pixel on a processor and on a GPU (benchmarks/results/finishing_cpu and finishing_h200, 2026-11-30)."""
_DRAWN_BYTES, _DELIVERED_BYTES, _RIFE_BYTES = 1150, 40, 1000
"""Bytes of a pixel: of frames that are enlarged, of the larger ones, of a frame that is interpolated (same files)."""


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


@dataclass(frozen=True)
class Cost:
    """What finishing takes, roughly. seconds: of one delivered frame. bytes: of memory, the most at a time."""

    seconds: float
    bytes: int


def cost_of(settings: FinishingSettings, spec: VideoSpec, result: VideoSpec, device: torch.device) -> Cost:
    """What it takes to make `result` of a video; nothing where it is not finished. It is told beforehand, and not held against
    anything."""
    drawn, delivered = spec.size[0] * spec.size[1], result.size[0] * result.size[1]
    on_gpu = device.type == "cuda"
    seconds, most = 0.0, 0
    if settings.fps_out is not None:
        network = settings.interpolate == "rife" or (settings.interpolate == "auto" and on_gpu)
        by_network, by_flow = _RIFE[on_gpu], _FLOW[on_gpu]
        seconds += drawn * (by_network if network else by_flow)
        most = _RIFE_BYTES * drawn if network else 0
    if settings.upscale is not None:
        seconds += drawn * _UPSCALE[on_gpu]
        side = work_on(device)
        tile = min(drawn, side.tile**2)
        most = max(most, side.batch * (_DRAWN_BYTES * tile + _DELIVERED_BYTES * delivered))
    return Cost(seconds, most)
