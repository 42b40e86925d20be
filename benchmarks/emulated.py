"""Other arithmetic of a transformer, emulated on a processor: float8 products, float8 attention, block-sparse attention."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wanimate.model.fp8 import hadamard
from wanimate.model.transformer import AnimateTransformer

FP8 = torch.float8_e4m3fn
LARGEST = 448.0
TILE = 4
"""Side in tokens of the blocks of block-sparse attention."""

Change = Callable[[AnimateTransformer, tuple[int, int, int]], Any]
"""Makes another arithmetic of a transformer for a grid of tokens; a context manager."""


def rounded(x: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """x as float8 (e4m3) with one scale for all of `dim`, as float32."""
    scale = x.abs().amax(dim, keepdim=True).clamp_min(1e-12) / LARGEST
    return (x / scale).to(FP8).float() * scale


@contextmanager
def fp8_products(model: AnimateTransformer, grid: tuple[int, int, int]) -> Iterator[None]:
    """Every linear layer of blocks and fusers: a scale for each row of activations and for each output channel."""
    layers = [
        layer for part in (model.blocks, model.face_adapter) for layer in part.modules() if isinstance(layer, nn.Linear)
    ]
    kept = [layer.weight.data for layer in layers]
    for layer in layers:
        layer.weight.data = rounded(layer.weight.data, 1)
    hooks = [layer.register_forward_pre_hook(lambda m, args: (rounded(args[0], -1),)) for layer in layers]
    try:
        yield
    finally:
        for layer, weight, hook in zip(layers, kept, hooks, strict=True):
            layer.weight.data = weight
            hook.remove()


def fp8_attention(smooth: bool = True, rotated: bool = True) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Self-attention with float8 q, k, v (a scale a head) and float8 probabilities, as `runtime/attention8.cu` computes it:
    64 keys at a time, from the last tile on; the largest score counts as it was until one is too large for float8; sums are of
    what is rounded. `smooth` takes the mean over the tokens off k, which the softmax does not feel; `rotated` spreads what
    stands out in a channel of q and k by a Hadamard transform."""

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        if smooth:
            k = k - k.mean(2, keepdim=True)
        if rotated:
            signs = hadamard(q.shape[-1], q.device).float() / math.sqrt(q.shape[-1])
            q, k = q @ signs, k @ signs
        q, k, v = (rounded(x, (2, 3)) for x in (q, k, v))
        scores = q @ k.transpose(2, 3) / (math.sqrt(q.shape[-1]) * math.log(2))
        top, total, out = torch.full_like(scores[..., :1], -1e30), 0.0, torch.zeros_like(q)
        for tile in range((scores.shape[-1] - 1) // 128 * 128, -1, -128):
            for part in (slice(tile, tile + 64), slice(tile + 64, tile + 128)):
                some = scores[..., part]
                if not some.shape[-1]:
                    continue
                most = some.amax(-1, keepdim=True)
                now = torch.where(most > top + math.log2(432 / 256), most, top)
                weights = torch.exp2(some - now + 8).to(FP8).float()
                alpha, top = torch.exp2(top - now), now
                total = total * alpha + weights.sum(-1, keepdim=True)
                out = out * alpha + weights @ v[..., part, :]
        return (out / total).transpose(1, 2)

    return attend


def block_sparse(density: float, grid: tuple[int, int, int]) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Tiles of TILE x TILE tokens of a frame attend to the tiles with the highest scores between means of queries and of keys,
    `density` of all; the reference frame and a tile's own frame are always among them; the reference attends to everything."""
    frames, rows, columns = grid
    down, across = -(-rows // TILE), -(-columns // TILE)
    y, x = torch.arange(rows) // TILE, torch.arange(columns) // TILE
    tile = (torch.arange(frames)[:, None, None] * down + y[None, :, None]) * across + x[None, None, :]
    tile = tile.flatten()
    count = frames * down * across
    pool = F.one_hot(tile, count).float().T
    pool = pool / pool.sum(1, keepdim=True)
    frame = torch.arange(count) // (down * across)
    always = (frame[:, None] == frame[None]) | (frame[None] == 0) | (frame[:, None] == 0)
    chosen = max(round(density * count), 1)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        scores = (pool @ q) @ (pool @ k).transpose(2, 3)
        scores = scores.masked_fill(always, float("inf"))
        kept = torch.zeros_like(scores, dtype=torch.bool).scatter(-1, scores.topk(chosen, -1).indices, True)
        kept = (kept | (frame[:, None] == 0))[..., tile[:, None], tile[None]]
        return F.scaled_dot_product_attention(q, k, v, attn_mask=kept).transpose(1, 2)

    return attend


def attending(make: Callable[[tuple[int, int, int]], Callable[[Tensor, Tensor, Tensor], Tensor]]) -> Change:
    @contextmanager
    def change(model: AnimateTransformer, grid: tuple[int, int, int]) -> Iterator[None]:
        attend = make(grid)
        for block in model.blocks:
            block.self_attn.attend = attend
        try:
            yield
        finally:
            for block in model.blocks:
                del block.self_attn.attend

    return change


def fp8_both(attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Change:
    @contextmanager
    def change(model: AnimateTransformer, grid: tuple[int, int, int]) -> Iterator[None]:
        with fp8_products(model, grid), attending(lambda grid: attend)(model, grid):
            yield

    return change
