"""The stage that makes frames larger: a network's detail over a plain filter, held steady in time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import Tensor

from wanimate.config.target import Target
from wanimate.post.base import Chunks, VideoSpec, single_frames
from wanimate.post.flow import Flow
from wanimate.post.upscale.base import Enlarger, in_tiles
from wanimate.post.upscale.resample import resize
from wanimate.post.upscale.steady import SteadyDetail


@dataclass(frozen=True)
class Work:
    """How the work is cut up: tiles of about `tile` pixels a side, `batch` frames at a time, on `device`."""

    device: torch.device
    tile: int
    batch: int


class Upscaler:
    """Enlarges a video to a target.

    Args:
        target: the size that is asked for.
        enlarger: the network. It need not reach the size; the rest is done by area or by Lanczos.
        flow: finds movement.
        strength: how much of the network's detail is added to the plain filter's picture, 0 to 1.
        work: where and in what pieces.
    """

    def __init__(self, target: Target, enlarger: Enlarger, flow: Flow, strength: float, work: Work) -> None:
        assert 0 <= strength <= 1, strength
        self.target, self.enlarger, self.flow, self.strength, self.work = target, enlarger, flow, strength, work

    def result(self, spec: VideoSpec) -> VideoSpec:
        return replace(spec, size=self.target.size(spec.size))

    def run(self, spec: VideoSpec, chunks: Iterable[Tensor]) -> Chunks:
        size = self.result(spec).size
        frames = single_frames(spec, chunks)
        if size == spec.size:
            yield from frames
            return
        steady, cuts, done = SteadyDetail(self.flow), frozenset(spec.cuts), 0
        for batch in _batches(frames, self.work.batch):
            batch = batch.to(self.work.device, torch.float32)
            begins = [done + i in cuts for i in range(len(batch))]
            yield self._enlarged(batch, size, begins, steady)
            done += len(batch)

    @torch.inference_mode()
    def _enlarged(self, frames: Tensor, size: tuple[int, int], begins: list[bool], steady: SteadyDetail) -> Tensor:
        """Frames with their detail; opacity, where there is one, by the plain filter alone."""
        frames, opacity = frames[:, :3], frames[:, 3:]
        plain = resize(frames, size)
        if self.strength:
            detail = resize(in_tiles(self.enlarger, frames, self.work.tile), size).sub_(plain)
            plain = plain + self.strength * steady(frames, plain, detail, begins)
        whole = torch.cat((plain, resize(opacity, size)), dim=1) if opacity.shape[1] else plain
        return whole.clamp(0, 1)

    def close(self) -> None:
        self.enlarger.close()
        self.flow.close()


def _batches(frames: Iterator[Tensor], count: int) -> Iterator[Tensor]:
    """The frames [1, 3, H, W], up to `count` at a time."""
    while batch := list(islice(frames, count)):
        yield torch.cat(batch)
