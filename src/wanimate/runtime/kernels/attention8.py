"""Attention of float8 matrices by a kernel of our own, for Hopper (`attention8.cu`): quicker than FlashAttention-3 in float8,
and its sums do not lose what is small over long sequences (`benchmarks/attention.py`)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from wanimate.model.rope import Rope
from wanimate.runtime.kernels.cuda import Kernel, TensorMap
from wanimate.runtime.kernels.eight import EightBits
from wanimate.runtime.kernels.rows import KEYS, Fp8, fp8_heads, fp8_values, rms_fp8
from wanimate.runtime.sparse.layout import Lists

SOURCE = Path(__file__).with_suffix(".cu")
CAPABILITY = (9, 0)
WIDTH = 128
"""Of a head."""
GROUPS, ROWS, STAGES = 3, 64, 4
"""As in the source: warp groups that compute, queries of each, tiles on their way."""
QUERIES = GROUPS * ROWS
SHARED = GROUPS * ROWS * WIDTH * 4 + 2 * STAGES * KEYS * WIDTH + 1024


@dataclass(frozen=True)
class Fp8Attention(EightBits):
    """Rounds queries, keys and values to float8, a scale a head."""

    def heads(self, x: Tensor, smooth: bool = False) -> Fp8:
        """
        Raises:
            RuntimeError: not a Hopper GPU.
        """
        _check(x.device)  # before Triton is asked for float8, which it has not for all
        return fp8_heads(x, smooth)

    def prepared(
        self, x: Tensor, weight: Tensor, eps: float, rope: Rope, heads: int, common: Tensor | None = None
    ) -> Fp8:
        return rms_fp8(x, weight, eps, rope, heads, common)

    def rounded(self, q: Fp8, k: Fp8, v: Tensor) -> Tensor:
        return attend(q, k, fp8_values(v)).to(v.dtype)


def attend(q: Fp8, k: Fp8, v: Fp8, visits: Lists | None = None) -> Tensor:
    """q levels [1, Lq, N, 128], k [1, Lk, N, 128], v [1, N, 128, tokens] from `rows.fp8_values`, scales [1, N] each
    -> bfloat16 [1, Lq, N, 128]. `visits`: which tiles of `KEYS` keys each `QUERIES` queries visit; None is all.

    Raises:
        RuntimeError: not a Hopper GPU, heads of another width, or the source cannot be compiled here.
    """
    (q8, q_scale), (k8, k_scale), (v8, v_scale) = q, k, v
    _, queries, heads, width = q8.shape
    if width != WIDTH:
        raise RuntimeError(f"heads of {width} numbers: the kernel is for {WIDTH}")
    if q8.is_meta:  # nothing is computed, as in Triton's kernels (`kernels.jit`)
        return torch.empty(q8.shape, dtype=torch.bfloat16, device=q8.device)
    kernel = _kernel(q8.device, visits is not None)
    maps = [
        TensorMap(q8.view(torch.uint8).view(queries, -1), ROWS, WIDTH),
        TensorMap(k8.view(torch.uint8).view(k8.shape[1], -1), KEYS, WIDTH),
        TensorMap(v8.view(torch.uint8).view(heads * WIDTH, -1), WIDTH, KEYS),
    ]
    out = torch.empty(q8.shape, dtype=torch.bfloat16, device=q8.device)
    grid = (-(-queries // (GROUPS * ROWS)), heads)
    arguments: list[TensorMap | Tensor | int] = [*maps, q_scale, k_scale, v_scale, out, queries, k8.shape[1], heads]
    if visits is not None:
        assert visits.counts.shape == (heads, grid[0]), "the lists are of other queries"
        arguments += [visits.blocks, visits.counts, visits.blocks.shape[2]]
    with torch.cuda.device(q8.device):
        kernel.launch(grid, 128 * (GROUPS + 1), arguments)
    return out


def _check(device: torch.device) -> None:
    if device.type == "meta":
        return
    if device.type != "cuda" or torch.cuda.get_device_capability(device) != CAPABILITY:
        raise RuntimeError("the kernel is for Hopper GPUs (compute capability 9.0)")


@cache
def _kernel(device: torch.device, listed: bool) -> Kernel:
    _check(device)
    return Kernel(SOURCE, "attend", device, SHARED, ("LISTED",) if listed else ())
