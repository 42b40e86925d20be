"""The VAE on a GPU with the kernels of `channels_last` between its convolutions: what they spare is reading and writing.

Of a residual block's two convolutions the first one's bias is added by the norm that follows, the second one's with the
block's input. Norms write each frame with the two before it as channels of one picture: the 3-D convolution over them is a
2-D one of three times the channels, which cuDNN computes up to twice as fast (benchmarks/results, `dev/LOG.md`).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wanimate.config import Speed
from wanimate.model.vae import AttentionBlock, CausalConv3d, ResidualBlock, RmsNorm, Stream, Upsample, VideoVae
from wanimate.runtime.backends import HAS_TRITON
from wanimate.runtime.patches import Change, install, method


def optimize_vae(vae: VideoVae, speed: Speed) -> None:
    """Fewer passes over memory; bfloat16 weights, unless `speed` is exact."""
    if speed != "exact":
        in_bfloat16(vae)
    if HAS_TRITON:
        fuse(vae)


def in_bfloat16(vae: VideoVae) -> None:
    """All weights and the attention in the middle."""
    for parameter in vae.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    for module in vae.modules():
        if isinstance(module, AttentionBlock):
            module.attend = wide_attention


def fuse(vae: VideoVae) -> None:
    """The kernels wherever they fit, for one video at a time; more go the usual way."""
    from wanimate.runtime.kernels.channels_last import interleaved

    fuse_norms(vae)
    fuse_biases(vae)
    changes = [method(vae.encoder.conv1, "forward", _few_channels)]
    for module in vae.modules():
        if isinstance(module, ResidualBlock):
            changes.append(method(module, "forward", _residual))
        elif isinstance(module, nn.Upsample):
            changes.append(method(module, "forward", _doubled))
        elif isinstance(module, Upsample):
            changes.append((module, "interleave", interleaved))
        elif isinstance(module, CausalConv3d) and module.kernel_size == (3, 3, 3):
            module.weight.data = _with_taps_beside_channels(module.weight.data)
    for head in (vae.encoder.head, vae.decoder.head):
        norm, conv = head[0], head[2]
        changes += [method(conv, "forward", _after(norm)), (norm, "forward", _as_it_is)]  # type: ignore[arg-type]
    install(vae, "stacked frames", changes)


def wide_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """[n, 1, L, d] each. PyTorch has no kernel for heads this wide and would compute in float32; scores are rounded here."""
    scores = (q / q.shape[-1] ** 0.5) @ k.mT
    return scores.softmax(-1, dtype=torch.float32).to(v.dtype) @ v


def fuse_biases(vae: VideoVae) -> None:
    """The bias of every convolution by a kernel of our own."""
    from wanimate.runtime.kernels.channels_last import add_bias

    def convolved(conv: nn.Conv2d | nn.Conv3d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        out = type(conv)._conv_forward(conv, x, weight, None)  # type: ignore[arg-type]
        return out if bias is None else add_bias(out, bias)

    convolutions = [part for part in vae.modules() if isinstance(part, nn.Conv2d | nn.Conv3d)]
    install(vae, "fused biases", [method(part, "_conv_forward", convolved) for part in convolutions])


def fuse_norms(vae: VideoVae) -> None:
    """One kernel for norm and SiLU wherever one follows the other; results in channels-last order. Also for training."""
    from wanimate.runtime.kernels.channels_last import norm_silu  # Triton is there only on a GPU machine

    def fused(norm: RmsNorm, x: Tensor) -> Tensor:
        return norm_silu(x, norm.gamma)

    changes: list[Change] = []
    for layers in vae.modules():
        if not isinstance(layers, nn.ModuleList):
            continue
        for norm, act in pairwise(layers):
            if isinstance(norm, RmsNorm) and isinstance(act, nn.SiLU):
                changes += [method(norm, "forward", fused), (act, "forward", _as_it_is)]
    install(vae, "fused norms", changes)


def _as_it_is(x: Tensor) -> Tensor:
    """What a part computes that another one has taken over."""
    return x


def _residual(block: ResidualBlock, x: Tensor, stream: Stream) -> Tensor:
    """`ResidualBlock.forward`, of one video."""
    from wanimate.runtime.kernels.channels_last import add_bias

    if len(x) > 1:
        return ResidualBlock.forward(block, x, stream)
    layers: Any = block.residual
    norm, _, conv, second_norm, _, _, second_conv = layers
    x = x.contiguous(memory_format=torch.channels_last_3d)
    h = _normed_and_convolved(norm, conv, x, None, stream)
    h = _normed_and_convolved(second_norm, second_conv, h, conv.bias, stream)
    bias, shortcut = second_conv.bias, block.shortcut
    if isinstance(shortcut, CausalConv3d):
        bias = bias + shortcut.bias
        x = F.conv3d(x, shortcut.weight)
    return add_bias(h, bias, x)


def _normed_and_convolved(norm: RmsNorm, conv: CausalConv3d, x: Tensor, bias: Tensor | None, stream: Stream) -> Tensor:
    """conv(SiLU(norm(x + bias))) without the convolution's own bias; x [1, C, T, H, W]. The stream keeps [1, 2C, H, W]."""
    from wanimate.runtime.kernels.channels_last import last_frames, norm_silu_stacked

    taps = norm_silu_stacked(x, bias, norm.gamma, stream.get(conv))
    stream[conv] = last_frames(taps)
    for hook in conv._forward_pre_hooks.values():  # of a strip: it adds the rows of its neighbours
        taps = hook(conv, (taps.transpose(0, 1)[None],))[0][0].transpose(0, 1)
    return _over_taps(conv, taps)


