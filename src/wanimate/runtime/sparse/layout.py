"""How the tokens of a video are cut into blocks that lie together in space and time.

Letters: L tokens of a grid of F latent frames with H rows and W columns, Q blocks of queries, K blocks of keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from wanimate.model.transformer import TokenOrder
from wanimate.runtime.words import words

Grid = tuple[int, int, int]
"""Latent frames (the reference frame is the first one), rows and columns of tokens."""
REACH = (1, 1, 1)
"""Frames, rows and columns between a block and those that count as its neighbours."""


@dataclass(frozen=True)
class BlockSizes:
    """Tokens of a block of queries and of a block of keys, and the tile of a frame whose tokens follow each other."""

    queries: int = 64
    keys: int = 32
    tile: tuple[int, int] = (8, 8)


@dataclass(frozen=True)
class Layout:
    """`places`: where tokens of the grid come. Blocks are runs of places, the last one may be short. `always` [Q, K]: pairs
    that are never left out, which are the keys of the reference frame and of a block's neighbours. `keys` [K]: tokens of each
    block of keys."""

    sizes: BlockSizes
    places: TokenOrder
    always: Tensor
    keys: Tensor

    @property
    def tokens(self) -> int:
        return len(self.places.order)

    @property
    def shape(self) -> tuple[int, int]:
        """Blocks of queries and of keys."""
        return self.always.shape[0], self.always.shape[1]


class Lists(NamedTuple):
    """The blocks of keys that each block of queries visits, ascending: int16 [N, Q, most], of which the first `counts`, int32
    [N, Q], hold."""

    blocks: Tensor
    counts: Tensor

    @classmethod
    def of(cls, visited: Tensor) -> Lists:
        """From bool [N, Q, K]; every block of queries visits at least one."""
        place = visited.cumsum(-1)
        counts = place[..., -1].to(torch.int32)
        most = int(counts.max())
        blocks = torch.zeros(*visited.shape[:-1], most + 1, dtype=torch.int16, device=visited.device)
        every = torch.arange(visited.shape[-1], dtype=torch.int16, device=visited.device).expand_as(visited)
        blocks.scatter_(-1, torch.where(visited, place - 1, most), every)  # those that are not visited go past the end
        return cls(blocks[..., :most].contiguous(), counts.contiguous())


def taken(x: Tensor, axis: int, which: Tensor) -> Tensor:
    """`index_select`, which float8 does not have, in words where there is something behind the axis."""
    behind = x.shape[axis + 1 :]
    if not behind or not x.is_contiguous():
        return words(x.unsqueeze(-1)).index_select(axis, which).view(x.dtype).squeeze(-1)
    return words(x.flatten(axis + 1)).index_select(axis, which).view(x.dtype).unflatten(-1, behind)


def list_bytes(tokens: int, heads: int, layers: int, sizes: BlockSizes) -> int:
    """What the lists of a network take at most."""
    return 2 * layers * heads * -(-tokens // sizes.queries) * -(-tokens // sizes.keys)


@lru_cache(maxsize=8)
def layout(grid: Grid, sizes: BlockSizes, device: torch.device) -> Layout:
    """Frame by frame, tile by tile, up and down in turn, so that tokens that follow each other are close."""
    frames, rows, columns = grid
    high, wide = sizes.tile
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    band, stripe = row // high, column // wide
    bands, stripes = -(-rows // high), -(-columns // wide)
    snake = torch.where(band % 2 == 0, stripe, stripes - 1 - stripe)
    key = (band * stripes + snake) * high * wide + (row % high) * wide + column % wide
    assert int(key.max()) < bands * stripes * high * wide
    within = key.flatten().argsort()
    order = (torch.arange(frames)[:, None] * rows * columns + within).flatten()
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order))
    position = torch.stack((order // (rows * columns), order // columns % rows, order % columns), dim=-1)
    queries, keys = _boxes(position, sizes.queries), _boxes(position, sizes.keys)
    gap = torch.maximum(queries[0][:, None] - keys[1][None], keys[0][None] - queries[1][:, None])
    always = (gap <= torch.tensor(REACH)).all(-1) | (keys[0][:, 0] == 0)[None]
    counts = torch.full((len(always[0]),), sizes.keys)
    counts[-1] = len(order) - sizes.keys * (len(counts) - 1)
    order, place, always, counts = (x.to(device) for x in (order, place, always, counts))
    return Layout(sizes, TokenOrder(order, place), always, counts)


def _boxes(position: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Smallest and largest positions [n, 3] of each run of `size` tokens."""
    runs = position.split(size)
    return torch.stack([run.amin(0) for run in runs]), torch.stack([run.amax(0) for run in runs])
