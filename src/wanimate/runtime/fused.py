"""Blocks and fusers with the kernels of `rows` between their matrix products: the same results, a third of the memory traffic.

Where all linear layers of a block multiply matrices of eight bits, what they get is rounded by the kernel that makes it. A
layer with hooks (a LoRA beside the weights) gets its input as it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wanimate.model.attention import attention
from wanimate.model.face import FaceFuser, FaceKV
from wanimate.model.rope import Rope
from wanimate.model.transformer import AnimateTransformer, Block, CrossAttention, CrossKV
from wanimate.runtime.kernels.attention8 import Fp8Attention
from wanimate.runtime.kernels.cross import can_cross_attend, cross_attend
from wanimate.runtime.kernels.eight import EightBits
from wanimate.runtime.kernels.rows import Rounded, common_part, residual, residual_norm, rms, rounded
from wanimate.runtime.parallel.sequence import SplitAttention
from wanimate.runtime.patches import install, method
from wanimate.runtime.sparse.control import SparseAttention
from wanimate.weights.quantize import QuantizedLinear


def fuse(model: AnimateTransformer) -> None:
    """Let the blocks and fusers of a transformer on a GPU use the kernels, for one video at a time."""
    changes = []
    for block in model.blocks.children():
        changes += [
            method(block, "before_attention", _before_attention), method(block, "mix", _mix),
            method(block, "after_attention", _after_attention),
        ]  # fmt: skip
    changes += [method(fuser, "attend_faces", _attend_faces) for fuser in model.face_adapter.fuser_blocks.children()]
    install(model, "fused blocks", changes)


def _mix(block: Block, x: Tensor, e0: Tensor, rope: Rope) -> Tensor:
    """`Block.mix`; queries and keys for attention in eight bits are written as that and nothing else."""
    me = block.self_attn
    attend: Any = me.attend
    if isinstance(attend, SplitAttention) and len(x) == 1:
        return _mix_of_all(block, attend, x, e0, rope)
    backend = _backend(attend)
    if len(x) > 1 or not isinstance(backend, EightBits):
        return Block.mix(block, x, e0, rope)
    a = _modulated(block, x, e0)
    q = backend.prepared(_product(me.q, a), me.norm_q.weight, me.norm_q.eps, rope, me.heads)
    key = _product(me.k, a), me.norm_k.weight, me.norm_k.eps, rope, me.heads
    k = backend.prepared(*key, common_part(*key))
    del key
    v = me.split(_product(me.v, a))
    del a
    mixed: Tensor = attend.rounded(q, k, v)
    return mixed


def _mix_of_all(block: Block, attend: SplitAttention, x: Tensor, e0: Tensor, rope: Rope) -> Tensor:
    """`_mix` on several GPUs: values are on their way while queries and keys are made, queries while keys are. What keys have
    in common is the only thing that the ranks have to agree on before; it goes first, as exchanges are done in order. Int8 is
    made after the exchange, as its scales are of single tokens."""
    me, backend = block.self_attn, _backend(attend.backends[0])
    a = _modulated(block, x, e0)
    key = _product(me.k, a), me.norm_k.weight, me.norm_k.eps, rope, me.heads
    eight = isinstance(backend, Fp8Attention)
    common = attend.common(common_part(*key)) if eight else None
    v = attend.send(me.split(_product(me.v, a)))
    query = _product(me.q, a), me.norm_q.weight, me.norm_q.eps, rope, me.heads
    del a
    if not eight:
        return attend.mixed(attend.send(rms(*query)), rms(*key), v)
    levels, scale = backend.prepared(*query)
    del query
    return attend.rounded((attend.send(levels), scale), backend.prepared(*key, common), v)


def _backend(attend: Any) -> Any:
    """What computes with all keys."""
    return attend.dense if isinstance(attend, SparseAttention) else attend


def _before_attention(block: Block, x: Tensor, e0: Tensor, rope: Rope) -> tuple[Tensor, Tensor, Tensor]:
    """`Block.before_attention`."""
    if len(x) > 1:
        return Block.before_attention(block, x, e0, rope)
    me, a = block.self_attn, _modulated(block, x, e0)
    q = rms(_product(me.q, a), me.norm_q.weight, me.norm_q.eps, rope, me.heads)
    k = rms(_product(me.k, a), me.norm_k.weight, me.norm_k.eps, rope, me.heads)
    return q, k, me.split(_product(me.v, a))


def _modulated(block: Block, x: Tensor, e0: Tensor) -> Tensor | Rounded:
    """What the layers before self-attention take."""
    me = block.self_attn
    shift, scale = (block.modulation.float() + e0)[0, :2]
    kind = _kind((me.q, me.k, me.v), me.norm_q.weight.dtype)
    return residual_norm(x.float(), None, None, 1 + scale, shift, block.eps, kind)[1]


def _after_attention(block: Block, x: Tensor, mixed: Tensor, e0: Tensor, cross: CrossKV) -> Tensor:
    """`Block.after_attention`."""
    if len(x) > 1:
        return Block.after_attention(block, x, mixed, e0, cross)
    gate, ffn_shift, ffn_scale, ffn_gate = (block.modulation.float() + e0)[0, 2:]
    me, other, norm = block.self_attn, block.cross_attn, block.norm3
    into, out_of = block.ffn[0], block.ffn[2]
    assert isinstance(into, nn.Linear)
    assert isinstance(out_of, nn.Linear)
    usual = me.norm_q.weight.dtype
    kind = _kind((me.o, other.q, other.o, into, out_of), usual)
    eight = kind != usual
    x = x.float()

    def rest(y: Tensor, gate: Tensor | None, weight: Tensor, bias: Tensor) -> Tensor | Rounded:
        """Adds y to the tokens, in place, and gives what the next layer takes."""
        nonlocal x
        x, normed = residual_norm(x, y, gate, weight, bias, block.eps, kind)
        return normed

    mixed = mixed.flatten(2)
    y = _product(me.o, rounded(mixed, kind) if eight else mixed)
    del mixed
    y = _cross_attend(other, rest(y, gate, norm.weight.float(), norm.bias.float()), cross, kind if eight else None)
    normed = rest(y, None, 1 + ffn_scale, ffn_shift)
    del y
    h = rounded(_product(into, normed), kind, gelu=True) if eight else _gelu_product(into, normed)
    del normed
    return residual(x, _product(out_of, h), ffn_gate)


def _cross_attend(layer: CrossAttention, x: Tensor | Rounded, cross: CrossKV, kind: torch.dtype | None) -> Tensor:
    """`CrossAttention.forward`; `kind`: of the eight bits that its output layer takes, None where it takes none."""
    q = rms(_product(layer.q, x), layer.norm_q.weight, layer.norm_q.eps, None, layer.heads)
    del x
    found = (cross_attend if can_cross_attend(q) else layer.attend)(q, cross).flatten(2)
    del q
    return _product(layer.o, found if kind is None else rounded(found, kind))


def _attend_faces(fuser: FaceFuser, x: Tensor, kv: FaceKV) -> Tensor:
    """`FaceFuser.attend_faces`."""
    if len(x) > 1:
        return FaceFuser.attend_faces(fuser, x, kv)
    width, heads = x.shape[-1], fuser.heads
    usual = fuser.q_norm.weight.dtype
    kind = _kind((fuser.linear1_q, fuser.linear2), usual)
    one, zero = torch.ones(width, device=x.device), torch.zeros(width, device=x.device)
    _, normed = residual_norm(x.float(), None, None, one, zero, fuser.eps, kind)
    q = _product(fuser.linear1_q, normed)
    q = rms(q.view(1, -1, width // heads), fuser.q_norm.weight, fuser.q_norm.eps, None, 1)
    out = attention(q.view(len(kv[0]), -1, heads, width // heads), *kv).reshape(1, -1, width)
    return _product(fuser.linear2, out if kind == usual else rounded(out, kind))


def _kind(layers: Iterable[nn.Linear], usual: torch.dtype) -> torch.dtype:
    """The type that these layers take: one of eight bits where all of them multiply it and no hook wants to see an input."""
    kinds = {
        layer.weight.dtype
        if isinstance(layer, QuantizedLinear) and layer.product is not None and not layer._forward_hooks
        else usual
        for layer in layers
    }
    return kinds.pop() if len(kinds) == 1 else usual


def _gelu_product(layer: nn.Linear, x: Tensor | Rounded) -> Tensor:
    """GELU of `_product`. Of plain bfloat16 it is one kernel of cuBLAS, which rounds once where the two round twice."""
    plain = type(layer) is nn.Linear and not layer._forward_hooks
    if plain and isinstance(x, Tensor) and x.is_cuda and x.dtype == torch.bfloat16:
        return torch._addmm_activation(layer.bias, x[0], layer.weight.t(), use_gelu=True)[None]
    return F.gelu(_product(layer, x), approximate="tanh")


def _product(layer: nn.Linear, x: Tensor | Rounded) -> Tensor:
    """A linear layer of [1, R, I], rounded already or not -> [1, R, O]."""
    if isinstance(x, Tensor):
        out: Tensor = layer(x)
        return out
    assert isinstance(layer, QuantizedLinear)
    return layer.multiplied(*x)[None]
