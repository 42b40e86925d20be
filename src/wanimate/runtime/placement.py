"""The networks of a checkpoint on one device: brought in by the first job, placed for every one as its plan says."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from wanimate.config import LoraUse, ParallelSettings, RuntimeSettings
from wanimate.model.transformer import AnimateTransformer
from wanimate.runtime.offload import StreamedBlocks, page_lock_changes, settle_blocks, slice_tokens, stream_blocks
from wanimate.runtime.optimize import TRIAL_TOKENS, quicken, quicken_transformer
from wanimate.runtime.planning.fit import plan_for
from wanimate.runtime.planning.plan import Held, Placement, Plan, Work, wanted_weights, weights_type
from wanimate.runtime.tiling import CELL
from wanimate.weights.checkpoint import Card, Checkpoint, load_checkpoint
from wanimate.weights.lora import Lora
from wanimate.weights.lora_view import LoraStack, TwinSizes
from wanimate.weights.prompts import PromptEncoder


class PlacedNetworks:
    """A checkpoint's networks, where they are and why.

    plan: of the last job that was foreseen, None for small checkpoints. placement: where the networks are, or will be once
    they are opened. attention: name of the backend in use, None for PyTorch's own choice.
    """

    def __init__(
        self, folder: Path, card: Card, device: torch.device, runtime: RuntimeSettings,
        spread: ParallelSettings = ParallelSettings(),
    ) -> None:  # fmt: skip
        self.folder, self.card, self.device, self.runtime, self.spread = folder, card, device, runtime, spread
        self.plan: Plan | None = None
        self.attention: str | None = None
        asked = runtime.blocks if runtime.blocks != "auto" else "resident"
        self.placement = Placement(asked, None, runtime.vae_tile and runtime.vae_tile // CELL)
        self._tokens = TRIAL_TOKENS
        self._checkpoint: Checkpoint | None = None

    @property
    def is_open(self) -> bool:
        return self._checkpoint is not None

    @property
    def checkpoint(self) -> Checkpoint:
        """The networks, opened if they are not. Raises CheckpointError, naming the keys, if the files do not hold them."""
        return self.open()

    def foresee(self, work: Work, twins: Callable[[AnimateTransformer], TwinSizes] | None = None) -> Plan | None:
        """Plan a job (`plan_for`); networks that are open go where the plan wants them, and peaks of memory count anew. Where
        page-locked blocks have to make room, they are closed, to be opened again with the blocks in the file.

        Raises:
            OutOfMemory: it does not fit; the message names the nearest setting that does.
        """
        checkpoint, device = self._checkpoint, self.device
        held = Held() if checkpoint is None else self._held(checkpoint)
        self._tokens = work.tokens
        self.plan = plan_for(
            self.folder, self.card, work, self.runtime, device, held=held, twins=twins, spread=self.spread
        )
        wanted = self.placement if self.plan is None else self.plan.placement
        was_open = checkpoint is not None
        if (self.placement.blocks, wanted.blocks) == ("streamed", "mapped"):
            self._checkpoint = checkpoint = None
            gc.collect()
        if checkpoint is None:
            self.placement = wanted
        else:
            self.arrange(wanted)
            if device.type == "cuda":
                self.attention = quicken_transformer(checkpoint.transformer, device, self.runtime.speed, work.tokens)
        if was_open and device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        return self.plan

    def open(self, prompts: PromptEncoder | None = None) -> Checkpoint:
        """The networks; `prompts` as in `load_checkpoint`."""
        if self._checkpoint is None:
            dtype, compress = weights_type(wanted_weights(self.runtime, self.device), self.device)
            if self.plan is None and compress == "stored":
                compress = "never"  # a small checkpoint gains nothing from expanding its weights at every use
            home = None if self.placement.blocks == "resident" else "cpu"
            self._checkpoint = load_checkpoint(self.folder, self.device, dtype, compress, home, prompts)
            self.arrange(self.placement)
            self.attention = quicken(self._checkpoint, self.runtime.speed, self._tokens)
        return self._checkpoint

    def with_loras(self, loras: Sequence[tuple[Lora, LoraUse]], fuse: bool) -> LoraStack:
        """The transformer with LoRAs. What they change of blocks in host memory is page-locked there."""
        model = self.checkpoint.transformer
        return LoraStack(model, loras, fuse, lambda twin: page_lock_changes(twin, model))

    def arrange(self, placement: Placement) -> None:
        """Bring the open networks where the placement wants them. Blocks in host memory stay there as they are, page-locked
        or in the mapped file, unless they are to come to the device."""
        model = self.checkpoint.transformer
        if placement.blocks == "resident":
            settle_blocks(model, self.device)
        else:
            if isinstance(model.blocks, StreamedBlocks):
                placement = replace(placement, blocks=self.placement.blocks)
            stream_blocks(model, self.device, lock=placement.blocks == "streamed")
        slice_tokens(model, placement.rows)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.placement = placement

    def ease(self, stage: str) -> str | None:
        """Take the placement's next notch (`Placement.eased`) and say what changed; None where there is none."""
        eased = self.placement.eased(stage)
        if eased is None:
            return None
        gc.collect()
        self.arrange(eased[0])
        return eased[1]

    def _held(self, checkpoint: Checkpoint) -> Held:
        """What the open networks take; slots of streamed blocks are given back first."""
        blocks = checkpoint.transformer.blocks
        if isinstance(blocks, StreamedBlocks):
            blocks.lane.clear()
        gc.collect()
        parts = (checkpoint.transformer, checkpoint.vae)
        tensors = [t for part in parts for t in (*part.parameters(), *part.buffers())]
        gpu = sum(t.nbytes for t in tensors if t.device.type == "cuda")
        here = sum(t.nbytes for t in tensors if t.device.type == "cpu")
        return Held(gpu, 0 if self.placement.blocks == "mapped" else here)
