"""The VAE over a strip of every frame: a rank has some of the latent rows, and neighbours exchange the rows at their borders.

The result is that of one process: convolutions see the rows they would see, and the attention of the middle block looks at
all rows. Nothing is computed twice.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from wanimate.model.vae import AttentionBlock, CausalConv3d, Downsample, Stream, Upsample, VideoVae, order_of
from wanimate.runtime.parallel.ranks import Group

ROWS = 3
"""The axis of rows in [B, C, frames, rows, columns]."""
STRIDE = 8


class StripVae:
    """A VAE for a group of ranks; every rank calls it with the same values and gets the whole result.

    Where there are fewer latent rows than ranks, each works alone on everything.
    """

    def __init__(self, vae: VideoVae, group: Group) -> None:
        self.vae, self.group = vae, group
        self.strip = vae if group.size == 1 else _strip_view(vae, group)
        self._stream: Stream = {}

    def encode(self, video: Tensor, chunk: int) -> Tensor:
        """[B, 3, K, H, W] -> latents [B, 16, T, h, w], in pieces of `chunk` latent frames."""
        latent_rows = video.shape[ROWS] // STRIDE
        if latent_rows < self.group.size:
            return self.vae.encode(video, chunk)
        start, stop = self._rows(latent_rows)
        own = video[:, :, :, start * STRIDE : stop * STRIDE]
        # Together, a strip may stand still where others move, and all exchange borders in every layer.
        latents = self.strip.encode(own, chunk, skip_static=self.group.size == 1)
        return self._whole(latents, latent_rows, 1)

    def decode_piece(self, latents: Tensor, first: bool) -> Tensor:
        """The next piece of a video [B, 16, t, h, w]; `first` begins a new one."""
        latent_rows = latents.shape[ROWS]
        alone = latent_rows < self.group.size
        if first:
            self._stream = {}
        net = self.vae if alone else self.strip
        start, stop = (0, latent_rows) if alone else self._rows(latent_rows)
        out = net.decode_piece(latents[:, :, :, start:stop], self._stream)
        return out if alone else self._whole(out, latent_rows, STRIDE)

    @property
    def kept(self) -> int:
        """Bytes that are kept between the pieces of a video."""
        return sum(tensor.nbytes for tensor in self._stream.values())

    def forget(self) -> None:
        """Give back what is kept between the pieces."""
        self._stream = {}

    def _rows(self, count: int) -> tuple[int, int]:
        return bounds(count, self.group.size)[self.group.index]

    def _whole(self, x: Tensor, latent_rows: int, scale: int) -> Tensor:
        """The strips of all ranks, one below the other."""
        if self.group.size == 1:
            return x
        sizes = [(stop - start) * scale for start, stop in bounds(latent_rows, self.group.size)]
        parts = self.group.gather(F.pad(x, (0, 0, 0, max(sizes) - x.shape[ROWS])))
        return torch.cat([part[:, :, :, :size] for part, size in zip(parts, sizes, strict=True)], dim=ROWS)


def bounds(rows: int, size: int) -> list[tuple[int, int]]:
    """First and last-but-one row of each rank's strip; their heights differ by one at most."""
    cuts = [rows * i // size for i in range(size + 1)]
    return list(itertools.pairwise(cuts))


def with_borders(x: Tensor, group: Group, above: int, below: int, axis: int) -> Tensor:
    """x with so many rows of its neighbours above and below it, channels last; zeros at the edges of the picture."""
    size, up, down = x.shape[axis], group.index - 1, group.index + 1
    shape = list(x.shape)
    shape[axis] += above + below
    out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=order_of(x))

    def rows(start: int, count: int) -> Tensor:
        return x.narrow(axis, start, count).movedim(1, -1).contiguous()  # as they lie

    borders, calls = [], []
    if above:
        top = torch.zeros_like(rows(0, above))
        borders.append((top, 0))
        if down < group.size:
            calls.append(_call(dist.isend, rows(size - above, above), down, group))
        if up >= 0:
            calls.append(_call(dist.irecv, top, up, group))
    if below:
        bottom = torch.zeros_like(rows(0, below))
        borders.append((bottom, above + size))
        if up >= 0:
            calls.append(_call(dist.isend, rows(0, below), up, group))
        if down < group.size:
            calls.append(_call(dist.irecv, bottom, down, group))
    works = dist.batch_isend_irecv(calls)
    middle = out.narrow(axis, above, size)
    frames = 2 if x.ndim == 5 else 0
    for whole, own in zip(middle.unbind(frames), x.unbind(frames), strict=True):
        whole.copy_(own)  # what lies together in memory is copied as a block
    for work in works:
        work.wait()
    for border, start in borders:
        border = border.movedim(-1, 1)
        out.narrow(axis, start, border.shape[axis]).copy_(border)
    return out


def _call(kind: Callable[..., Any], x: Tensor, member: int, group: Group) -> dist.P2POp:
    return dist.P2POp(kind, x, group=group.handle, group_peer=member)


def _strip_view(vae: VideoVae, group: Group) -> VideoVae:
    """A VAE on the same weights whose layers take the rows beyond a strip from the neighbours instead of padding with zeros."""
    view = copy.deepcopy(vae, {id(t): t for t in (*vae.parameters(), *vae.buffers())})
    for module in view.modules():
        if isinstance(module, CausalConv3d) and module.kernel_size[1] == 3:
            module.padding = (0, 0, 1)
            module.register_forward_pre_hook(_Borders(group, 1, 1, 3))
        elif isinstance(module, Upsample):
            convolution = module.resample[1]
            convolution.padding = (0, 1)  # type: ignore[assignment]
            convolution.register_forward_pre_hook(_Borders(group, 1, 1, 2))
        elif isinstance(module, Downsample):
            padding = module.resample[0]
            padding.padding = (0, 1, 0, 0)  # type: ignore[assignment]
            padding.register_forward_pre_hook(_Borders(group, 0, 1, 2))
        elif isinstance(module, AttentionBlock):
            module.forward = _Attention(module, group)  # type: ignore[method-assign]
    return view


class _Borders:
    """Forward pre-hook: the input with its neighbours' rows."""

    def __init__(self, group: Group, above: int, below: int, axis: int) -> None:
        self.group, self.above, self.below, self.axis = group, above, below, axis

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        x, *others = inputs
        return (with_borders(x, self.group, self.above, self.below, self.axis), *others)


class _Attention:
    """The middle block's attention: a strip's positions look at the positions of all strips."""

    def __init__(self, block: AttentionBlock, group: Group) -> None:
        self.block, self.group = block, group

    def __call__(self, x: Tensor) -> Tensor:
        frames, height = x.shape[2], x.shape[3]
        flat = rearrange(x, "b c t h w -> (b t) c h w")
        q, k, v = rearrange(self.block.to_qkv(self.block.norm(flat)), "n (three c) h w -> three n (h w) c", three=3)
        k, v = self._everyone(torch.stack((k, v)))
        out = self.block.attend(q[:, None], k[:, None], v[:, None])
        out = self.block.proj(rearrange(out, "n 1 (h w) c -> n c h w", h=height))
        return x + rearrange(out, "(b t) c h w -> b c t h w", t=frames)

    def _everyone(self, x: Tensor) -> Tensor:
        """[2, n, positions, c] of all strips, which differ in height."""
        counts = self.group.gather(torch.tensor([x.shape[2]], device=x.device)).flatten().tolist()
        parts = self.group.gather(F.pad(x, (0, 0, 0, max(counts) - x.shape[2])))
        return torch.cat([part[:, :, :count] for part, count in zip(parts, counts, strict=True)], dim=2)
