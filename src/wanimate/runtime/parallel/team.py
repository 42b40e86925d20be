"""What the ranks do for a job: rank 0 calls a `Team`, every rank does its `Part` of the call."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wanimate.config import LoraUse, ParallelSettings, RuntimeSettings
from wanimate.errors import InputError, RankFailed, setting
from wanimate.model.transformer import AnimateTransformer, Context
from wanimate.runtime.optimize import TRIAL_TOKENS, quicken
from wanimate.runtime.parallel.ranks import Group, Ranks
from wanimate.runtime.parallel.sequence import SplitTransformer
from wanimate.runtime.parallel.strips import StripVae
from wanimate.runtime.planning.plan import wanted_weights, weights_type
from wanimate.sampling.cache import Caching, StepCache
from wanimate.sampling.guidance import SegmentNetwork, guided, prepared
from wanimate.types import Conditions
from wanimate.weights.checkpoint import Checkpoint, load_checkpoint
from wanimate.weights.lora import match_lora, read_lora
from wanimate.weights.lora_view import LoraStack

_STOP = "stop"


class Part:
    """One rank's share of every call. All ranks make the same calls with the same values in the same order."""

    def __init__(self, ranks: Ranks, checkpoint: Checkpoint, settings: ParallelSettings) -> None:
        self.ranks, self.checkpoint, self.settings = ranks, checkpoint, settings
        self.vae = StripVae(checkpoint.vae, ranks.everyone)
        self._half_vae = None if ranks.half is None else StripVae(checkpoint.vae, ranks.half)
        self.stack = LoraStack(checkpoint.transformer, [])
        self._sharded: dict[tuple[int, ...], AnimateTransformer] = {}
        self._network: SegmentNetwork | None = None
        self._splits_guidance = settings.split_guidance
        if settings.split_guidance and ranks.half is None:
            rule = f"the two branches of guidance need an even number of GPUs, not {ranks.count}"
            raise InputError(
                "parallel.split_guidance", True, rule, f"Give an even {setting('parallel.gpus')}, or leave it out."
            )
        SplitTransformer(checkpoint.transformer, ranks.everyone)  # refuses a count that does not divide the heads

    def use_loras(self, uses: tuple[LoraUse, ...], partial: bool, fuse: bool = False) -> None:
        """The LoRAs of the coming job; their files are read by every rank."""
        model = self.checkpoint.transformer
        self._network = None
        self._sharded.clear()
        self.stack = LoraStack(model, [(match_lora(read_lora(use.path), model, partial), use) for use in uses], fuse)

    @property
    def skipped(self) -> int:
        """Steps of the network in use that a cache has answered; the same on every rank."""
        return 0 if self._network is None else self._network.skipped

    def prepare(
        self, active: tuple[int, ...], conditions: Conditions, scale: float, caching: Caching | None = None
    ) -> None:
        """Get ready for the steps of a segment, in which the LoRAs `active` act."""
        self._network = None  # its memory is needed by the next one
        half, pair = self.ranks.half, self.ranks.pair
        if scale != 1 and self._splits_guidance and half is not None and pair is not None:
            model = SplitTransformer(self._transformer(active), half)
            unconditional = pair.index == 1
            context = prepared(model, conditions, unconditional)
            cache = None
            if caching is not None:
                cache = caching.make(lambda parts: pair.gather(model.total(parts, context))[0], context.pose.dtype)
            self._network = _Branch(model, conditions.y, context, scale, pair, cache)
        else:
            model = SplitTransformer(self._transformer(active), self.ranks.everyone)
            self._network = guided(model, conditions, scale, caching)

    def flow(self, x: Tensor, t: Tensor) -> Tensor:
        """The flow of a state [16, T+1, h, w] at timestep t []; whole on every rank."""
        assert self._network is not None, "a segment is prepared before its steps"
        return self._network(x, t)

    def encode(self, videos: tuple[Tensor, ...], chunk: int) -> list[Tensor]:
        """Two videos at once, one by each half of the ranks, where there are halves; else one after the other."""
        if len(videos) == 2 and self._half_vae is not None and self.ranks.pair is not None:
            own = self._half_vae.encode(videos[self.ranks.pair.index], chunk)
            return list(self.ranks.pair.gather(own))
        return [self.vae.encode(video, chunk) for video in videos]

    def decode_piece(self, latents: Tensor, first: bool) -> Tensor:
        return self.vae.decode_piece(latents, first)

    def _transformer(self, active: tuple[int, ...]) -> AnimateTransformer:
        twin = self.stack.transformer(active)
        if not self.settings.shard_weights:
            return twin
        if active not in self._sharded:
            from wanimate.runtime.parallel.shard import sharded  # FSDP takes a while to import

            self._sharded.clear()
            self._sharded[active] = sharded(twin, self.ranks)
        return self._sharded[active]


