"""Attention to some blocks of keys in plain PyTorch: exact, on any device, and no quicker for what it leaves out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from wanimate.runtime.sparse.layout import Layout

AT_ONCE = 1 << 24
"""Pairs of a query and a key whose mask is in memory at once."""


def attend_blocks(q: Tensor, k: Tensor, v: Tensor, blocks: Tensor, layout: Layout) -> Tensor:
    """softmax(q k^T / sqrt(d)) v over the blocks of keys that each block of queries visits.

    q, k and v [N, L, d] in the order of the layout; blocks bool [N, Q, K] -> [N, L, d].
    """
    heads, tokens, _ = q.shape
    sizes = layout.sizes
    together = max(1, AT_ONCE // (heads * tokens * sizes.queries))
    out = torch.empty_like(q)
    for first in range(0, blocks.shape[1], together):
        some = blocks[:, first : first + together].repeat_interleave(sizes.keys, -1)[..., :tokens]
        rows = slice(first * sizes.queries, min(tokens, (first + together) * sizes.queries))
        mask = some.repeat_interleave(sizes.queries, 1)[:, : rows.stop - rows.start]
        out[:, rows] = F.scaled_dot_product_attention(q[:, rows], k, v, attn_mask=mask)
    return out
