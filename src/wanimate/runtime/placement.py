"""The networks of a checkpoint on one device: brought in by the first job, placed for every one as its plan says.

`parallel.networks.TeamNetworks` is the same on several.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from wanimate.config import LoraUse, ParallelSettings, RuntimeSettings
from wanimate.events import Stage
from wanimate.model.fp8 import FP8
from wanimate.model.int8 import INT8
from wanimate.model.transformer import AnimateTransformer
from wanimate.runtime.backends import HAS_TRITON
from wanimate.runtime.offload import StreamedBlocks, chunk_tokens, page_lock_changes, place_blocks, stream_blocks
from wanimate.runtime.optimize import (
    TRIAL_TOKENS,
    check_attention,
    check_attention_error,
    choose_attention,
    optimize,
    optimize_at,
)
from wanimate.runtime.planning.fit import limit_gpu, plan_for
from wanimate.runtime.planning.plan import Placement, Plan, ResidentBytes, Work, vae_chunk
from wanimate.runtime.planning.sizes import is_big, networks, wanted_weights, weights_type, with_attention_error
from wanimate.runtime.sparse.control import meter_of
from wanimate.runtime.tiling import CELL, TiledVae
from wanimate.sampling.cache import Caching
from wanimate.sampling.guidance import PhasedNetwork, SegmentNetwork, guided
from wanimate.types import AttentionStep, Conditions
from wanimate.weights.checkpoint import Checkpoint, Compress, opening
from wanimate.weights.locate import CheckpointConfig
from wanimate.weights.lora import Lora
from wanimate.weights.lora_view import LoraSizes, LoraStack
from wanimate.weights.prompts import PromptEncoder


class PlacedNetworks:
    """A checkpoint's networks, where they are and why.

    plan: of the last job that was planned, None for small checkpoints. placement: where the networks are, or will be once
    they are opened. attention: name of the backend in use, "" while they are closed. It serves as the VAE of a job, wherever
    the networks are.
    """

    def __init__(
        self, folder: Path, config: CheckpointConfig, device: torch.device, runtime: RuntimeSettings = RuntimeSettings()
    ) -> None:
        runtime = with_attention_error(runtime, device, folder)
        self.folder, self.config, self.device, self.runtime = folder, config, device, runtime
        check_attention(device, runtime.attention)
        check_attention_error(device, runtime.speed, runtime.attention_error)
        self.parallel = ParallelSettings()
        self.plan: Plan | None = None
        self.attention = ""
        asked = runtime.blocks if runtime.blocks != "auto" else "resident"
        self.placement = Placement(asked, None, runtime.vae_tile and runtime.vae_tile // CELL)
        self._tokens = TRIAL_TOKENS
        self._work: Work | None = None
        self._checkpoint: Checkpoint | None = None
        self._loras: tuple[Sequence[tuple[Lora, LoraUse]], bool] = ((), False)
        self._stack: LoraStack | None = None

    @property
    def is_open(self) -> bool:
        return self._checkpoint is not None

    @property
    def checkpoint(self) -> Checkpoint:
        """The networks that `open` has brought in."""
        assert self._checkpoint is not None, "the networks are opened before they are used"
        return self._checkpoint

    def plan_job(self, work: Work, loras: Callable[[AnimateTransformer], LoraSizes] | None = None) -> Plan | None:
        """Plan a job (`plan_for`); networks that are open go where the plan wants them, and peaks of memory count anew. Where
        page-locked blocks have to make room, they are closed, to be opened again with the blocks in the file.

        Raises:
            OutOfMemory: it does not fit; the message names the nearest setting that does.
        """
        checkpoint, device = self._checkpoint, self.device
        held = ResidentBytes() if checkpoint is None else self._resident(checkpoint)
        self._tokens, self._work = work.tokens, work
        limit_gpu(self.runtime, device)
        self.plan = None
        if is_big(self.folder):
            self.plan = plan_for(self.folder, self.config, work, self.runtime, device, held=held, loras=loras)
        wanted = self.placement if self.plan is None else self.plan.placement
        if checkpoint is not None and (self.placement.blocks, wanted.blocks) == ("streamed", "mapped"):
            checkpoint = None
            self.close()
        if checkpoint is None:
            self.placement = wanted
            return self.plan
        self.place(checkpoint.transformer, wanted)
        if device.type == "cuda":
            model, runtime = checkpoint.transformer, self.runtime
            self.attention = optimize_at(
                model, device, runtime.speed, work.tokens, runtime.attention, runtime.attention_error
            )
            torch.cuda.reset_peak_memory_stats(device)
        return self.plan

    def compile_ahead(self, texts: Sequence[int]) -> None:
        """Have Triton's kernels for the planned job compiled beside what comes next (`runtime.ahead`), where there are some to
        gain by it; `texts`: tokens of its prompts, as far as they are known.

        Raises:
            InputError: the attention that is asked for cannot be had here.
        """
        plan, runtime, device = self.plan, self.runtime, self.device
        if self.is_open or plan is None or self._work is None or not (device.type == "cuda" and HAS_TRITON):
            return
        from wanimate.runtime.ahead import Shapes, compile_ahead

        wanted, work = wanted_weights(runtime, device), self._work
        nets = networks(self.folder, self.config, wanted, device)
        kind = (INT8 if wanted == "int8" else FP8) if nets.quantized else None
        params, speed = nets.params, runtime.speed
        attention = choose_attention(device, nets.dtype, params.head_dim, speed, work.tokens, runtime.attention)
        shapes = Shapes(
            params, nets.vae_params, nets.dtype, kind, speed, attention, work.size, work.length, tuple(texts),
            vae_chunk(work.size, device), self.placement.tile, self.placement.token_chunk,
        )  # fmt: skip
        compile_ahead(shapes, device)

    def open(self, prompts: PromptEncoder | None = None) -> Generator[tuple[int, int], None, Checkpoint]:
        """Bring the networks in, tensor by tensor: yields bytes read and bytes in all. `prompts` as in `load_checkpoint`.

        If it is broken off or fails, nothing is open and nothing of it stays in memory.
        """
        if self._checkpoint is not None:
            return self._checkpoint
        dtype, compress = weights_type(wanted_weights(self.runtime, self.device), self.device)
        if self.plan is None and compress == "stored":
            compress = "never"  # a small checkpoint gains nothing from expanding its weights at every use
        try:
            checkpoint = yield from self._read(dtype, compress, prompts)
            self.place(checkpoint.transformer, self.placement)
            runtime = self.runtime
            self.attention = optimize(
                checkpoint, runtime.speed, self._tokens, runtime.attention, runtime.attention_error
            )
            self._checkpoint = checkpoint
        finally:
            if self._checkpoint is None:
                checkpoint = None  # type: ignore[assignment]
                self.close()
        return self._checkpoint

    def _read(
        self, dtype: torch.dtype, compress: Compress, prompts: PromptEncoder | None
    ) -> Generator[tuple[int, int], None, Checkpoint]:
        """The networks, the blocks where they are to live; yields as `open`."""
        home = None if self.placement.blocks == "resident" else "cpu"
        return (yield from opening(self.folder, self.device, dtype, compress, home, prompts))

    def close(self) -> None:
        """Give the memory of the networks back; the next job opens them again."""
        self.release()
        checkpoint, self._checkpoint, self.attention = self._checkpoint, None, ""
        if checkpoint is not None and isinstance(checkpoint.transformer.blocks, StreamedBlocks):
            checkpoint.transformer.blocks.prefetcher.close()
        del checkpoint
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        limit_gpu(RuntimeSettings(), self.device)

    def use_loras(self, loras: Sequence[tuple[Lora, LoraUse]], fuse: bool, steps: int) -> None:
        """Have the coming segments' networks with these LoRAs. Those of the first step are added now, those of later steps when
        it is their turn. What they change of blocks in host memory is page-locked there."""
        model = self.checkpoint.transformer
        self._loras = (loras, fuse)
        self._stack = LoraStack(model, loras, fuse, lambda view: page_lock_changes(view, model))
        with suppress(torch.OutOfMemoryError):  # the first segment tries again, and then there are ways to make room
            self._stack.transformer(self._stack.active(0, steps))

    def network(self, conditions: Conditions, guidance: float, caching: Caching | None, steps: int) -> SegmentNetwork:
        """A segment's network, with the LoRAs of each step."""
        stack = self._stack
        assert stack is not None, "LoRAs are told before networks are made"
        return PhasedNetwork(
            lambda step: stack.active(step, steps),
            lambda active, start: guided(
                stack.transformer(active), conditions, guidance, caching and caching.at(start)
            ),
        )  # fmt: skip

    def attention_step(self) -> AttentionStep | None:
        """What self-attention has left out since this was last asked; None where nothing may be left out."""
        meter = meter_of(self.checkpoint.transformer)
        return None if meter is None else meter.take()

    def encode_each(self, videos: Iterable[Tensor], chunk: int = 1) -> list[Tensor]:
        """As `VideoVae.encode_each`, in tiles as the placement says."""
        return TiledVae(self.checkpoint.vae, self.placement.tile).encode_each(videos, chunk)

    def decode_pieces(self, latents: Tensor, chunk: int = 1) -> Iterator[Tensor]:
        """As `VideoVae.decode_pieces`, in tiles as the placement says."""
        yield from TiledVae(self.checkpoint.vae, self.placement.tile).decode_pieces(latents, chunk)

    def release(self) -> None:
        """Drop the LoRAs of the job."""
        self._stack, self._loras = None, ((), False)

    def place(self, model: AnimateTransformer, placement: Placement) -> None:
        """Bring a transformer where the placement wants it. Blocks in host memory stay there as they are, page-locked or in
        the mapped file, unless they are to come to the device."""
        if placement.blocks == "resident":
            place_blocks(model, self.device)
        else:
            if isinstance(model.blocks, StreamedBlocks):
                placement = replace(placement, blocks=self.placement.blocks)
            stream_blocks(model, self.device, lock=placement.blocks == "streamed")
        chunk_tokens(model, placement.token_chunk)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.placement = placement

    def shrink(self, stage: Stage) -> str | None:
        """Take less memory in this stage (`Placement.shrunk`) and say what changed; None where nothing is left to give."""
        shrunk = self.placement.shrunk(stage)
        if shrunk is None:
            return None
        self._stack = None  # its views hold copies; they are made anew
        gc.collect()
        if self._checkpoint is None:
            self.placement = shrunk[0]
            return shrunk[1]
        model = self._checkpoint.transformer
        self.place(model, shrunk[0])
        self._stack = LoraStack(model, *self._loras, lambda view: page_lock_changes(view, model))
        return shrunk[1]

    def _resident(self, checkpoint: Checkpoint) -> ResidentBytes:
        """What the open networks take; slots of streamed blocks are given back first."""
        blocks = checkpoint.transformer.blocks
        if isinstance(blocks, StreamedBlocks):
            blocks.prefetcher.clear()
        gc.collect()
        held = ResidentBytes.of(checkpoint.transformer, checkpoint.vae)
        return replace(held, host=0) if self.placement.blocks == "mapped" else held
