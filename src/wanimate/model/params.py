"""The numbers of each network. Defaults are the published ones (model spec, section 1); small networks pass their own."""

from __future__ import annotations

from dataclasses import dataclass, field

LATENT_MEAN = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
    0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
)  # fmt: skip
LATENT_STD = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
)  # fmt: skip


@dataclass(frozen=True)
class MotionParams:
    """Motion encoder (model spec, section 5.1). `channels[i]` is the width after stage i; each stage after the first halves
    the picture, and the last one leaves 4 x 4."""

    channels: tuple[int, ...] = (32, 64, 128, 256, 512, 512, 512, 512)
    width: int = 512
    directions: int = 20
    layers: int = 5

    @property
    def size(self) -> int:
        """Side of the face picture in pixels."""
        return int(2 ** (len(self.channels) + 1))


@dataclass(frozen=True)
class TransformerParams:
    """Diffusion transformer (model spec, section 4). `image_width` None leaves out the image tokens and their attention."""

    dim: int = 5120
    ffn_dim: int = 13824
    num_heads: int = 40
    num_layers: int = 40
    in_channels: int = 36
    out_channels: int = 16
    patch: tuple[int, int, int] = (1, 2, 2)
    time_width: int = 256
    text_width: int = 4096
    text_length: int = 512
    image_width: int | None = 1280
    eps: float = 1e-6
    face_width: int = 1024
    face_slots: int = 4
    face_every: int = 5
    motion: MotionParams = field(default_factory=MotionParams)

    def __post_init__(self) -> None:
        assert self.dim % self.num_heads == 0
        assert self.head_dim % 2 == 0
        assert self.num_layers % self.face_every == 0, "the last fuser would have no weights"

    @property
    def head_dim(self) -> int:
        return self.dim // self.num_heads


@dataclass(frozen=True)
class VaeParams:
    """Causal video VAE (model spec, section 6.1)."""

    base: int = 96
    latent: int = 16
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    res_blocks: int = 2
    temporal: tuple[bool, ...] = (False, True, True)
    mean: tuple[float, ...] = LATENT_MEAN
    std: tuple[float, ...] = LATENT_STD

    def __post_init__(self) -> None:
        assert len(self.mean) == len(self.std) == self.latent
        assert len(self.temporal) == len(self.multipliers) - 1