def _after(norm: RmsNorm) -> Callable[[CausalConv3d, Tensor, Stream], Tensor]:
    """`CausalConv3d.forward` of SiLU(norm(x))."""
    from wanimate.runtime.kernels.channels_last import add_bias, last_frames, norm_silu, norm_silu_stacked

    def forward(conv: CausalConv3d, x: Tensor, stream: Stream) -> Tensor:
        if len(x) > 1:
            return CausalConv3d.forward(conv, norm_silu(x, norm.gamma), stream)
        taps = norm_silu_stacked(x, None, norm.gamma, stream.get(conv))
        stream[conv] = last_frames(taps)
        assert conv.bias is not None
        return add_bias(_over_taps(conv, taps), conv.bias)

    return forward


def _few_channels(conv: CausalConv3d, x: Tensor, stream: Stream) -> Tensor:
    """`CausalConv3d.forward` of pictures, filled up to as many channels as tensor cores take at once."""
    from wanimate.runtime.kernels.channels_last import add_bias

    if len(x) > 1:
        return CausalConv3d.forward(conv, x, stream)
    past = stream.get(conv)
    frames = F.pad(x, (0, 0, 0, 0, conv.history, 0)) if past is None else torch.cat((past, x), dim=2)
    stream[conv] = frames[:, :, -conv.history :].clone()
    taps = torch.cat([frames[0, :, i : i + x.shape[2]] for i in range(conv.history + 1)]).transpose(0, 1)
    taps = F.pad(taps, (0, 0, 0, 0, 0, -len(taps[0]) % 8)).contiguous(memory_format=torch.channels_last)
    assert conv.bias is not None
    return add_bias(_over_taps(conv, taps), conv.bias)


def _over_taps(conv: CausalConv3d, taps: Tensor) -> Tensor:
    """A causal 3-D convolution, without its bias, of frames stacked as channels, [T, 3C or more, H, W] -> [1, C', T, H, W]."""
    weight = conv.weight.transpose(1, 2).flatten(1, 2)  # a view
    if taps.shape[1] > weight.shape[1]:
        weight = F.pad(weight, (0, 0, 0, 0, 0, taps.shape[1] - weight.shape[1]))
    return F.conv2d(taps, weight, padding=conv.padding[1:]).transpose(0, 1)[None]


def _with_taps_beside_channels(weight: Tensor) -> Tensor:
    """The same weight [C', C, taps, kh, kw], in memory as [C', kh, kw, taps, C]."""
    return weight.permute(0, 3, 4, 2, 1).contiguous().permute(0, 4, 3, 1, 2)


def _doubled(layer: nn.Upsample, x: Tensor) -> Tensor:
    """`nn.Upsample.forward`."""
    from wanimate.runtime.kernels.channels_last import doubled

    return doubled(x)
