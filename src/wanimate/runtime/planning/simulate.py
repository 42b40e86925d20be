"""What a network call takes, found by running it on tensors without values: bytes alive at the worst moment, and arithmetic.

Whatever is changed in a network is seen by the forecast at once. Attention counts as the fused kernels do it: without scores.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from wanimate.model.fp8 import FP8
from wanimate.model.params import TransformerParams, VaeParams
from wanimate.model.transformer import AnimateTransformer
from wanimate.model.vae import VideoVae
from wanimate.runtime.kept import kept_json, source_hash
from wanimate.runtime.offload import chunk_tokens
from wanimate.runtime.parallel.ranks import Group, Sending
from wanimate.runtime.parallel.sequence import SplitTransformer
from wanimate.runtime.tiling import CELL, DECODE_REACH, ENCODE_REACH, cut
from wanimate.weights.changes import LowRank
from wanimate.weights.lora_view import Branches
from wanimate.weights.quantize import QuantizedLinear, is_quantizable

_CONVOLUTIONS = (torch.ops.aten.conv2d.default, torch.ops.aten.conv3d.default, torch.ops.aten.conv3d.padding)
_SMALL = 16
"""Side, in latents, of the picture that the VAE is measured with."""


@dataclass(frozen=True)
class TransformerCost:
    """Bytes besides the weights. context: what `prepare` keeps for the steps; prepare, forward: the most that is alive
    during each, the context included. One `forward`: multiplications and additions of its linear layers and of attention, and
    the bytes that all its operations read and write."""

    context: int
    prepare: int
    forward: int
    products: float
    attention: float
    traffic: float


@dataclass(frozen=True)
class VaeCost:
    """Bytes besides the weights while a segment is encoded or decoded, inputs and results on the device not counted, and
    the arithmetic of one latent frame of each."""

    encode: int
    decode: int
    encode_flops: float
    decode_flops: float


def transformer_cost(
    params: TransformerParams, dtype: torch.dtype, quantized: bool, size: tuple[int, int], length: int,
    token_chunk: int | None, rank: int = 0, processes: int = 1,
) -> TransformerCost:  # fmt: skip
    """`simulated_transformer`, kept on disk (`runtime.kept`): it takes seconds."""
    return _kept_transformer(params, dtype, quantized, size, length, token_chunk, rank, processes)


@lru_cache(maxsize=256)
def _kept_transformer(params: TransformerParams, dtype: torch.dtype, *shape: Any) -> TransformerCost:
    found = _kept([asdict(params), str(dtype), *shape], lambda: simulated_transformer(params, dtype, *shape))
    return TransformerCost(**found)


def simulated_transformer(
    params: TransformerParams, dtype: torch.dtype, quantized: bool, size: tuple[int, int], length: int,
    token_chunk: int | None, rank: int = 0, processes: int = 1,
) -> TransformerCost:  # fmt: skip
    """For a segment of `length` frames of `size` (width, height) pixels; `token_chunk` as in `chunk_tokens`. `rank`: of LoRAs
    beside the layers of the blocks, whose own products are not counted. Where several processes share the tokens, all is
    that of one of them."""
    width, height = (n // CELL for n in size)
    frames, p = (length + 3) // 4, params
    with torch.device("meta"), WithoutValues(), torch.inference_mode():
        model = hollow_transformer(p, dtype, FP8 if quantized else None)
        chunk_tokens(model, token_chunk)
        if rank:
            _add_branches(model, rank, dtype)
        image = None if p.image_width is None else torch.zeros(1, 257, p.image_width)
        face = torch.zeros(1, 3, length, p.motion.size, p.motion.size)
        pose = torch.zeros(1, p.out_channels, frames, height, width)
        text = torch.zeros(1, p.text_length, p.text_width)
        with _Alive() as preparing:
            net = model if processes == 1 else SplitTransformer(model, _OneOf(0, processes))
            context = net.prepare(text, image, face, pose)
        x = torch.zeros(1, p.out_channels, frames + 1, height, width)
        y = torch.zeros(1, p.in_channels - p.out_channels, frames + 1, height, width)
        with _Alive() as running:
            net(x, torch.zeros(1, dtype=torch.int64), y, context)
    few, fusers = len(model.blocks), p.num_layers // p.face_every
    more = _bytes(context.cross) * (p.num_layers - few) // few + _bytes(context.face) * (fusers - 1)
    kept = preparing.now + more
    tokens = (frames + 1) * height * width // 4
    products = 2 * tokens * (p.num_layers * (6 * p.dim**2 + 2 * p.dim * p.ffn_dim) + fusers * 2 * p.dim**2)
    keys = p.text_length + (257 if p.image_width else 0)
    scores = 4 * tokens * p.dim * (p.num_layers * (tokens + keys) + fusers * (p.face_slots + 1))
    return TransformerCost(
        kept, preparing.peak + more, kept + running.peak, products / processes, scores / processes,
        running.traffic * p.num_layers / few,
    )  # fmt: skip


def vae_cost(params: VaeParams, size: tuple[int, int], length: int, chunk: int, side: int | None) -> VaeCost:
    """For a segment of `length` frames of `size` (width, height) pixels, `chunk` latent frames at once, tiles of `side`."""
    width, height = (n // CELL for n in size)
    frames = (length + 3) // 4
    small, latents = _small_vae_cost(params, chunk, min(frames, 1 + 2 * chunk))
    shares, features = [], 0
    for reach in (ENCODE_REACH, DECODE_REACH):
        w, h = (max(t.outer.stop - t.outer.start for t in cut(n, side or n, reach)) for n in (width, height))
        shares.append(w * h / latents)
    tiles = 1
    if side is not None:
        features = 4 * params.base * params.multipliers[-1] * frames * height * width
        tiles = len(cut(width, side, 0)) * len(cut(height, side, 0))
    encode, decode = shares
    return VaeCost(
        int(small.encode * encode) + features, int(small.decode * decode) + 2 * features,
        small.encode_flops * encode * tiles, small.decode_flops * decode * tiles,
    )  # fmt: skip


@lru_cache(maxsize=8)
def _small_vae_cost(params: VaeParams, chunk: int, frames: int) -> tuple[VaeCost, int]:
    """Of a small picture, and its number of latents: everything grows with it. The worst is reached in the second piece."""
    key = [asdict(params), chunk, frames, _SMALL]
    return VaeCost(**_kept(key, lambda: _simulated_vae(params, chunk, frames, _SMALL))), _SMALL**2


def _simulated_vae(params: VaeParams, chunk: int, frames: int, side: int) -> VaeCost:
    found: list[tuple[int, float]] = []
    with torch.device("meta"), WithoutValues(), torch.inference_mode():
        vae = VideoVae(params).eval().channels_last()
        latents = torch.zeros(1, params.latent, frames, side, side)
        video = torch.zeros(1, 3, 4 * frames - 3, CELL * side, CELL * side)
        calls = (
            lambda: vae.encode(video, chunk, skip_static=False),
            lambda: [None for _ in vae.decode_pieces(latents, chunk)],
        )
        for call in calls:
            with _Alive() as alive:
                call()
            found.append((alive.peak, alive.flops / frames))
    (encode, encode_flops), (decode, decode_flops) = found
    return VaeCost(encode, decode, encode_flops, decode_flops)


def _kept(key: list[object], make: Callable[[], TransformerCost | VaeCost]) -> Any:
    """Fields of a cost; another version of PyTorch or of the package's own sources makes them anew."""
    sources = source_hash(tuple(sorted(Path(__file__).parents[2].rglob("*.py"))))
    return kept_json("planned", [torch.__version__, sources, *key], lambda: asdict(make()))


