"""The causal video VAE of Wan 2.1 on one page (model spec, section 6).

Letters: B batch, C channels, K = 4(T-1)+1 pixel frames, T latent frames, H W pixels, h = H/8, w = W/8.
Names of modules and parameters are the published checkpoint's keys.

Time runs forward only: every layer needs at most its last two input frames from before. A clip can therefore go through
whole or in pieces with the same result; the pieces share a `Stream` that keeps those frames.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from wanimate.model.params import VaeParams

Stream = dict[nn.Module, Tensor]
"""For each layer with a memory in time, the input frames that its next piece needs. Empty before the first piece."""


class VideoVae(nn.Module):
    """Video in [-1, 1] <-> normalised latents. The encoder's mean is used; nothing is sampled."""

    mean: Tensor
    std: Tensor

    def __init__(self, params: VaeParams) -> None:
        super().__init__()
        self.params = params
        self.encoder = Encoder(params)
        self.conv1 = CausalConv3d(2 * params.latent, 2 * params.latent, 1)
        self.conv2 = CausalConv3d(params.latent, params.latent, 1)
        self.decoder = Decoder(params)
        shape = (1, params.latent, 1, 1, 1)
        self.register_buffer("mean", torch.tensor(params.mean).view(shape), persistent=False)
        self.register_buffer("std", torch.tensor(params.std).view(shape), persistent=False)

    @property
    def dtype(self) -> torch.dtype:
        return self.conv1.weight.dtype

    def encode(self, video: Tensor, chunk: int = 1, skip_static: bool = True) -> Tensor:
        """[B, 3, K, H, W] in [-1, 1], K = 4n+1, H and W multiples of 8 -> [B, 16, T, h, w]; `chunk` latent frames at once.

        Where the video stands still, layers are spared whose results repeat, unless `skip_static` is False.
        """
        frames = video.shape[2]
        assert frames % 4 == 1, "a clip has 4n+1 frames"
        stream: Stream = {}
        still = StaticFrames() if skip_static else None
        pieces = [1] + [min(4 * chunk, frames - i) for i in range(1, frames, 4 * chunk)]
        means = [self.encode_piece(piece, stream, still) for piece in video.split(pieces, dim=2)]
        return torch.cat(means, dim=2)

    def encode_each(self, videos: Iterable[Tensor], chunk: int = 1) -> list[Tensor]:
        """`encode` of one video after the other; each is asked for when its turn comes."""
        return [self.encode(video, chunk) for video in videos]

    def encode_piece(self, video: Tensor, stream: Stream, still: StaticFrames | None = None) -> Tensor:
        """The next piece of a video: 4n+1 frames if it is the first, else 4n."""
        video = video.to(self.dtype, memory_format=torch.channels_last_3d)
        moments = self.conv1(self.encoder(video, stream, still), stream)
        return (moments[:, : self.params.latent] - self.mean) / self.std

    def decode(self, latents: Tensor, chunk: int = 1) -> Tensor:
        """[B, 16, T, h, w] -> [B, 3, K, H, W], not clamped."""
        return torch.cat(list(self.decode_pieces(latents, chunk)), dim=2)

    def decode_pieces(self, latents: Tensor, chunk: int = 1) -> Iterator[Tensor]:
        """The decoded video in order: pieces of 1 and then 4 * chunk frames, not clamped."""
        stream: Stream = {}
        frames = latents.shape[2]
        for piece in latents.split([1] + [min(chunk, frames - i) for i in range(1, frames, chunk)], dim=2):
            yield self.decode_piece(piece, stream)

    def decode_piece(self, latents: Tensor, stream: Stream) -> Tensor:
        """The next piece of a video: one latent frame if it is the first, else any number."""
        return self.decoder(self.conv2(self.widened(latents), stream), stream)

    def widened(self, latents: Tensor) -> Tensor:
        """Normalised latents as the decoder takes them."""
        return (latents * self.std + self.mean).to(self.dtype, memory_format=torch.channels_last_3d)

    def channels_last(self) -> VideoVae:
        """Lay the weights out for channels-last convolutions, the faster ones; the results are the same."""
        for weight in self.parameters():
            if weight.ndim in (4, 5):
                layout = torch.channels_last_3d if weight.ndim == 5 else torch.channels_last
                weight.data = weight.data.contiguous(memory_format=layout)
        return self


