"""What the ranks do for a job: rank 0 calls a `Team`, and the `RankWorker` of every rank does its share of the call."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wanimate.config import LoraUse, ParallelSettings, RuntimeSettings, Speed
from wanimate.errors import InputError, setting
from wanimate.model.transformer import AnimateTransformer, Context
from wanimate.runtime.offload import chunk_tokens
from wanimate.runtime.optimize import TRIAL_TOKENS, optimize, optimize_transformer
from wanimate.runtime.parallel.ranks import Group, Ranks
from wanimate.runtime.parallel.sequence import SplitTransformer
from wanimate.runtime.parallel.strips import StripVae
from wanimate.runtime.planning.sizes import wanted_weights, weights_type
from wanimate.runtime.sparse.control import meter_of, step_of
from wanimate.sampling.cache import Caching, StepCache
from wanimate.sampling.guidance import SegmentNetwork, guided, prepared
from wanimate.types import AttentionStep, Conditions
from wanimate.weights.checkpoint import Checkpoint, drained, opening
from wanimate.weights.lora import match_lora, read_lora
from wanimate.weights.lora_view import LoraStack

_LOAD, _STOP = "load", "stop"


class RankWorker:
    """One rank's share of every call. All ranks make the same calls with the same values in the same order."""

    def __init__(
        self, ranks: Ranks, checkpoint: Checkpoint, settings: ParallelSettings, speed: Speed = "exact",
        attention_error: float = 0.0,
    ) -> None:  # fmt: skip
        self.ranks, self.checkpoint, self.settings, self.speed = ranks, checkpoint, settings, speed
        self.attention_error = attention_error
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

    def configure(self, attention: str, token_chunk: int | None) -> None:
        """Compute with this attention backend and so many tokens at once; None is all of them."""
        model, device = self.checkpoint.transformer, self.ranks.device
        if device.type == "cuda":
            optimize_transformer(model, device, self.speed, attention, self.attention_error)
        chunk_tokens(model, token_chunk)

    def use_loras(self, uses: tuple[LoraUse, ...], partial: bool, fuse: bool = False) -> None:
        """The LoRAs of the coming job; their files are read by every rank."""
        model = self.checkpoint.transformer
        self._network = None
        self._sharded.clear()
        self.stack = LoraStack(model, [(match_lora(read_lora(use.path), model, partial), use) for use in uses], fuse)

    @property
    def has_network(self) -> bool:
        """Whether what a segment's steps share is in memory."""
        return self._network is not None

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

    def attention_step(self) -> AttentionStep | None:
        """As `PlacedNetworks.attention_step`, over all ranks; the same on every rank."""
        meter = meter_of(self.checkpoint.transformer)
        if meter is None:
            return None
        sums = torch.tensor(meter.take_sums(), dtype=torch.float64, device=self.ranks.device)
        return step_of(self.ranks.everyone.gather(sums).tolist())

    def encode(self, videos: tuple[Tensor, ...], chunk: int) -> list[Tensor]:
        """Two videos at once, one by each half of the ranks, where there are halves; else one after the other."""
        if len(videos) == 2 and self._half_vae is not None and self.ranks.pair is not None:
            own = self._half_vae.encode(videos[self.ranks.pair.index], chunk)
            return list(self.ranks.pair.gather(own))
        return [self.vae.encode(video, chunk) for video in videos]

    def decode_piece(self, latents: Tensor, first: bool) -> Tensor:
        """The next piece of a video; what the segment's network held is given back before the first one."""
        self._network = None
        return self.vae.decode_piece(latents, first)

    def forget(self) -> None:
        """Give back what the VAE keeps between the pieces of a video."""
        self.vae.forget()

    def _transformer(self, active: tuple[int, ...]) -> AnimateTransformer:
        view = self.stack.transformer(active)
        if not self.settings.shard_weights:
            return view
        if active not in self._sharded:
            from wanimate.runtime.parallel.shard import sharded  # FSDP takes a while to import

            self._sharded.clear()
            self._sharded[active] = sharded(view, self.ranks)
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
        hook = None
        if self.cache is not None:
            self.cache.begin()
            hook = self.cache.branches[self.pair.index]
        v, unconditional = self.pair.gather(self.model(x[None], t[None], self.y[None], self.context, hook)[0])
        return unconditional + self.scale * (v - unconditional)


@dataclass(frozen=True)
class _TeamNetwork:
    worker: RankWorker
    flow: Callable[[Tensor, Tensor], Tensor]

    @property
    def skipped(self) -> int:
        return self.worker.skipped

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return self.flow(x, t)


