"""The diffusion transformer of Wan2.2-Animate on one page (model spec, section 4).

Letters: B batch, T latent frames of the clip (T+1 with the reference frame in front), h w latent rows and columns,
P = h/2 * w/2 tokens of one latent frame, L = (T+1) * P tokens, D width, N heads, d = D/N, X text tokens, I image tokens.
Names of modules and parameters are the published checkpoint's keys.

What no diffusion step changes is computed once by `prepare` and handed to every `forward` as a `Context`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from wanimate.model.attention import Attend, attention
from wanimate.model.face import FaceAdapter, FaceEncoder, FaceKV, RMSNorm
from wanimate.model.motion import MotionEncoder, random_parameter
from wanimate.model.params import TransformerParams
from wanimate.model.rope import Rope, apply_rope, rope_table


class CrossKV(NamedTuple):
    """Keys and values of one block's cross-attention: of text [B, X+1, N, d], of image tokens [B, I, N, d] or None.

    The rows of zeros that fill up the text are all alike, and so are their keys and values: the last one stands for `alike`.
    """

    k: Tensor
    v: Tensor
    alike: int
    k_image: Tensor | None
    v_image: Tensor | None

    def text(self) -> tuple[Tensor, Tensor]:
        """All keys and values of the text, [B, text length, N, d] each."""
        if self.alike == 1:
            return self.k, self.v
        k, v = (torch.cat((x, x[:, -1:].expand(-1, self.alike - 1, -1, -1)), dim=1) for x in (self.k, self.v))
        return k, v


class TokenOrder(NamedTuple):
    """`order` [L]: which token of the grid comes at each place; `place` [L]: its inverse. Tokens stay in their frames, as
    fusers see frame by frame."""

    order: Tensor
    place: Tensor


@dataclass(frozen=True)
class Context:
    """What a network call needs besides the noisy latents and the time; constant over the diffusion steps of a segment.

    pose: pose tokens of the T clip frames, [B, T * P, D], in the order of the grid; cross: keys and values of every block's
    cross-attention; face: keys and values of every fuser; order: that of the tokens in the blocks, which `rope` has too, where
    it is another one than the grid's.
    """

    grid: tuple[int, int, int]
    rope: Rope
    pose: Tensor
    cross: tuple[CrossKV, ...]
    face: tuple[FaceKV, ...]
    order: TokenOrder | None = None

    def arranged(self, order: TokenOrder) -> Context:
        """The same for blocks that get their tokens in an order."""
        assert self.order is None, "the tokens have an order"
        cos, sin = (table[order.order] for table in self.rope)
        return replace(self, rope=(cos, sin), order=order)

    def in_order(self, tokens: Tensor) -> Tensor:
        """[B, L, D] in the order of the grid -> in that of the blocks."""
        return tokens if self.order is None else tokens[:, self.order.order]

    def in_grid(self, tokens: Tensor) -> Tensor:
        """[B, L, D] in the order of the blocks -> in that of the grid."""
        return tokens if self.order is None else tokens[:, self.order.place]


class StepCacheHook(Protocol):
    """May answer for blocks of one network call, asked at three places with the tokens [B, L, D] there.

    Tokens that it is shown may be changed in place afterwards: what it wants to keep, it copies.
    """

    def enter(self, tokens: Tensor) -> Tensor | None:
        """Before the first block: what the last one would give, or None to go on."""
        ...

    def first(self, tokens: Tensor) -> Tensor | None:
        """As the second block would receive them, which is after the first face residual; otherwise as `enter`."""
        ...

    def leave(self, tokens: Tensor) -> None:
        """What the last block and fuser gave; not asked where one of the others answered."""
        ...


class AnimateTransformer(nn.Module):
    """Predicts the flow v of noisy latents x; the clean estimate is x - sigma * v."""

    def __init__(self, params: TransformerParams) -> None:
        super().__init__()
        self.params = params
        self.faces_at_once = 8
        dim = params.dim
        self.patch_embedding = nn.Conv3d(params.in_channels, dim, params.patch, params.patch)
        self.pose_patch_embedding = nn.Conv3d(params.out_channels, dim, params.patch, params.patch)
        self.text_embedding = nn.Sequential(
            nn.Linear(params.text_width, dim), nn.GELU(approximate="tanh"), nn.Linear(dim, dim)
        )
        self.time_embedding = nn.Sequential(nn.Linear(params.time_width, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.blocks = nn.ModuleList(Block(params) for _ in range(params.num_layers))
        self.head = Head(params)
        if params.image_width is not None:
            self.img_emb = ImageEmbedding(params.image_width, dim)
        self.motion_encoder = MotionEncoder(params.motion)
        self.face_adapter = FaceAdapter(params)
        self.face_encoder = FaceEncoder(params)

    def prepare(self, text: Tensor, image_tokens: Tensor | None, face: Tensor, pose_latents: Tensor) -> Context:
        """All that does not depend on the step.

        text [B, X, text width] (padded with zero rows to the text length), image_tokens [B, I, image width] or None,
        face [B, 3, K, S, S] in [-1, 1], pose_latents [B, 16, T, h, w].
        """
        return self.context(text, image_tokens, self.encode_face(face), pose_latents)

    def context(self, text: Tensor, image_tokens: Tensor | None, face_tokens: Tensor, pose_latents: Tensor) -> Context:
        """As `prepare`, with face tokens from `encode_face`."""
        text_tokens, image = self.embed_text(text), self.embed_image(image_tokens)
        alike = self.params.text_length - text_tokens.shape[1] + 1
        pose = self.pose_patch_embedding(pose_latents.to(self.dtype))
        grid = (pose.shape[2] + 1, pose.shape[3], pose.shape[4])
        assert face_tokens.shape[1] == grid[0], "face frames and pose latents disagree"
        return Context(
            grid=grid,
            rope=rope_table(grid, self.params.head_dim, pose.device),
            pose=rearrange(pose, "b d t h w -> b (t h w) d"),
            cross=tuple(block.keys_values(text_tokens, alike, image) for block in self._blocks),
            face=self.face_adapter.keys_values(face_tokens),
        )

    def forward(self, x: Tensor, t: Tensor, y: Tensor, context: Context, hook: StepCacheHook | None = None) -> Tensor:
        """x noisy latents [B, 16, T+1, h, w], t integer timesteps [B], y conditions [B, 20, T+1, h, w] -> v like x, float32."""
        e, e0 = self.embed_time(t)
        tokens = self.run_blocks(context.in_order(self.embed_video(x, y, context.pose)), e0, context, hook)
        return self.unpatchify(context.in_grid(self.head(tokens, e)), context.grid)

    def run_blocks(self, tokens: Tensor, e0: Tensor, context: Context, hook: StepCacheHook | None = None) -> Tensor:
        """Tokens [B, L, D] through all blocks and fusers, which look at nothing else of the video."""
        if hook is not None and (known := hook.enter(tokens)) is not None:
            return known
        for i, block in enumerate(self._blocks):
            tokens = block(tokens, e0, context.rope, context.cross[i])
            if i % self.params.face_every == 0:
                k = i // self.params.face_every
                tokens = tokens + self.face_adapter.fuser_blocks[k](tokens, context.face[k])
            if i == 0 and hook is not None and (known := hook.first(tokens)) is not None:
                return known
        if hook is not None:
            hook.leave(tokens)
        return tokens

    @staticmethod
    def total(parts: Tensor, context: Context) -> Tensor:
        """Sums over all tokens, [n], of a number or more for each, [n, L]; where ranks share the tokens, over all ranks."""
        return parts.sum(-1)

    @property
    def dtype(self) -> torch.dtype:
        return self.patch_embedding.weight.dtype

    @property
    def _blocks(self) -> Iterable[Block]:
        """One after the other: streamed blocks have their weights only while it is their turn."""
        return self.blocks  # type: ignore[return-value]

    def embed_video(self, x: Tensor, y: Tensor, pose: Tensor) -> Tensor:
        """Tokens [B, L, D] of the 36-channel input; pose tokens are added to the clip's frames, not to the reference."""
        video = self.patch_embedding(torch.cat((x.to(self.dtype), y.to(self.dtype)), dim=1))
        tokens = rearrange(video, "b d t h w -> b (t h w) d")
        return tokens + F.pad(pose, (0, 0, tokens.shape[1] - pose.shape[1], 0))

    def embed_time(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """e [B, D] for the head and e0 [B, 6, D] for the blocks, in float32 whatever the weights' type."""
        s = time_sinusoid(t, self.params.time_width)
        e = _linear32(self.time_embedding[2], F.silu(_linear32(self.time_embedding[0], s)))
        e0 = _linear32(self.time_projection[1], F.silu(e))
        return e, e0.unflatten(-1, (6, -1))

    def embed_text(self, text: Tensor) -> Tensor:
        """[B, X, text width] -> [B, X+1, D], or [B, X, D] of a text that fills its length.

        The rows that follow up to the text length are zeros before the embedding and are attended: the last one stands for all.
        """
        padded = F.pad(text.to(self.dtype), (0, 0, 0, min(1, self.params.text_length - text.shape[1])))
        return self.text_embedding(padded)

    def embed_image(self, image_tokens: Tensor | None) -> Tensor | None:
        """[B, I, image width] -> [B, I, D]."""
        if self.params.image_width is None:
            return None
        assert image_tokens is not None, "this network attends to image tokens"
        return self.img_emb(image_tokens.to(self.dtype))

    def encode_face(self, face: Tensor) -> Tensor:
        """Faces [B, 3, K, S, S] -> face tokens [B, T+1, slots+1, D]."""
        return self.embed_motion(self.encode_motion(face))

    def encode_motion(self, face: Tensor) -> Tensor:
        """Faces [B, 3, K, S, S] -> motion vectors [B, K, M], each of its own picture alone."""
        batch = face.shape[0]
        pictures = rearrange(face, "b c k y x -> (b k) c y x")
        motion = torch.cat([self.motion_encoder(part) for part in pictures.split(self.faces_at_once * batch)])
        return rearrange(motion, "(b k) m -> b k m", b=batch)

    def embed_motion(self, motion: Tensor) -> Tensor:
        """Motion vectors [B, K, M] -> face tokens [B, T+1, slots+1, D]; the reference frame's are zeros."""
        return F.pad(self.face_encoder(motion), (0, 0, 0, 0, 1, 0))

    def unpatchify(self, tokens: Tensor, grid: tuple[int, int, int]) -> Tensor:
        """[B, L, 4 * 16] with the channel fastest -> [B, 16, T+1, h, w]."""
        f, h, w = grid
        _, p, q = self.params.patch
        return rearrange(tokens, "b (f h w) (p q c) -> b c f (h p) (w q)", f=f, h=h, w=w, p=p, q=q)


class Block(nn.Module):
    """Self-attention and feed-forward gated by the time, cross-attention ungated. The residual stream is float32."""

    def __init__(self, params: TransformerParams) -> None:
        super().__init__()
        dim = params.dim
        self.eps = params.eps
        self.self_attn = SelfAttention(params)
        self.norm3 = nn.LayerNorm(dim, eps=params.eps)
        self.cross_attn = CrossAttention(params)
        self.ffn = nn.Sequential(
            nn.Linear(dim, params.ffn_dim), nn.GELU(approximate="tanh"), nn.Linear(params.ffn_dim, dim)
        )
        self.modulation = random_parameter(1, 6, dim, std=dim**-0.5)

    def keys_values(self, text: Tensor, alike: int, image: Tensor | None) -> CrossKV:
        return self.cross_attn.keys_values(text, alike, image)

    def forward(self, x: Tensor, e0: Tensor, rope: Rope, cross: CrossKV) -> Tensor:
        return self.after_attention(x, self.mix(x, e0, rope), e0, cross)

    def mix(self, x: Tensor, e0: Tensor, rope: Rope) -> Tensor:
        """What self-attention finds for tokens x [B, L, D]: [B, L, N, d]."""
        return self.self_attn.attend(*self.before_attention(x, e0, rope))

    def before_attention(self, x: Tensor, e0: Tensor, rope: Rope) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens x [B, L, D] -> queries, keys and values [B, L, N, d]; tokens do not look at each other."""
        shift, scale = (self.modulation.float() + e0).chunk(6, dim=1)[:2]
        a = layer_norm(x, self.eps).float() * (1 + scale) + shift
        return self.self_attn.project(a.to(self._dtype), rope)

    def after_attention(self, x: Tensor, mixed: Tensor, e0: Tensor, cross: CrossKV) -> Tensor:
        """What self-attention found, [B, L, N, d], into tokens x [B, L, D]; tokens do not look at each other."""
        gate, ffn_shift, ffn_scale, ffn_gate = (self.modulation.float() + e0).chunk(6, dim=1)[2:]
        x = x.float() + self.self_attn.o(mixed.flatten(2)).float() * gate
        c = F.layer_norm(x, x.shape[-1:], self.norm3.weight.float(), self.norm3.bias.float(), self.eps)
        x = x + self.cross_attn(c.to(self._dtype), cross).float()
        f = layer_norm(x, self.eps) * (1 + ffn_scale) + ffn_shift
        return x + self.ffn(f.to(self._dtype)).float() * ffn_gate

    @property
    def _dtype(self) -> torch.dtype:
        return self.self_attn.norm_q.weight.dtype  # that of the linears may be a quantised one


class _Attention(nn.Module):
    """What both attentions share: four linears and RMS norms of q and k over the full width, before the head split."""

    def __init__(self, params: TransformerParams) -> None:
        super().__init__()
        dim = params.dim
        self.heads = params.num_heads
        self.q, self.k, self.v, self.o = (nn.Linear(dim, dim) for _ in range(4))
        self.norm_q = RMSNorm(dim, params.eps)
        self.norm_k = RMSNorm(dim, params.eps)

    def split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1))


class SelfAttention(_Attention):
    """`attend` is where every token looks at every other: the one place that another backend, or a sequence spread over
    processes, changes."""

    attend: Attend = staticmethod(attention)

    def project(self, x: Tensor, rope: Rope) -> tuple[Tensor, Tensor, Tensor]:
        """[B, L, D] -> queries and keys, rotated by their positions, and values, [B, L, N, d] each."""
        q = apply_rope(self.split(self.norm_q(self.q(x))), rope).to(x.dtype)
        k = apply_rope(self.split(self.norm_k(self.k(x))), rope).to(x.dtype)
        return q, k, self.split(self.v(x))


class CrossAttention(_Attention):
    """Two softmaxes with one query, over text and over image tokens, summed before the output projection."""

    def __init__(self, params: TransformerParams) -> None:
        super().__init__(params)
        self.has_image = params.image_width is not None
        if self.has_image:
            self.k_img, self.v_img = nn.Linear(params.dim, params.dim), nn.Linear(params.dim, params.dim)
            self.norm_k_img = RMSNorm(params.dim, params.eps)

    def keys_values(self, text: Tensor, alike: int, image: Tensor | None) -> CrossKV:
        """Of text tokens [B, X+1, D], the last one for `alike` that are the same, and image tokens [B, I, D]."""
        k, v = self.split(self.norm_k(self.k(text))), self.split(self.v(text))
        if not self.has_image:
            return CrossKV(k, v, alike, None, None)
        assert image is not None
        return CrossKV(k, v, alike, self.split(self.norm_k_img(self.k_img(image))), self.split(self.v_img(image)))

    def forward(self, x: Tensor, kv: CrossKV) -> Tensor:
        return self.o(self.attend(self.split(self.norm_q(self.q(x))), kv).flatten(2))

    def attend(self, q: Tensor, kv: CrossKV) -> Tensor:
        """What queries [B, L, N, d] find in both."""
        out = attention(q, *kv.text())
        if kv.k_image is not None and kv.v_image is not None:
            out = out + attention(q, kv.k_image, kv.v_image)
        return out


class ImageEmbedding(nn.Module):
    """Image tokens to the transformer's width, with a norm before and after."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, dim), nn.LayerNorm(dim)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


class Head(nn.Module):
    """Final norm, modulation by e and projection to patches, in float32 whatever the weights' type."""

    def __init__(self, params: TransformerParams) -> None:
        super().__init__()
        self.eps = params.eps
        patch = params.patch[0] * params.patch[1] * params.patch[2]
        self.head = nn.Linear(params.dim, patch * params.out_channels)
        self.modulation = random_parameter(1, 2, params.dim, std=params.dim**-0.5)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        shift, scale = (self.modulation.float() + e[:, None]).chunk(2, dim=1)
        return _linear32(self.head, layer_norm(x, self.eps).float() * (1 + scale) + shift)


def time_sinusoid(t: Tensor, width: int) -> Tensor:
    """[B] -> [B, width]: cosines then sines of t * 10000^(-i / (width/2)), float64 inside, float32 out."""
    half = width // 2
    frequency = 10000.0 ** (-torch.arange(half, dtype=torch.float64, device=t.device) / half)
    angle = torch.outer(t.to(torch.float64), frequency)
    return torch.cat((angle.cos(), angle.sin()), dim=-1).float()


def layer_norm(x: Tensor, eps: float) -> Tensor:
    """Layer norm without weights, statistics in float32, result in x's type."""
    return F.layer_norm(x.float(), x.shape[-1:], eps=eps).to(x.dtype)


def _linear32(layer: nn.Module, x: Tensor) -> Tensor:
    assert isinstance(layer, nn.Linear)
    return F.linear(x, layer.weight.float(), layer.bias.float())
