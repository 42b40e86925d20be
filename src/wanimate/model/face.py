"""Face branch: motion vectors -> face tokens, and the blocks that let video tokens look at them (model spec, 4.6 and 5.2).

Letters: B batch, K pixel frames, T = (K+3)/4 latent frames, S slots, P tokens of one latent frame, D width, N heads, d = D/N.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from wanimate.model.attention import attention
from wanimate.model.params import TransformerParams

FaceKV = tuple[Tensor, Tensor]
"""Keys and values of one fuser, [B * (T+1), S+1, N, d] each."""


class FaceEncoder(nn.Module):
    """Motion vectors [B, K, M] -> face tokens [B, T, S+1, D]; the last slot is one learned padding token."""

    def __init__(self, params: TransformerParams) -> None:
        super().__init__()
        self.slots, self.eps = params.face_slots, params.eps
        width = params.face_width
        self.conv1_local = _CausalConv1d(params.motion.width, width * params.face_slots, stride=1)
        self.conv2 = _CausalConv1d(width, width, stride=2)
        self.conv3 = _CausalConv1d(width, width, stride=2)
        self.out_proj = nn.Linear(width, params.dim)
        self.padding_tokens = nn.Parameter(torch.zeros(1, 1, 1, params.dim))

    def forward(self, motion: Tensor) -> Tensor:
        batch = motion.shape[0]
        x = self.conv1_local(motion.to(self.out_proj.weight.dtype))
        x = rearrange(x, "b k (s c) -> (b s) k c", s=self.slots)
        x = self._norm_act(x)
        x = self._norm_act(self.conv2(x))
        x = self._norm_act(self.conv3(x))
        x = rearrange(self.out_proj(x), "(b s) t d -> b t s d", b=batch)
        return torch.cat((x, self.padding_tokens.expand(*x.shape[:2], -1, -1)), dim=2)

    def _norm_act(self, x: Tensor) -> Tensor:
        return F.silu(F.layer_norm(x.float(), x.shape[-1:], eps=self.eps)).to(x.dtype)


class FaceAdapter(nn.Module):
    """One fuser for every `face_every` transformer blocks."""

    def __init__(self, params: TransformerParams) -> None:
        super().__init__()
        self.fuser_blocks = nn.ModuleList(FaceFuser(params) for _ in range(params.num_layers // params.face_every))

    def keys_values(self, face_tokens: Tensor) -> tuple[FaceKV, ...]:
        """Keys and values of all fusers for face_tokens [B, T+1, S+1, D]."""
        return tuple(block.keys_values(face_tokens) for block in self.fuser_blocks)  # type: ignore[operator]


class FaceFuser(nn.Module):
    """Cross-attention of each latent frame's tokens to that frame's own face tokens. Returns the residual, ungated."""

    def __init__(self, params: TransformerParams) -> None:
        super().__init__()
        dim = params.dim
        self.heads, self.eps = params.num_heads, params.eps
        self.linear1_kv = nn.Linear(dim, 2 * dim)
        self.linear1_q = nn.Linear(dim, dim)
        self.linear2 = nn.Linear(dim, dim)
        self.q_norm = RMSNorm(params.head_dim, params.eps)
        self.k_norm = RMSNorm(params.head_dim, params.eps)

    def keys_values(self, face_tokens: Tensor) -> FaceKV:
        tokens = F.layer_norm(face_tokens.float(), face_tokens.shape[-1:], eps=self.eps)
        kv = self.linear1_kv(tokens.to(self.k_norm.weight.dtype))
        k, v = rearrange(kv, "b t s (two n d) -> two (b t) s n d", two=2, n=self.heads)
        return self.k_norm(k), v

    def forward(self, x: Tensor, kv: FaceKV) -> Tensor:
        """x [B, (T+1) * P, D] -> residual of the same shape."""
        return self.attend_faces(x, kv)

    def attend_faces(self, x: Tensor, kv: FaceKV) -> Tensor:
        """The same for any whole frames of tokens and their keys and values."""
        batch = x.shape[0]
        normed = F.layer_norm(x.float(), x.shape[-1:], eps=self.eps)
        q = self.linear1_q(normed.to(self.q_norm.weight.dtype))
        frames = kv[0].shape[0] // batch
        q = self.q_norm(rearrange(q, "b (t p) (n d) -> (b t) p n d", t=frames, n=self.heads))
        out = rearrange(attention(q, *kv), "(b t) p n d -> b (t p) (n d)", b=batch)
        return self.linear2(out)


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last axis; statistics in float32, rounded to x's type before the weight."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return normed.to(x.dtype) * self.weight.to(x.dtype)


class _CausalConv1d(nn.Module):
    """Kernel 3 over time of [B, K, C], the first frame repeated twice in front."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(before, after, 3, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x.transpose(1, 2), (2, 0), mode="replicate")
        return self.conv(padded).transpose(1, 2)
