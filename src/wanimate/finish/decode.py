"""Latents -> frames, a few at a time, with the frames that the next segment continues from (model spec, 10.1)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from wanimate.media.levels import to_levels
from wanimate.types import Frames


class LatentDecoder(Protocol):
    def decode_pieces(self, latents: Tensor, chunk: int = 1) -> Iterator[Tensor]:
        """[1, 16, T, h, w] -> pieces of [1, 3, K, H, W] in order, not clamped."""
        ...


class SegmentDecoder:
    """Decodes segments of one job in order.

    `decode` yields float32 frames [3, k, H, W] in [-1, 1] without those the segment shares with the one before;
    `tail` then holds the last `keep` frames of the job so far. At first it is what the segments before have left.
    `correct` changes frames as they come, shared ones first, before the tail is kept.
    """

    def __init__(
        self, codec: LatentDecoder, keep: int, chunk: int = 1, tail: Tensor | None = None,
        correct: Callable[[Tensor], Tensor] | None = None,
    ) -> None:  # fmt: skip
        self.codec, self.keep, self.chunk, self.tail, self.correct = codec, keep, chunk, tail, correct

    @torch.inference_mode()
    def decode(self, latents: Tensor, skip: int) -> Iterator[Tensor]:
        """latents [16, T, h, w] without the reference frame; the first `skip` frames are known already."""
        for piece in self.codec.decode_pieces(latents[None], self.chunk):
            frames = piece[0].float().clamp(-1, 1)
            frames = frames if self.correct is None else self.correct(frames)
            skipped = min(skip, frames.shape[1])
            skip -= skipped
            frames = frames[:, skipped:]
            if not frames.shape[1]:
                continue
            self.tail = frames if self.tail is None else torch.cat((self.tail, frames), dim=1)
            self.tail = self.tail[:, -self.keep :]
            yield frames


def to_unit(frames: Tensor) -> Tensor:
    """Frames [3, k, H, W] in [-1, 1] of the VAE as those of everything after it: [k, 3, H, W] in [0, 1]."""
    return ((frames + 1) * 0.5).permute(1, 0, 2, 3)


def to_pixels(frames: Tensor) -> Frames:
    """float32 [n, 3, H, W] in [0, 1] -> uint8 [n, H, W, 3], rounded to the nearest level."""
    pixels: Frames = to_levels(frames.clamp(0, 1), 255).permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return pixels