class Encoder(nn.Module):
    """[B, 3, K, H, W] -> moments [B, 32, T, h, w]."""

    def __init__(self, params: VaeParams) -> None:
        super().__init__()
        widths = [params.base * m for m in (1, *params.multipliers)]
        last = widths[-1]
        layers: list[nn.Module] = []
        for level, (before, after) in enumerate(itertools.pairwise(widths)):
            layers += [ResidualBlock(before if i == 0 else after, after) for i in range(params.res_blocks)]
            if level < len(params.temporal):
                layers.append(Downsample(after, temporal=params.temporal[level]))
        self.conv1 = CausalConv3d(3, widths[0], 3)
        self.downsamples = nn.ModuleList(layers)
        self.middle = nn.ModuleList([ResidualBlock(last, last), AttentionBlock(last), ResidualBlock(last, last)])
        self.head = nn.ModuleList([RmsNorm(last), nn.SiLU(), CausalConv3d(last, 2 * params.latent, 3)])

    def forward(self, x: Tensor, stream: Stream, still: StaticFrames | None = None) -> Tensor:
        return (still.run if still else run)((self.conv1, *self.downsamples, *self.middle, *self.head), x, stream)


class Decoder(nn.Module):
    """[B, 16, T, h, w] -> [B, 3, K, H, W]."""

    def __init__(self, params: VaeParams) -> None:
        super().__init__()
        widths = [params.base * m for m in (params.multipliers[-1], *reversed(params.multipliers))]
        first = widths[0]
        temporal = tuple(reversed(params.temporal))
        layers: list[nn.Module] = []
        for level, (before, after) in enumerate(itertools.pairwise(widths)):
            before = before if level == 0 else before // 2
            layers += [ResidualBlock(before if i == 0 else after, after) for i in range(params.res_blocks + 1)]
            if level < len(temporal):
                layers.append(Upsample(after, temporal=temporal[level]))
        self.conv1 = CausalConv3d(params.latent, first, 3)
        self.middle = nn.ModuleList([ResidualBlock(first, first), AttentionBlock(first), ResidualBlock(first, first)])
        self.upsamples = nn.ModuleList(layers)
        self.head = nn.ModuleList([RmsNorm(widths[-1]), nn.SiLU(), CausalConv3d(widths[-1], 3, 3)])

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        return run((self.conv1, *self.middle, *self.upsamples, *self.head), x, stream)