class Team:
    """All ranks, as rank 0 sees them: makes networks for a job, and is its VAE.

    `worker` is rank 0's own share. A call that fails on this rank leaves the others within it: the team is `broken` then, and
    has to be ended. `lost` tells why the ranks have lost each other: asked with True it knows that they have, with False it
    says None unless one of them is gone.
    """

    def __init__(self, worker: RankWorker, lost: Callable[[bool], Exception | None]) -> None:
        self.worker, self.lost = worker, lost
        self.broken = False

    def configure(self, attention: str, token_chunk: int | None) -> None:
        self._all("configure", attention, token_chunk)

    def use_loras(self, uses: tuple[LoraUse, ...], partial: bool, fuse: bool = False) -> None:
        self._all("use_loras", uses, partial, fuse)

    def active(self, step: int, steps: int) -> tuple[int, ...]:
        """Which LoRAs act in `step` of `steps`."""
        return self.worker.stack.active(step, steps)

    def network(
        self, active: tuple[int, ...], conditions: Conditions, scale: float, caching: Caching | None = None
    ) -> SegmentNetwork:
        """A segment's network; it is valid until the next one is made, or a video is decoded."""
        self._all("prepare", active, conditions, scale, caching)
        return _TeamNetwork(self.worker, lambda x, t: self._all("flow", x, t))

    def attention_step(self) -> AttentionStep | None:
        found: AttentionStep | None = self._all("attention_step")
        return found

    def encode_each(self, videos: Iterable[Tensor], chunk: int = 1) -> list[Tensor]:
        """As `TiledVae.encode_each`, by twos; the videos are of one shape."""
        waiting, latents = iter(videos), []
        while two := tuple(itertools.islice(waiting, 2)):
            latents += self._all("encode", two, chunk)
        return latents

    def decode_pieces(self, latents: Tensor, chunk: int = 1) -> Iterator[Tensor]:
        """[B, 16, T, h, w] -> pieces of [B, 3, K, H, W] in order, not clamped; pieces of 1 and then 4 * chunk frames. No rank
        keeps anything of it afterwards, also where the caller takes only some of the pieces."""
        frames = latents.shape[2]
        try:
            for i, piece in enumerate(
                latents.split([1] + [min(chunk, frames - i) for i in range(1, frames, chunk)], dim=2)
            ):
                yield self._all("decode_piece", piece, i == 0)
        finally:
            if not self.broken:
                self._all("forget")

    def stop(self) -> None:
        """Let the other ranks go."""
        self.worker.ranks.send((_STOP, ()))

    @torch.inference_mode()
    def _all(self, name: str, *values: Any) -> Any:
        assert not self.broken, "a broken team is ended, not called"
        try:
            self.worker.ranks.send((name, values))
            return getattr(self.worker, name)(*values)
        except BaseException as error:
            self.broken = True
            if isinstance(error, RuntimeError | ValueError):  # the latter, where the group has been taken down already
                why = self.lost(is_lost_connection(error))
                if why is not None:
                    raise why from error
            raise


def load_team(
    ranks: Ranks, lost: Callable[[bool], Exception | None], folder: Path, settings: ParallelSettings, runtime: RuntimeSettings,
    token_chunk: int | None = None,
) -> Generator[tuple[int, int], None, Team]:  # fmt: skip
    """Rank 0: have every rank read the checkpoint; yields bytes read and bytes in all of its own.

    `runtime.attention` is the name of a backend, so that all ranks take the same.
    """
    values = (folder, settings, runtime, token_chunk)
    ranks.send((_LOAD, values))
    return Team((yield from worker_for(ranks, *values)), lost)


@torch.inference_mode()
def follow(ranks: Ranks, worker: RankWorker | None = None) -> None:
    """Every rank but the first: do what rank 0 calls for, until it says stop. `worker`: this rank's, if it has the weights."""
    while (call := ranks.receive())[0] != _STOP:
        name, values = call
        if name == _LOAD:
            worker = None
            worker = drained(worker_for(ranks, *values))
        else:
            getattr(worker, name)(*values)


def worker_for(
    ranks: Ranks, folder: Path, settings: ParallelSettings, runtime: RuntimeSettings, token_chunk: int | None
) -> Generator[tuple[int, int], None, RankWorker]:
    """A checkpoint for one rank: on its device, but for the blocks of a transformer that is to be sharded: in host memory,
    and not quantised."""
    sharded = settings.shard_weights
    dtype, compress = weights_type(wanted_weights(runtime, ranks.device), ranks.device, sharded)
    checkpoint = yield from opening(folder, ranks.device, dtype, compress, "cpu" if sharded else None)
    optimize(checkpoint, runtime.speed, TRIAL_TOKENS, runtime.attention, runtime.attention_error)
    chunk_tokens(checkpoint.transformer, token_chunk)
    return RankWorker(ranks, checkpoint, settings, runtime.speed, runtime.attention_error)


def is_lost_connection(error: BaseException) -> bool:
    """Whether an error of torch.distributed says that a process at the other end is gone."""
    text = str(error).lower()
    signs = (
        "connection closed", "connection reset", "broken pipe", "remote process exited", "socket timeout", "aborted",
    )  # fmt: skip
    return isinstance(error, torch.distributed.DistError) or any(sign in text for sign in signs)
