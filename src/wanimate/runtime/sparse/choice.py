"""Which blocks of keys a block of queries visits: those that are thought to hold most of the attention's mass.

Letters: N heads, L tokens in the order of the layout, d width of a head, Q and K blocks of queries and keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from wanimate.runtime.sparse.layout import Layout

LEFT_OUT = (0.5, 0.32, 0.2, 0.13, 0.08, 0.05, 0.032, 0.02, 0.013, 0.008, 0.005, 0.002, 0.0005, 0.0)
"""Shares of the mass, as it is thought to be, that may be left out; the last one is dense."""
DENSE = len(LEFT_OUT) - 1
AT_ONCE = 1 << 24
"""Probabilities that are in memory together: 64 MiB, of which a large GPU keeps most in its cache."""


def plain_scale(q: Tensor) -> Tensor:
    """What makes scores of products of queries [N, L, d] and keys that are as they are: float32 [N]."""
    return torch.full((len(q),), q.shape[-1] ** -0.5, device=q.device)


def block_mass(q: Tensor, k: Tensor, scale: Tensor, layout: Layout) -> Tensor:
    """What share of each block of queries' mass is thought to lie in each block of keys: [N, L, d] twice -> [N, Q, K].
    `scale` [N]: what makes scores of products.

    A block of queries counts as its mean. Its scores with the keys of a block are taken as normal: their mean is that with the
    mean key, their variance comes from the variances of the keys, channel by channel. The mean of their exponentials is then
    known. Mean keys alone miss keys that stand out in their block.
    """
    sizes = layout.sizes
    query, key = _means(q, sizes.queries) * scale[:, None, None], _means(k, sizes.keys)
    variance = (_means(k, sizes.keys, 2) - key.square()).clamp_min(0)
    score = query @ key.mT + query.square() @ variance.mT / 2
    return (score + layout.keys.log()).softmax(-1)


def _means(x: Tensor, size: int, power: int = 1) -> Tensor:
    """Mean, or mean square, over blocks of `size` tokens, of which the last one may be short: [N, L, d] -> float32
    [N, blocks, d]. Nothing of the size of x is written."""
    whole = x.shape[1] // size * size
    parts = [x[:, :whole].unflatten(1, (-1, size)), x[:, None, whole:]]
    found = []
    for part in parts if whole < x.shape[1] else parts[:1]:
        if power == 1:
            found.append(part.mean(2, dtype=torch.float32))
        else:
            found.append(torch.linalg.vector_norm(part, dim=2, dtype=torch.float32).square() / part.shape[2])
    return torch.cat(found, dim=1)


def ranked(mass: Tensor, always: Tensor) -> tuple[Tensor, Tensor]:
    """Blocks of keys by falling mass, those first that are never left out: each one's rank [..., K], and how many are visited
    at each level of `LEFT_OUT`, [..., levels]. mass [..., K], always [..., K]."""
    order = (mass + 2 * always).argsort(dim=-1, descending=True, stable=True)
    rank = torch.empty_like(order)
    rank.scatter_(-1, order, torch.arange(mass.shape[-1], device=mass.device).expand_as(order))
    held = mass.gather(-1, order).cumsum(-1)
    wanted = 1 - torch.tensor(LEFT_OUT[:DENSE], device=mass.device)
    counts = torch.searchsorted(held, wanted.expand(*held.shape[:-1], DENSE).contiguous()) + 1
    counts = counts.clamp(max=mass.shape[-1])
    least = always.sum(-1, keepdim=True).expand_as(counts)
    whole = torch.full_like(counts[..., :1], mass.shape[-1])
    return rank, torch.cat((torch.maximum(counts, least), whole), dim=-1)


def visited(rank: Tensor, counts: Tensor, level: Tensor) -> Tensor:
    """The blocks visited, bool [N, Q, K], where each head has its level [N]."""
    count = counts.gather(-1, level[:, None, None].expand(*counts.shape[:-1], 1))
    return rank < count


def level_errors(
    q: Tensor, k: Tensor, v: Tensor, scale: Tensor, rank: Tensor, counts: Tensor, layout: Layout
) -> Tensor:
    """Relative L2 error of attention for some queries at each level: [N, levels].

    q [N, R, d]; k and v [N, L, d]; scale [N]: see `block_mass`; rank [N, R, K] and counts [N, R, levels]: of each query's
    block. A few heads at once: all probabilities would fill the memory, and of short videos heads one by one keep a GPU waiting
    for their launches.
    """
    q = q.float() * scale[:, None, None]
    together = max(1, AT_ONCE // (q.shape[1] * layout.tokens))
    some = [slice(first, first + together) for first in range(0, len(q), together)]
    with _tf32():
        return torch.cat([_level_errors(q[at], k[at], v[at], rank[at], counts[at], layout) for at in some])


def _level_errors(q: Tensor, k: Tensor, v: Tensor, rank: Tensor, counts: Tensor, layout: Layout) -> Tensor:
    """`level_errors` of heads that are in memory together. Of a single head no product copies what it takes."""
    size, blocks = layout.sizes.keys, layout.shape[1]
    score = q @ _filled(k, blocks * size).mT
    score[..., layout.tokens :] = float("-inf")
    p = score.softmax(-1).unflatten(-1, (blocks, size))  # [N, R, K, s]
    value = _filled(v, blocks * size).unflatten(1, (blocks, size))
    parts = p.transpose(1, 2) @ value  # what each block of keys adds, [N, K, R, d]
    mask = (rank[:, :, None] < counts[..., None]).float()  # [N, R, levels, K]
    mixed = (mask @ parts.transpose(1, 2)) / (mask @ p.sum(-1, keepdim=True))
    wanted = mixed[:, :, DENSE:]
    return ((mixed - wanted).square().sum((1, 3)) / wanted.square().sum((1, 3)).clamp_min(1e-30)).sqrt()


def _filled(x: Tensor, tokens: int) -> Tensor:
    """[N, L, d] -> float32 [N, tokens, d], of which the last ones are zeros, in one pass."""
    filled = torch.empty(x.shape[0], tokens, x.shape[2], dtype=torch.float32, device=x.device)
    filled[:, : x.shape[1]] = x
    filled[:, x.shape[1] :] = 0
    return filled


@contextmanager
def _tf32() -> Iterator[None]:
    """Products of float32 matrices may take TF32 on a GPU. Keys and values lose nothing by it; queries and probabilities are
    rounded to ten bits, which is far below the errors that are told apart."""
    settings = torch.backends.cuda.matmul
    before = settings.allow_tf32
    settings.allow_tf32 = True
    try:
        yield
    finally:
        settings.allow_tf32 = before
