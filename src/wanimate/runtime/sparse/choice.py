"""Which blocks of keys a block of queries visits: those that are thought to hold most of the attention's mass.

Letters: N heads, L tokens in the order of the layout, d width of a head, Q and K blocks of queries and keys.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from wanimate.runtime.sparse.layout import Layout

LEFT_OUT = (0.5, 0.32, 0.2, 0.13, 0.08, 0.05, 0.032, 0.02, 0.013, 0.008, 0.005, 0.002, 0.0005, 0.0)
"""Shares of the mass, as it is thought to be, that may be left out; the last one is dense."""
DENSE = len(LEFT_OUT) - 1
AT_ONCE = 8
"""Heads whose queries are in memory in float32 together."""


def block_mass(q: Tensor, k: Tensor, layout: Layout) -> Tensor:
    """What share of each block of queries' mass is thought to lie in each block of keys: [N, L, d] twice -> [N, Q, K].

    A block of queries counts as its mean. Its scores with the keys of a block are taken as normal: their mean is that with the
    mean key, their variance comes from the variances of the keys, channel by channel. The mean of their exponentials is then
    known. Mean keys alone miss keys that stand out in their block.
    """
    sizes, width = layout.sizes, q.shape[-1]
    query, _ = _moments(q, sizes.queries)
    key, variance = _moments(k, sizes.keys)
    score = (query @ key.mT) / width**0.5 + (query.square() @ variance.mT) / (2 * width)
    return (score + layout.keys.log()).softmax(-1)


def _moments(x: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Means and variances, float32 [N, blocks, d], over blocks of `size` tokens, of which the last one may be short."""
    heads, tokens, width = x.shape
    if heads > AT_ONCE:
        some = [_moments(part, size) for part in x.split(AT_ONCE)]
        return torch.cat([mean for mean, _ in some]), torch.cat([variance for _, variance in some])
    blocks = -(-tokens // size)
    wide = F.pad(x.float(), (0, 0, 0, blocks * size - tokens)).view(heads, blocks, size, width)
    counts = torch.full((blocks, 1), size, device=x.device)
    counts[-1] = tokens - size * (blocks - 1)
    mean = wide.sum(2) / counts
    return mean, (wide.square().sum(2) / counts - mean.square()).clamp_min(0)


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


def level_errors(q: Tensor, k: Tensor, v: Tensor, rank: Tensor, counts: Tensor, layout: Layout) -> Tensor:
    """Relative L2 error of attention for some queries at each level: [N, levels].

    q [N, R, d]; k and v [N, L, d]; rank [N, R, K] and counts [N, R, levels]: of each query's block. One head after the other,
    so that their probabilities are not in memory together.
    """
    size, blocks = layout.sizes.keys, layout.shape[1]
    filling = blocks * size - layout.tokens
    found = []
    for one_q, one_k, one_v, one_rank, one_counts in zip(q, k, v, rank, counts, strict=True):
        score = (one_q.float() @ one_k.float().mT) / q.shape[-1] ** 0.5
        p = F.pad((score - score.amax(-1, keepdim=True)).exp(), (0, filling)).view(len(score), blocks, size)
        values = F.pad(one_v.float(), (0, 0, 0, filling)).view(blocks, size, -1)
        parts = torch.einsum("rbs,bsd->rbd", p, values)  # what each block of keys adds
        mask = (one_rank[:, None] < one_counts[..., None]).float()  # [R, levels, K]
        mixed = (mask @ parts) / (mask @ p.sum(-1, keepdim=True))
        wanted = mixed[:, DENSE:]
        found.append(((mixed - wanted).square().sum((0, 2)) / wanted.square().sum().clamp_min(1e-30)).sqrt())
    return torch.stack(found)
