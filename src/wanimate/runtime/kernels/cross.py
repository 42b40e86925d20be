"""Cross-attention by one Triton kernel: what each token finds in the text and in the picture, read once and written once.

Two softmaxes with one query (model spec, sections 4.3 and 4.5). Keys are few, so tokens' own memory traffic counts; and of the
text that is filled up with equal rows, the last one is looked at once, with the logarithm of their number on its score.

Letters: R rows (tokens), N heads, d width of a head.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from wanimate.model.transformer import CrossKV
from wanimate.runtime.kernels.jit import jit

ROWS, KEYS, WARPS, STAGES = 64, 64, 4, 2
LEAST_KEYS = 16
"""That tensor cores take."""


@jit
def _step(  # type: ignore[no-untyped-def]
    q, k, v, first, keys, more, factor, top, total, mixed, N: tl.constexpr, d: tl.constexpr, KEYS: tl.constexpr,
    LAST: tl.constexpr,
):  # fmt: skip
    """Softmax goes on with some more keys; of the last ones some are not there, and `more` is added to the last score."""
    key = first + tl.arange(0, KEYS)
    place = key[:, None] * (N * d) + tl.arange(0, d)[None, :]
    if LAST:
        there = (key < keys)[:, None]
        k, v = tl.load(k + place, mask=there, other=0.0), tl.load(v + place, mask=there, other=0.0)
    else:
        k, v = tl.load(k + place), tl.load(v + place)
    s = tl.dot(q, tl.trans(k)) * factor
    if LAST:
        s += tl.where(key < keys, tl.where(key == keys - 1, more, 0.0), float("-inf"))[None, :]
    now = tl.maximum(top, tl.max(s, axis=1))
    before = tl.exp2(top - now)
    p = tl.exp2(s - now[:, None])
    total = total * before + tl.sum(p, axis=1)
    mixed = tl.dot(p.to(v.dtype), v, mixed * before[:, None])
    return now, total, mixed


@jit
def _found(  # type: ignore[no-untyped-def]
    q, k, v, keys, more, factor, N: tl.constexpr, d: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
    REST: tl.constexpr,
):  # fmt: skip
    """What queries find among some keys; the last one's score is `more` larger than its product, in powers of two."""
    whole = (keys - 1) // KEYS * KEYS
    top, total = tl.full((ROWS,), float("-inf"), tl.float32), tl.zeros((ROWS,), tl.float32)
    mixed = tl.zeros((ROWS, d), tl.float32)
    top, total, mixed = _step(q, k, v, whole, keys, more, factor, top, total, mixed, N, d, REST, True)
    for first in range(0, whole, KEYS):
        top, total, mixed = _step(q, k, v, first, keys, more, factor, top, total, mixed, N, d, KEYS, False)
    return mixed / total[:, None]


@jit
def _look(  # type: ignore[no-untyped-def]
    q, k, v, k_image, v_image, out, rows, keys, image_keys, more, factor, N: tl.constexpr, d: tl.constexpr,
    ROWS: tl.constexpr, KEYS: tl.constexpr, REST: tl.constexpr, IMAGE_REST: tl.constexpr,
):  # fmt: skip
    head, row = tl.program_id(0) % N, (tl.program_id(0) // N).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    place = row[:, None] * (N * d) + head * d + tl.arange(0, d)[None, :]
    there = (row < rows)[:, None]
    mine = tl.load(q + place, mask=there, other=0.0)
    found = _found(mine, k + head * d, v + head * d, keys, more, factor, N, d, ROWS, KEYS, REST)
    if IMAGE_REST > 0:
        text = found.to(out.dtype.element_ty)  # half the registers
        found = _found(
            mine, k_image + head * d, v_image + head * d, image_keys, 0.0, factor, N, d, ROWS, KEYS, IMAGE_REST
        )
        found += text.to(tl.float32)
    tl.store(out + place, found.to(out.dtype.element_ty), mask=there)


def can_cross_attend(q: Tensor) -> bool:
    """Whether `look` takes such queries: those of one video in bfloat16, which GPUs have that multiply matrices in Triton; the
    width of a head is a power of two."""
    width = q.shape[-1]
    return len(q) == 1 and q.dtype == torch.bfloat16 and width == max(LEAST_KEYS, triton.next_power_of_2(width))


def cross_attend(q: Tensor, kv: CrossKV) -> Tensor:
    """`CrossAttention.attend`: q [1, R, N, d] -> [1, R, N, d]."""
    q = q.contiguous()
    _, rows, heads, width = q.shape
    k, v = kv.k.contiguous(), kv.v.contiguous()
    k_image, v_image = (k if x is None else x.contiguous() for x in (kv.k_image, kv.v_image))
    out = torch.empty_like(q)
    _look[(triton.cdiv(rows, ROWS) * heads,)](
        q, k, v, k_image, v_image, out, rows, k.shape[1], k_image.shape[1], math.log2(kv.alike),
        1 / (math.sqrt(width) * math.log(2)), N=heads, d=width, ROWS=ROWS, KEYS=KEYS, REST=_rest(k.shape[1]),
        IMAGE_REST=0 if kv.k_image is None else _rest(k_image.shape[1]), num_warps=WARPS, num_stages=STAGES,
    )  # fmt: skip
    return out


def _rest(keys: int) -> int:
    """Size of the last tile, which is never empty."""
    return max(LEAST_KEYS, triton.next_power_of_2((keys - 1) % KEYS + 1))