@dataclass(frozen=True)
class _Branch:
    """One branch of guidance; the other one's flow comes from the pair, and the conditional one's decisions, too."""

    model: SplitTransformer
    y: Tensor
    context: Context
    scale: float
    pair: Group
    cache: StepCache | None

    @property
    def skipped(self) -> int:
        return 0 if self.cache is None else self.cache.skipped

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        shortcut = None
        if self.cache is not None:
            self.cache.begin()
            shortcut = self.cache.branches[self.pair.index]
        v, unconditional = self.pair.gather(self.model(x[None], t[None], self.y[None], self.context, shortcut)[0])
        return unconditional + self.scale * (v - unconditional)


@dataclass(frozen=True)
class _TeamNetwork:
    part: Part
    flow: Callable[[Tensor, Tensor], Tensor]

    @property
    def skipped(self) -> int:
        return self.part.skipped

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return self.flow(x, t)


class Team:
    """All ranks, as rank 0 sees them: makes networks for a job, and is its VAE."""

    def __init__(self, part: Part) -> None:
        self.part = part

    def use_loras(self, uses: tuple[LoraUse, ...], partial: bool, fuse: bool = False) -> None:
        self._all("use_loras", uses, partial, fuse)

    def active(self, step: int, steps: int) -> tuple[int, ...]:
        """Which LoRAs act in `step` of `steps`."""
        return self.part.stack.active(step, steps)

    def network(
        self, active: tuple[int, ...], conditions: Conditions, scale: float, caching: Caching | None = None
    ) -> SegmentNetwork:
        """A segment's network; it is valid until the next one is made."""
        self._all("prepare", active, conditions, scale, caching)
        return _TeamNetwork(self.part, lambda x, t: self._all("flow", x, t))

    def encode_each(self, videos: Iterable[Tensor], chunk: int = 1) -> list[Tensor]:
        """As `TiledVae.encode_each`, by twos; the videos are of one shape."""
        waiting, latents = iter(videos), []
        while two := tuple(itertools.islice(waiting, 2)):
            latents += self._all("encode", two, chunk)
        return latents

    def decode_pieces(self, latents: Tensor, chunk: int = 1) -> Iterator[Tensor]:
        """[B, 16, T, h, w] -> pieces of [B, 3, K, H, W] in order, not clamped; pieces of 1 and then 4 * chunk frames."""
        frames = latents.shape[2]
        for i, piece in enumerate(
            latents.split([1] + [min(chunk, frames - i) for i in range(1, frames, chunk)], dim=2)
        ):
            yield self._all("decode_piece", piece, i == 0)

    def stop(self) -> None:
        """Let the other ranks go."""
        self.part.ranks.send((_STOP, ()))

    @torch.inference_mode()
    def _all(self, name: str, *values: Any) -> Any:
        try:
            self.part.ranks.send((name, values))
            return getattr(self.part, name)(*values)
        except RuntimeError as error:
            if is_lost_connection(error):
                raise RankFailed("another rank of the job has ended") from error
            raise


@torch.inference_mode()
def follow(part: Part) -> None:
    """Every rank but the first: do what rank 0 calls for, until it says stop."""
    while (call := part.ranks.receive())[0] != _STOP:
        name, values = call
        getattr(part, name)(*values)


def load_for(
    ranks: Ranks, folder: Path, settings: ParallelSettings, runtime: RuntimeSettings = RuntimeSettings()
) -> Checkpoint:
    """A checkpoint for one rank: on its device, but for the blocks of a transformer that is to be sharded: in host memory,
    and not quantised."""
    sharded = settings.shard_weights
    dtype, compress = weights_type(wanted_weights(runtime, ranks.device), ranks.device, sharded)
    checkpoint = load_checkpoint(folder, ranks.device, dtype, compress, blocks_on="cpu" if sharded else None)
    quicken(checkpoint, runtime.speed, TRIAL_TOKENS)
    return checkpoint


def is_lost_connection(error: BaseException) -> bool:
    """Whether an error of torch.distributed says that a process at the other end is gone."""
    text = str(error).lower()
    signs = ("connection closed", "connection reset", "broken pipe", "remote process exited", "socket timeout")
    return isinstance(error, torch.distributed.DistError) or any(sign in text for sign in signs)
