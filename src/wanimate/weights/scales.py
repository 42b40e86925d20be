"""Weights with more than a scale a row, turned back when they are read: scales for blocks, and a rotated input axis.

Letters: O rows (outputs), I columns (inputs).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from wanimate.weights.stored import Stored, Value, scaled, type_name, value

EIGHT_BITS = (torch.int8, torch.float8_e4m3fn, torch.float8_e5m2)


def unscaled(quantized: Value, scale: Value, block: int | None = None, group: int | None = None) -> Stored:
    """quantized * scale; with one scale, or one a row, `Scaled`, which can stay quantised in memory.

    scale: one number; one a row, [O] or [O, 1]; or one a block, [rows of blocks, columns of blocks]. `block`: edge of a
    block where it is stated; else the blocks are all of one size. `group`: the input axis was rotated in groups of so many
    (ConvRot, arXiv 2512.03673), and is turned back.

    Raises:
        ValueError: they do not belong together.
    """
    if quantized.dtype not in EIGHT_BITS or not scale.dtype.is_floating_point or scale.dtype.itemsize == 1:
        raise ValueError
    rows = list(scale.shape) + [1] * (2 - scale.ndim)
    while len(rows) > 2 and rows[-1] == 1:
        rows.pop()
    if scale.numel() == 1 or rows in ([len(quantized)], [len(quantized), 1]):
        plain = scaled(quantized, scale)
        if group is None:
            return plain
        form, blocks = plain.form, None
    else:
        blocks = _blocks(quantized, rows, block)
        form = f"{type_name(quantized.dtype)}, a scale for {blocks[0]} x {blocks[1]}"
    if group is not None:
        check_group(quantized, group)
        form += f", rotated in groups of {group} (ConvRot)"

    def make() -> Tensor:
        out = value(quantized).float()
        out *= (
            value(scale).float().view(-1, *[1] * (out.ndim - 1))
            if blocks is None
            else _spread(value(scale), blocks, out)
        )
        return out if group is None else rotated(out, group)

    return Stored(quantized.shape, torch.float32, make, True, form)


def _blocks(quantized: Value, grid: list[int], block: int | None) -> tuple[int, int]:
    """Height and width of a block."""
    if quantized.ndim != 2 or len(grid) != 2 or not all(grid):
        raise ValueError
    edges = []
    for length, count in zip(quantized.shape, grid, strict=True):
        if count in (1, length):
            edges.append(length // count)
        elif block is not None and -(-length // block) == count:
            edges.append(block)
        elif block is None and length % count == 0:
            edges.append(length // count)
        else:
            raise ValueError
    return edges[0], edges[1]


def _spread(scale: Tensor, blocks: tuple[int, int], like: Tensor) -> Tensor:
    rows, columns = like.shape
    grid = scale.float().view(-1, -(-columns // blocks[1]))
    return grid.repeat_interleave(blocks[0], 0)[:rows].repeat_interleave(blocks[1], 1)[:, :columns]


def check_group(quantized: Value, group: int) -> None:
    """Whether the input axis can have been rotated in such groups: a power of 4 that divides it.

    Raises:
        ValueError: it cannot.
    """
    if quantized.ndim != 2 or not is_group(group) or quantized.shape[1] % group:
        raise ValueError


def is_group(size: int) -> bool:
    """Whether there is a regular Hadamard matrix of that size: whether it is a power of 4."""
    return size in [4**n for n in range(1, 8)]


def rotated(weight: Tensor, group: int) -> Tensor:
    """[O, I] with each group of the input axis times the regular Hadamard matrix of that size, its own inverse."""
    return (weight.view(-1, group) @ hadamard(group)).view(weight.shape)


def hadamard(size: int) -> Tensor:
    """The regular symmetric orthogonal Hadamard matrix of a size that is a power of 4."""
    four = torch.tensor([[1, 1, 1, -1], [1, 1, -1, 1], [1, -1, 1, 1], [-1, 1, 1, 1]]) / 2
    out = torch.ones(1, 1)
    for _ in range(round(math.log(size, 4))):
        out = torch.kron(out, four)
    return out
