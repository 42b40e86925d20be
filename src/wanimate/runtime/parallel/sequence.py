"""The transformer over a share of the tokens (DeepSpeed-Ulysses, arXiv 2309.14509).

Every rank has an equal share of the tokens of every latent frame, so that what looks at a frame's own face tokens needs nobody
else's tokens. Only self-attention is for all: before it, ranks exchange a share of the tokens with all heads for all
tokens with a share of the heads; after it, back again.

Letters: B batch, F = T+1 latent frames, P tokens of one latent frame, n ranks, S = ceil(P / n) tokens of a frame on a rank,
N heads, d width of a head.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from wanimate.errors import InputError
from wanimate.model.attention import Attend
from wanimate.model.transformer import AnimateTransformer, Context, StepCacheHook
from wanimate.runtime.parallel.ranks import Group, Sending
from wanimate.runtime.sparse.control import SparseAttention
from wanimate.runtime.words import words

PARTS = 2
"""Of a rank's heads, one of which is exchanged while another one is computed."""


@dataclass(frozen=True)
class TokenSplit:
    """Shares of a grid's tokens. Where P does not divide, the last shares of a frame are filled up with zeros.

    `ordered`: attention gets the tokens frame by frame, in their order, which most of it need not know.
    """

    frames: int
    tokens: int
    group: Group
    ordered: bool = False

    @classmethod
    def of(cls, grid: tuple[int, int, int], group: Group, ordered: bool = False) -> TokenSplit:
        return cls(grid[0], grid[1] * grid[2], group, ordered)

    @property
    def share(self) -> int:
        return -(-self.tokens // self.group.size)

    @property
    def filling(self) -> int:
        """Tokens of a frame, over all ranks, that are not real."""
        return self.share * self.group.size - self.tokens

    def own(self, x: Tensor) -> Tensor:
        """[B, F * P, C] -> [B, F * S, C], this rank's."""
        start = self.group.index * self.share
        mine = x.unflatten(1, (self.frames, self.tokens))[:, :, start : start + self.share]
        return F.pad(mine, (0, 0, 0, self.share - mine.shape[2])).flatten(1, 2)

    def whole(self, x: Tensor) -> Tensor:
        """[B, F * S, C] -> [B, F * P, C] on every rank."""
        parts = self.group.gather(x)
        return rearrange(parts, "n b (f s) c -> b f (n s) c", f=self.frames)[:, :, : self.tokens].flatten(1, 2)

    def total(self, parts: Tensor) -> Tensor:
        """Sums over all real tokens, [n], of numbers for this rank's, [n, F * S]; the same on every rank."""
        real = min(self.share, max(0, self.tokens - self.group.index * self.share))
        mine = parts.unflatten(-1, (self.frames, self.share))[..., :real].sum((-2, -1))
        return self.group.gather(mine).sum(0)

    def send(self, x: Tensor, parts: int) -> list[Sending]:
        """Begin to exchange [B, F * S, N, d] for all tokens of this rank's heads, in parts of its heads."""
        every = words(x).unflatten(2, (self.group.size, -1)).tensor_split(parts, dim=3)
        return [self.group.sending(rearrange(some, "b l n h d -> n b l h d"), x.dtype) for some in every]

    def all_tokens(self, sending: Sending) -> Tensor:
        """What `send` has begun: [B, F * P, N / n, d] in one order on every rank."""
        x = sending.arrived()
        if not (self.filling or self.ordered):
            x = rearrange(x, "n b l h d -> b (n l) h d")
        else:
            x = rearrange(x, "n b (f s) h d -> b f (n s) h d", f=self.frames)[:, :, : self.tokens].flatten(1, 2)
        return x.view(sending.dtype)

    def send_back(self, x: Tensor) -> Sending:
        """Begin the way back of some of this rank's heads, [B, F * P, h, d]."""
        size, dtype = self.group.size, x.dtype
        x = words(x)
        if not (self.filling or self.ordered):
            x = rearrange(x, "b (n l) h d -> n b l h d", n=size)
        else:
            x = F.pad(x.unflatten(1, (self.frames, self.tokens)), (0, 0, 0, 0, 0, self.filling))
            x = rearrange(x, "b f (n s) h d -> n b (f s) h d", n=size)
        return self.group.sending(x, dtype)

    def own_tokens(self, parts: list[Sending]) -> Tensor:
        """What `send_back` has begun for all parts of the heads, in order: [B, F * S, N, d]."""
        whole = torch.cat([sending.arrived() for sending in parts], dim=3)
        return rearrange(whole, "n b l h d -> b l (n h) d").view(parts[0].dtype)


@dataclass(frozen=True)
class SplitAttention:
    """Self-attention over the tokens of all ranks (`model.attention.Attend`): q, k, v and the result are this rank's
    [B, F * S, N, d]. Each of `backends` computes with all tokens of a part of this rank's heads. One part is on its way while
    the other one is computed.

    Whoever makes v first may `send` it, so that it is on its way while queries and keys are made.
    """

    split: TokenSplit
    backends: tuple[Attend, ...]

    @classmethod
    def of(cls, split: TokenSplit, backend: Attend, heads: int) -> SplitAttention:
        """For `heads` heads of all ranks together."""
        parts = min(PARTS, heads // split.group.size)
        if isinstance(backend, SparseAttention):
            return cls(split, tuple(replace(backend, part=part) for part in range(parts)))
        return cls(split, (backend,) * parts)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return self.mixed(q, k, self.send(v))

    def send(self, x: Tensor) -> list[Sending]:
        return self.split.send(x, len(self.backends))

    def mixed(self, q: Tensor | list[Sending], k: Tensor, v: list[Sending]) -> Tensor:
        """The same with v, and perhaps q, on their way."""
        sent = q if isinstance(q, list) else self.send(q), self.send(k), v
        parts = zip(self.backends, *sent, strict=True)
        return self._back(backend(*map(self.split.all_tokens, given)) for backend, *given in parts)

    def rounded(self, q: tuple[list[Sending], Tensor], k: tuple[Tensor, Tensor], v: list[Sending]) -> Tensor:
        """The same of queries and keys in float8, which cross as that: levels, and scales [1, N] of all heads, which are the
        same on every rank."""
        sent = q[0], self.send(k[0]), v, self._scales(q[1]), self._scales(k[1])
        whole = self.split.all_tokens
        return self._back(
            backend.rounded((whole(queries), of_queries), (whole(keys), of_keys), whole(values))
            for backend, queries, keys, values, of_queries, of_keys in zip(self.backends, *sent, strict=True)
        )

    def _back(self, found: Iterable[Tensor]) -> Tensor:
        """Results of the parts, each of which is on its way before the next one is computed."""
        return self.split.own_tokens([self.split.send_back(part) for part in found])

    def _scales(self, scale: Tensor) -> list[Tensor]:
        """Those of each part of this rank's heads."""
        mine = scale.chunk(self.split.group.size, 1)[self.split.group.index]
        return [part.contiguous() for part in mine.tensor_split(len(self.backends), dim=1)]

    def common(self, x: Tensor) -> Tensor:
        """The mean over all ranks."""
        return self.split.group.gather(x).mean(0)


class SplitTransformer:
    """A transformer whose tokens are shared out over a group; called like the transformer, on every rank with the same values.

    Raises:
        InputError: the group's size does not divide the heads.
    """

    def __init__(self, transformer: AnimateTransformer, group: Group) -> None:
        self.transformer, self.group = transformer, group
        heads = transformer.params.num_heads
        if heads % group.size:
            fitting = ", ".join(str(n) for n in range(1, heads + 1) if heads % n == 0)
            rule = f"it has to divide the {heads} attention heads of the network"
            raise InputError("parallel.gpus", group.size, rule, f"Use one of {fitting}.")

    def prepare(self, text: Tensor, image_tokens: Tensor | None, face: Tensor, pose_latents: Tensor) -> Context:
        """As the transformer's; the rotary table is this rank's share. Each rank looks at a share of the faces."""
        net = self.transformer
        context: Context = net.context(text, image_tokens, net.embed_motion(self._motion(face)), pose_latents)
        split = TokenSplit.of(context.grid, self.group)
        cos, sin = (split.own(table[None])[0] for table in context.rope)
        return replace(context, rope=(cos, sin))

    def _motion(self, face: Tensor) -> Tensor:
        """[B, 3, K, S, S] -> [B, K, M] on every rank."""
        count = face.shape[2]
        share = -(-count // self.group.size)
        own = face[:, :, self.group.index * share :][:, :, :share]
        own = F.pad(own, (0, 0, 0, 0, 0, share - own.shape[2]))
        return rearrange(self.group.gather(self.transformer.encode_motion(own)), "n b k m -> b (n k) m")[:, :count]

    def total(self, parts: Tensor, context: Context) -> Tensor:
        """As the transformer's."""
        return TokenSplit.of(context.grid, self.group).total(parts)

    def __call__(self, x: Tensor, t: Tensor, y: Tensor, context: Context, hook: StepCacheHook | None = None) -> Tensor:
        """As the transformer's forward; the flow is whole on every rank."""
        net = self.transformer
        split = TokenSplit.of(context.grid, self.group, ordered=context.order is not None)
        parts = [block.self_attn for block in net.blocks.children()]
        backends = [part.attend for part in parts]  # type: ignore[union-attr]
        for part, backend in zip(parts, backends, strict=True):
            part.attend = SplitAttention.of(split, backend, net.params.num_heads)  # type: ignore[arg-type, union-attr]
        try:
            e, e0 = net.embed_time(t)
            own = split.own(context.in_order(net.embed_video(x, y, context.pose)))
            tokens = split.whole(net.head(net.run_blocks(own, e0, context, hook), e))
            return net.unpatchify(context.in_grid(tokens), context.grid)
        finally:
            for part, backend in zip(parts, backends, strict=True):
                part.attend = backend  # type: ignore[union-attr]