class ResidualBlock(nn.Module):
    """Norm, SiLU, convolution, twice; a 1x1x1 shortcut where the width changes."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        first = [RmsNorm(before), nn.SiLU(), CausalConv3d(before, after, 3)]
        second = [RmsNorm(after), nn.SiLU(), nn.Identity(), CausalConv3d(after, after, 3)]
        self.residual = nn.ModuleList(first + second)
        self.shortcut = CausalConv3d(before, after, 1) if before != after else nn.Identity()

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        return run((self.shortcut,), x, stream) + run(tuple(self.residual), x, stream)


class AttentionBlock(nn.Module):
    """Single-head attention over the positions of each frame; `attend` takes and gives [frames, 1, positions, C]."""

    attend: Callable[[Tensor, Tensor, Tensor], Tensor] = staticmethod(F.scaled_dot_product_attention)

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = RmsNorm(channels, axes=2)
        self.to_qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        frames, height = x.shape[2], x.shape[3]
        flat = rearrange(x, "b c t h w -> (b t) c h w")
        q, k, v = rearrange(self.to_qkv(self.norm(flat)), "n (three c) h w -> three n 1 (h w) c", three=3)
        out = self.attend(q, k, v)
        out = self.proj(rearrange(out, "n 1 (h w) c -> n c h w", h=height))
        return x + rearrange(out, "(b t) c h w -> b c t h w", t=frames)


class Downsample(nn.Module):
    """Half the height and width; with `temporal`, N frames become 1 + (N-1)/2, the first one untouched in time."""

    def __init__(self, channels: int, temporal: bool) -> None:
        super().__init__()
        self.resample = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(channels, channels, 3, stride=2))
        self.time_conv = nn.Conv3d(channels, channels, (3, 1, 1), stride=(2, 1, 1)) if temporal else None

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        x = per_frame(self.resample, x)
        if self.time_conv is None:
            return x
        before = stream.get(self)
        stream[self] = x[:, :, -1:].clone()
        if before is not None:
            return self.time_conv(torch.cat((before, x), dim=2))
        return torch.cat((x[:, :, :1], self.time_conv(x)), dim=2) if x.shape[2] > 1 else x


def interleaved(x: Tensor) -> Tensor:
    """[B, 2C, t, H, W] -> [B, C, 2t, H, W]: half the channels are the first frame of two."""
    return rearrange(x, "b (two c) t h w -> b c (t two) h w", two=2)


class Upsample(nn.Module):
    """Twice the height and width at half the channels; with `temporal`, every frame after the first becomes two."""

    interleave: Callable[[Tensor], Tensor] = staticmethod(interleaved)

    def __init__(self, channels: int, temporal: bool) -> None:
        super().__init__()
        self.resample = nn.Sequential(
            nn.Upsample(scale_factor=2.0, mode="nearest-exact"), nn.Conv2d(channels, channels // 2, 3, padding=1)
        )
        self.time_conv = CausalConv3d(channels, 2 * channels, (3, 1, 1)) if temporal else None

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        if self.time_conv is not None:
            head = x[:, :, :0] if self in stream else x[:, :, :1]
            stream[self] = x[:, :, :0]
            tail = x[:, :, head.shape[2] :]
            if tail.shape[2]:
                tail = in_order(self.interleave(self.time_conv(tail, stream)))
            x = torch.cat((in_order(head), tail), dim=2) if head.shape[2] else tail
        return per_frame(self.resample, x)


class CausalConv3d(nn.Conv3d):
    """Convolution with zeros around the picture and, in time, only the past in front."""

    def __init__(self, before: int, after: int, kernel: int | tuple[int, int, int]) -> None:
        size = (kernel,) * 3 if isinstance(kernel, int) else kernel
        super().__init__(before, after, size, padding=(0, size[1] // 2, size[2] // 2))
        self.history = size[0] - 1

    def forward(self, x: Tensor, stream: Stream) -> Tensor:  # type: ignore[override]
        if not self.history:
            return in_order(super().forward(x))
        past = stream.get(self)
        if past is None and x.shape[2] == 1:
            # Two zero frames in front: only the last tap sees anything.
            stream[self] = in_order(F.pad(x, (0, 0, 0, 0, self.history - 1, 0)))
            weight = in_order(self.weight[:, :, -1])
            return in_order(F.conv2d(in_order(x[:, :, 0]), weight, self.bias, padding=self.padding[1:])[:, :, None])
        x = in_order(F.pad(x, (0, 0, 0, 0, self.history, 0)) if past is None else torch.cat((past, x), dim=2))
        stream[self] = x[:, :, -self.history :].clone()  # a view would keep all of x
        return super().forward(x)


def in_order(x: Tensor) -> Tensor:
    """Channels last in memory: one tensor in another order makes its successors so, and every convolution copies.

    Without oneDNN a processor's 3-D convolutions give the other order whatever they get.
    """
    if not (x.is_cuda or torch.backends.mkldnn.is_available()):
        return x
    return x.contiguous(memory_format=order_of(x))


def order_of(x: Tensor) -> torch.memory_format:
    """Channels last, for a picture [N, C, H, W] or a video [B, C, T, H, W]."""
    return torch.channels_last_3d if x.ndim == 5 else torch.channels_last


class RmsNorm(nn.Module):
    """x / ||x|| * sqrt(C) * gamma over the channels; `axes` counts the axes behind the channel axis."""

    def __init__(self, channels: int, axes: int = 3) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels, *[1] * axes))
        self.scale = channels**0.5

    def forward(self, x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=1, keepdim=True).clamp_min(1e-12)
        return x / length * (self.scale * self.gamma)


def run(layers: tuple[nn.Module, ...], x: Tensor, stream: Stream) -> Tensor:
    """Apply layers in order; those with a memory in time get the stream."""
    for layer in layers:
        x = layer(x, stream) if isinstance(layer, CausalConv3d | ResidualBlock | Downsample | Upsample) else layer(x)
    return x


class StaticFrames:
    """Runs layers over the pieces of one video and leaves out those whose results repeat, as they do where it stands still.

    A layer that gets what it got for the piece before, and whose memory that piece has left as it was, gives what it gave.
    """

    def __init__(self) -> None:
        self._piece: Tensor | None = None
        self._settled = 0
        self._reached: Tensor | None = None

    def run(self, layers: tuple[nn.Module, ...], piece: Tensor, stream: Stream) -> Tensor:
        """As `run`, bit for bit."""
        last, self._piece = self._piece, piece
        if not _same(last, piece):
            self._settled, self._reached = 0, piece
            return run(layers, piece, stream)
        assert self._reached is not None
        x = self._reached
        while self._settled < len(layers):
            layer = layers[self._settled]
            before = [stream.get(module) for module in layer.modules()]
            x = run((layer,), x, stream)
            if not all(map(_same, before, [stream.get(module) for module in layer.modules()])):
                return run(layers[self._settled + 1 :], x, stream)
            self._settled, self._reached = self._settled + 1, x
        return x


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    return a is b if a is None or b is None else torch.equal(a, b)


def per_frame(layer: nn.Module, x: Tensor) -> Tensor:
    """Apply a picture layer to each frame of [B, C, t, H, W]."""
    frames = x.shape[2]
    return rearrange(layer(rearrange(x, "b c t h w -> (b t) c h w")), "(b t) c h w -> b c t h w", t=frames)
