"""Attention as the networks see it: one function, which another backend may replace (`runtime.backends`).

Letters: B batch, Lq queries, Lk keys, N heads, d width of a head.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""softmax(q k^T / sqrt(d)) v without a mask: q [B, Lq, N, d], k and v [B, Lk, N, d] -> [B, Lq, N, d]."""


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """PyTorch's choice among its own kernels; runs everywhere."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
