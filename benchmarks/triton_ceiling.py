"""What matrix instructions reach with nothing beside them, through Triton: the same matrices are multiplied again and again."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import triton
import triton.language as tl

ROWS, COLUMNS, INNER, ROUNDS = 128, 64, 128, 4096
PROGRAMS = 8
"""For each multiprocessor."""


@triton.jit  # type: ignore[untyped-decorator]
def _again(a, b, out, rounds, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):  # type: ignore[no-untyped-def]
    row, column, inner = tl.arange(0, M)[:, None], tl.arange(0, N)[:, None], tl.arange(0, K)[None, :]
    left, right = tl.load(a + row * K + inner), tl.load(b + column * K + inner)
    kind: tl.constexpr = out.dtype.element_ty
    sums = tl.zeros((M, N), kind)
    for _ in range(rounds):
        sums = tl.dot(left, tl.trans(right), sums, out_dtype=kind)
    tl.store(out + row * N + tl.arange(0, N)[None, :], sums)


def ceilings(device: torch.device) -> dict[str, tuple[Callable[[], object], float]]:
    """Calls by name, and how many operations each of them is."""
    programs = PROGRAMS * torch.cuda.get_device_properties(device).multi_processor_count
    work = 2.0 * ROWS * COLUMNS * INNER * ROUNDS * programs
    kinds = {
        "int8": (torch.int8, torch.int32), "float16, sums in float16": (torch.float16, torch.float16),
        "float16, sums in float32": (torch.float16, torch.float32),
    }  # fmt: skip
    found = {}
    for name, (kind, sums) in kinds.items():
        a, b = (torch.ones(n, INNER, device=device, dtype=kind) for n in (ROWS, COLUMNS))
        out = torch.empty(ROWS, COLUMNS, device=device, dtype=sums)
        call = partial(_again[(programs,)], a, b, out, ROUNDS, M=ROWS, N=COLUMNS, K=INNER, num_warps=8)
        found[name] = (call, work)
    return found
