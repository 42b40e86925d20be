"""The VAE in spatial tiles: the same video from a fraction of the memory.

What looks at a whole frame (the attention in the middle) runs on whole frames of latents, where it is cheap. What is left
sees `DECODE_REACH` latents to each side when it decodes and `ENCODE_REACH` when it encodes; tiles that overlap by as much
have no seams.

Letters: T latent frames, h w latent rows and columns, K = 4(T-1)+1 pixel frames, C features.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from wanimate.model.vae import StaticFrames, Stream, VideoVae, run

DECODE_REACH = 13
"""Six 3x3 convolutions at every scale, 1 + 1/2 + 1/4 + 1/8 of a latent each, three upsamplings, the head: 12.3 latents."""
ENCODE_REACH = 9
"""The same for the encoder: 68 pixels, 8.5 latents."""
CELL = 8


@dataclass(frozen=True)
class Tile:
    """Latents `outer` along one axis are computed, of which `inner` count."""

    outer: slice
    inner: slice


def cut(length: int, side: int, reach: int) -> list[Tile]:
    """Tiles of about `side` latents that cover 0..length-1, each with `reach` more on either side where there are more."""
    count = max(1, -(-length // side))
    edges = [round(i * length / count) for i in range(count + 1)]
    return [Tile(slice(max(0, a - reach), min(length, b + reach)), slice(a, b)) for a, b in itertools.pairwise(edges)]


class TiledVae:
    """A VAE that works in tiles of `side` latents; it serves wherever the VAE itself does. `side` None is whole frames.

    A segment's pixels are gathered in host memory: tiles go one after the other, each through all its frames.
    """

    def __init__(self, vae: VideoVae, side: int | None) -> None:
        self.vae, self.side = vae, side

    def encode(self, video: Tensor, chunk: int = 1) -> Tensor:
        """As `VideoVae.encode`."""
        if self.side is None:
            return self.vae.encode(video, chunk)
        frames, encoder = video.shape[2], self.vae.encoder
        pieces = [1] + [min(4 * chunk, frames - i) for i in range(1, frames, 4 * chunk)]
        features: Tensor | None = None
        rows, columns = (cut(n // CELL, self.side, ENCODE_REACH) for n in video.shape[3:])
        for r, c in itertools.product(rows, columns):
            stream: Stream = {}
            still, parts = StaticFrames(), []
            for piece in video[..., _pixels(r.outer), _pixels(c.outer)].split(pieces, dim=2):
                piece = piece.to(self.vae.dtype, memory_format=torch.channels_last_3d)
                out = still.run((encoder.conv1, *encoder.downsamples), piece, stream)
                parts.append(out[..., _within(r), _within(c)].clone())
            tile = torch.cat(parts, dim=2)
            if features is None:
                features = tile.new_empty(*tile.shape[:3], video.shape[3] // CELL, video.shape[4] // CELL)
            features[..., r.inner, c.inner] = tile
        assert features is not None
        stream = {}
        means = []
        for part in features.split(
            [1] + [min(chunk, features.shape[2] - i) for i in range(1, features.shape[2], chunk)], 2
        ):
            moments = self.vae.conv1(run((*encoder.middle, *encoder.head), part, stream), stream)
            means.append((moments[:, : self.vae.params.latent] - self.vae.mean) / self.vae.std)
        return torch.cat(means, dim=2)

    def encode_each(self, videos: Iterable[Tensor], chunk: int = 1) -> list[Tensor]:
        """As `VideoVae.encode_each`."""
        return [self.encode(video, chunk) for video in videos]

    def decode_pieces(self, latents: Tensor, chunk: int = 1) -> Iterator[Tensor]:
        """As `VideoVae.decode_pieces`; of tiles, the pieces come when the last one is done, from host memory."""
        if self.side is None:
            yield from self.vae.decode_pieces(latents, chunk)
            return
        decoder, frames = self.vae.decoder, latents.shape[2]
        pieces = [1] + [min(chunk, frames - i) for i in range(1, frames, chunk)]
        stream: Stream = {}
        parts = []
        for piece in latents.split(pieces, dim=2):
            z = self.vae.conv2(self.vae.widened(piece), stream)
            parts.append(run((decoder.conv1, *decoder.middle), z, stream))
        features = torch.cat(parts, dim=2)
        del parts
        video = torch.empty(*latents.shape[:1], 3, 4 * frames - 3, *(CELL * n for n in latents.shape[3:]))
        rows, columns = (cut(n, self.side, DECODE_REACH) for n in latents.shape[3:])
        for r, c in itertools.product(rows, columns):
            stream, done = {}, 0
            for piece in features[..., r.outer, c.outer].split(pieces, dim=2):
                out = run(
                    (*decoder.upsamples, *decoder.head), piece.contiguous(memory_format=torch.channels_last_3d), stream
                )
                inner = out[..., _pixels(_within(r)), _pixels(_within(c))]
                video[:, :, done : done + out.shape[2], _pixels(r.inner), _pixels(c.inner)] = inner.float().cpu()
                done += out.shape[2]
        yield from video.split([1] + [4 * n for n in pieces[1:]], dim=2)


def _within(tile: Tile) -> slice:
    """`inner` as seen from `outer`."""
    return slice(tile.inner.start - tile.outer.start, tile.inner.stop - tile.outer.start)


def _pixels(latents: slice) -> slice:
    return slice(CELL * latents.start, CELL * latents.stop)