def _bytes(pairs: Sequence[tuple[Tensor | int | None, ...]]) -> int:
    return sum(t.nbytes for pair in pairs for t in pair if isinstance(t, Tensor))


def hollow_transformer(params: TransformerParams, dtype: torch.dtype, kind: torch.dtype | None) -> AnimateTransformer:
    """Two blocks and a fuser, which the others repeat, on the device that is the default, `meta`; `kind`: of quantised weights,
    None where they are not."""
    few = min(2, params.num_layers)
    shallow = TransformerParams(**(vars(params) | {"num_layers": few, "face_every": few}))
    model = AnimateTransformer(shallow).eval().requires_grad_(False).to(dtype)
    if kind is not None:
        for name in [name for name, _ in model.named_parameters() if is_quantizable(name)]:
            parent, _, leaf = name.removesuffix(".weight").rpartition(".")
            owner = model.get_submodule(parent)
            layer = QuantizedLinear(old := getattr(owner, leaf), kind, torch.Size((old.out_features, 1)))
            layer.bias = old.bias
            setattr(owner, leaf, layer)
    return model


def _add_branches(model: AnimateTransformer, rank: int, dtype: torch.dtype) -> None:
    for layer in model.blocks.modules():
        if isinstance(layer, nn.Linear):
            down, up = (
                torch.zeros(rank, layer.in_features, dtype=dtype),
                torch.zeros(layer.out_features, rank, dtype=dtype),
            )
            layer.register_forward_hook(Branches([(LowRank("", None, down, up, 1.0), 1.0)]))


class _OneOf(Group):
    """A member of a group that is alone here: what it would be given has the right shape and no values."""

    def gather(self, x: Tensor) -> Tensor:
        return x.new_empty(self.size, *x.shape)

    def sending(self, x: Tensor, dtype: torch.dtype) -> Sending:
        x = x.contiguous()
        return Sending(torch.empty_like(x), dtype, None, x)


class _FusedAttention(TorchFunctionMode):
    """Attention makes its result and nothing else, as the fused kernels do."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            return torch.empty_like(args[0])
        return func(*args, **(kwargs or {}))


class WithoutValues(_FusedAttention):
    """What goes to the processor stays as it is, without values."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0] if func is Tensor.cpu else super().__torch_function__(func, types, args, kwargs)


class _Alive(TorchDispatchMode):
    """Counts the bytes of tensors made while it is active: those alive `now`, the most at any moment, and those read and
    written; and the arithmetic of convolutions."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = self.traffic = self.flops = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in _CONVOLUTIONS:
            self.flops += 2 * args[1].numel() * out.numel() // out.shape[1]
        for tensor in tree_iter(out):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                key = storage._cdata
                if key not in self._sizes and not _is_view(tensor, args):
                    self._sizes[key] = storage.nbytes()
                    self.now += storage.nbytes()
                    self.peak = max(self.peak, self.now)
                    read = sum(a.nbytes for a in tree_iter(args) if isinstance(a, Tensor))
                    self.traffic += storage.nbytes() + read
                    weakref.finalize(storage, self._gone, key)
        return out

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled here; saying so to PyTorch's compiler would import it, which takes longer than the counting."""
        return False

    def _gone(self, key: int) -> None:
        self.now -= self._sizes.pop(key, 0)


def _is_view(tensor: Tensor, args: Any) -> bool:
    """Whether it shares memory with an argument that was there before the counting began."""
    mine = tensor.untyped_storage()._cdata
    return any(isinstance(a, Tensor) and a.untyped_storage()._cdata == mine for a in tree_iter(args))
