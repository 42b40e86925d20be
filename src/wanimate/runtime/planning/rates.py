"""What a device does in a second, measured for a moment on the device itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F

from wanimate.config import Speed
from wanimate.runtime.backends import backends
from wanimate.runtime.kernels.eight import EightBits
from wanimate.runtime.optimize import attention_trials, best_trial, multiplied_type, product_for, seconds_of
from wanimate.weights.quantize import to_levels

HEADS = 16
"""Of the attention that is measured: enough that a GPU's multiprocessors are busy to its end."""


@dataclass(frozen=True)
class Rates:
    """What a device does in a second: operations of matrix products, attention and convolutions; bytes of its memory, and
    bytes that reach it from the host; operations of matrix products in float32."""

    products: float
    attention: float
    convolutions: float
    memory: float
    copies: float
    singles: float


@torch.inference_mode()
def measure_rates(device: torch.device, dtype: torch.dtype, speed: Speed = "exact") -> Rates:
    """Short measurements on the device itself, a few seconds in all, of what `speed` makes use of."""
    cuda = device.type == "cuda"
    n, tokens, side, count = (8192, 32768, 256, 2**28) if cuda else (512, 512, 32, 2**22)
    a = torch.randn(n, n, device=device, dtype=dtype)
    x, w = torch.randn(1, 96, 4, side, side, device=device), torch.randn(96, 96, 3, 3, 3, device=device)
    x, w = (t.contiguous(memory_format=torch.channels_last_3d) for t in (x, w))
    single = torch.randn(n // 2, n // 2, device=device)
    wide = torch.zeros(count // 4, device=device)
    home = torch.zeros(count // 4, pin_memory=cuda)
    convolution = 2 * 96 * 96 * 27 * 2 * side * side
    attend = _time(_attention(device, dtype, tokens, speed == "exact"), device)
    product = _time(lambda: a @ a, device)
    kind = None if speed == "exact" else multiplied_type(device)
    multiply = None if kind is None else product_for(kind, device)
    if kind is not None and multiply is not None:
        levels, scale = to_levels(a, kind)
        product = _time(partial(multiply, levels, scale, levels, scale, None), device)
    return Rates(
        2 * n**3 / product,
        4 * tokens**2 * HEADS * 128 / attend,
        convolution / _time(lambda: F.conv3d(x, w, padding=(0, 1, 1)), device),
        2 * count / _time(lambda: wide + 1, device),
        count / _time(lambda: wide.copy_(home, non_blocking=True), device),
        2 * (n // 2) ** 3 / _time(lambda: single @ single, device),
    )


def _attention(device: torch.device, dtype: torch.dtype, tokens: int, exact: bool) -> Callable[[], object]:
    """A call of the backend that is taken for so many tokens; in eight bits it gets queries and keys as norms give them."""
    attend = backends()[best_trial(attention_trials(device, dtype, tokens, 128, exact)).name].attend
    q, k, v = (torch.randn(1, tokens, HEADS, 128, device=device, dtype=dtype) for _ in range(3))
    if isinstance(attend, EightBits):
        return partial(attend.rounded, *attend.levels(q, k), v)
    return partial(attend, q, k, v)


def _time(call: Callable[[], object], device: torch.device, rounds: int = 3) -> float:
    """Seconds of one call: the best of some, after one that warms up."""
    return min([seconds_of(call, device) for _ in range(rounds + 1)][1:])
