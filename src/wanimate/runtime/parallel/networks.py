"""The networks of a checkpoint on several GPUs of this machine: what `placement.PlacedNetworks` is on one.

This process is rank 0; the others are processes of their own. They start with the first job, read the weights once and stay for
the next jobs. Under a launcher such as torchrun, which has started them all, they `follow`.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from wanimate.config import LoraUse, ParallelSettings, RuntimeSettings, check_spread
from wanimate.errors import InputError, RankFailed
from wanimate.events import Stage
from wanimate.model.params import TransformerParams
from wanimate.model.transformer import AnimateTransformer
from wanimate.runtime.optimize import TRIAL_TOKENS, check_attention, check_attention_error, choose_attention
from wanimate.runtime.parallel.ranks import Ranks, check_gpus, join, launched, leave
from wanimate.runtime.parallel.team import Team, load_team
from wanimate.runtime.parallel.workers import Workers
from wanimate.runtime.planning.fit import plan_for
from wanimate.runtime.planning.plan import Placement, Plan, ResidentBytes, Work
from wanimate.runtime.planning.sizes import is_big, wanted_weights, weights_type
from wanimate.sampling.cache import Caching
from wanimate.sampling.guidance import PhasedNetwork, SegmentNetwork
from wanimate.types import AttentionStep, Conditions
from wanimate.weights.checkpoint import Checkpoint, check_checkpoint
from wanimate.weights.locate import CheckpointConfig
from wanimate.weights.lora import Lora
from wanimate.weights.lora_view import LoraSizes
from wanimate.weights.prompts import PromptEncoder

_OUT_OF_MEMORY = 3


class TeamNetworks:
    """As `PlacedNetworks`, on `parallel.gpus` GPUs, or where there is none as so many processes of the processor.

    Raises:
        InputError: settings of one GPU; a number of GPUs that this machine or the network does not have.
    """

    def __init__(
        self, folder: Path, config: CheckpointConfig, runtime: RuntimeSettings, parallel: ParallelSettings
    ) -> None:
        count = launched() if launched() > 1 else parallel.gpus
        self.folder, self.config, self.runtime = folder, config, runtime
        self.parallel = parallel.model_copy(update={"gpus": count})
        self.device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
        self.plan: Plan | None = None
        self.attention = ""
        self.placement = Placement(spread=self.parallel)
        self._params = check_checkpoint(folder, config)
        _check(runtime, self.parallel, self._params)
        check_attention(self.device, runtime.attention)
        check_attention_error(self.device, runtime.speed, runtime.attention_error)
        self._tokens = TRIAL_TOKENS
        self._group: _Group | None = None
        self._team: Team | None = None
        self._loras: tuple[tuple[LoraUse, ...], bool, bool] = ((), False, False)

    @property
    def is_open(self) -> bool:
        """Whether all ranks are there and hold the weights; one that has ended between two jobs is noticed here."""
        whole = self._group is not None and self._group.failure(False) is None
        return whole and self._team is not None and not self._team.broken

    @property
    def checkpoint(self) -> Checkpoint:
        """Rank 0's networks, which `open` has brought in."""
        assert self._team is not None, "the networks are opened before they are used"
        return self._team.worker.checkpoint

    def plan_job(self, work: Work, loras: Callable[[AnimateTransformer], LoraSizes] | None = None) -> Plan | None:
        """As on one GPU; the plan keeps to how the weights are spread."""
        held = ResidentBytes()
        if self.is_open:
            held = ResidentBytes.of(self.checkpoint.transformer, self.checkpoint.vae)
        self._tokens = work.tokens
        self.plan = None
        if is_big(self.folder):
            self.plan = plan_for(
                self.folder,
                self.config,
                work,
                self.runtime,
                self.device,
                held=held,
                loras=loras,
                spread=self.placement.spread,
            )
            self.placement = self.plan.placement
        if self.is_open:
            assert self._team is not None
            self.attention = self._best_attention()
            self._team.configure(self.attention, self.placement.token_chunk)
            if self.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(self.device)
        return self.plan

    def open(self, prompts: PromptEncoder | None = None) -> Generator[tuple[int, int], None, Checkpoint]:
        """As on one GPU; every rank reads the weights. The prompts are encoded by each rank's own encoder."""
        if self.is_open:
            return self.checkpoint
        self._end()
        try:
            self._group = _Group(self.parallel.gpus)
            self.device = self._group.ranks.device
            self.attention = self._best_attention()
            runtime = self.runtime.model_copy(update={"attention": self.attention})
            place = self.placement
            self._team = yield from load_team(
                self._group.ranks, self._lost, self.folder, place.spread, runtime, place.token_chunk
            )
        except BaseException:
            self._end()
            raise
        return self.checkpoint

    def close(self) -> None:
        """End the other ranks, and give the memory of this one back."""
        self.release()
        self._end()

    def use_loras(self, loras: Sequence[tuple[Lora, LoraUse]], fuse: bool, steps: int) -> None:
        """As on one GPU; every rank reads the LoRA files."""
        assert self._team is not None
        self._team.use_loras(tuple(use for _, use in loras), any(lora.unused for lora, _ in loras), fuse)

    def network(self, conditions: Conditions, guidance: float, caching: Caching | None, steps: int) -> SegmentNetwork:
        """As on one GPU; it is valid until the next one is made, or a video is decoded."""
        team = self._team
        assert team is not None
        return PhasedNetwork(
            lambda step: team.active(step, steps),
            lambda active, start: team.network(active, conditions, guidance, caching and caching.at(start)),
        )

    def attention_step(self) -> AttentionStep | None:
        """As on one GPU, over all ranks."""
        if not self.runtime.attention_error:
            return None
        assert self._team is not None
        return self._team.attention_step()

    def encode_each(self, videos: Iterable[Tensor], chunk: int = 1) -> list[Tensor]:
        """As `VideoVae.encode_each`, in strips."""
        assert self._team is not None
        return self._team.encode_each(videos, chunk)

    def decode_pieces(self, latents: Tensor, chunk: int = 1) -> Iterator[Tensor]:
        """As `VideoVae.decode_pieces`, in strips."""
        assert self._team is not None
        yield from self._team.decode_pieces(latents, chunk)

    def release(self) -> None:
        """Drop the LoRAs of the job and what its last segment holds, on every rank."""
        if self._team is not None and self.is_open:
            self._team.use_loras((), False)

    def shrink(self, stage: Stage) -> str | None:
        """As on one GPU. The ranks have stopped somewhere within a call, so that they start anew."""
        shrunk = self.placement.shrunk(stage)
        if shrunk is None:
            return None
        self._end()
        self.placement, how = shrunk
        return how

    def _best_attention(self) -> str:
        dtype = weights_type(wanted_weights(self.runtime, self.device), self.device)[0]
        runtime, head_dim = self.runtime, self._params.head_dim
        return choose_attention(self.device, dtype, head_dim, runtime.speed, self._tokens, runtime.attention)

    def _lost(self, sure: bool) -> Exception | None:
        """As `Team` asks; that one of the ranks found too little memory is said as this one would."""
        assert self._group is not None
        failure = self._group.failure(sure)
        if failure is not None and failure.exit_code == _OUT_OF_MEMORY:
            return torch.OutOfMemoryError(str(failure))
        return failure

    def _end(self) -> None:
        kindly = self.is_open
        group, team, self._group, self._team = self._group, self._team, None, None
        if group is not None:
            group.end(kindly, team)
        del team
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


