"""Numbers in words of eight bytes: what is copied out of order is copied one number at a time on a GPU."""

from __future__ import annotations

import torch
from torch import Tensor


def words(x: Tensor) -> Tensor:
    """The same memory as int64, [..., n] -> [..., n * bytes / 8], where whole words lie along the last axis. Otherwise x, one
    byte as uint8, since little can be done with float8. `view(dtype)` is the way back."""
    steps = [x.shape[-1], x.storage_offset(), *x.stride()[:-1]]
    if x.stride(-1) == 1 and all(step * x.itemsize % 8 == 0 for step in steps):
        return x.view(torch.int64)
    return x.view(torch.uint8) if x.itemsize == 1 else x