class _Group:
    """The ranks, of which this process is the first, from when they join until they end."""

    def __init__(self, count: int) -> None:
        if torch.distributed.is_initialized():
            rule = "another engine of this process is spread over several GPUs already"
            raise InputError("parallel.gpus", count, rule, "Close it first.")
        self._workers = None if launched() > 1 else Workers(count)
        self._end_at_exit = weakref.finalize(self, lambda: None)
        if self._workers is None:
            self.ranks: Ranks = join()
            return
        self._end_at_exit = weakref.finalize(self, self._workers.end)
        try:
            self.ranks = join(self._workers.meeting, 0, count)
        except BaseException:
            self._end_at_exit()
            raise

    def failure(self, sure: bool) -> RankFailed | None:
        """Why a rank is gone; None unless one is, or the caller is `sure` of it."""
        if self._workers is not None:
            return self._workers.failure() if sure else self._workers.known_failure
        return RankFailed("another rank of the job has ended") if sure else None

    def end(self, kindly: bool, team: Team | None) -> None:
        if kindly and team is not None:
            team.stop()
            leave()  # every rank does, and some wait for the others in it
        if self._workers is not None:
            if kindly:
                self._workers.end(kindly=True)
            self._end_at_exit()
        leave(broken=True)


def _check(runtime: RuntimeSettings, parallel: ParallelSettings, params: TransformerParams) -> None:
    count = parallel.gpus
    check_spread(runtime, parallel, count)
    check_gpus(count)
    if params.num_heads % count:
        fitting = ", ".join(str(n) for n in range(1, params.num_heads + 1) if params.num_heads % n == 0)
        rule = f"it has to divide the {params.num_heads} attention heads of the network"
        raise InputError("parallel.gpus", count, rule, f"Use one of {fitting}.")
