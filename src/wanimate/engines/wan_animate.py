"""The Wan2.2-Animate network, on one device or on several GPUs of this machine."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

import psutil
import torch

from wanimate.conditions.build import ConditionBuilder
from wanimate.conditions.read import GuidesReader
from wanimate.config import GenerateSettings, LoraUse
from wanimate.engines.base import FramesReady, SegmentResult, SegmentTask, State
from wanimate.engines.resolved import ResolvedJob
from wanimate.engines.segment import SegmentMaker
from wanimate.errors import InputError
from wanimate.events import Event, Expected, Notice, Stage, StageProgress, StageStarted
from wanimate.finish.anchor import Anchor
from wanimate.finish.record import peak_rss
from wanimate.log import log_choice
from wanimate.model.transformer import AnimateTransformer
from wanimate.runtime.heap import trim_heap
from wanimate.runtime.parallel.networks import TeamNetworks
from wanimate.runtime.patches import installed
from wanimate.runtime.placement import PlacedNetworks
from wanimate.runtime.planning.plan import vae_chunk
from wanimate.runtime.planning.sizes import is_big
from wanimate.runtime.processor import has_bf16
from wanimate.sampling.guidance import SegmentNetwork
from wanimate.types import Conditions, Mode
from wanimate.weights.checkpoint import Checkpoint, check_checkpoint, open_prompts
from wanimate.weights.locate import checkpoint_files, text_files
from wanimate.weights.lora import Lora
from wanimate.weights.prompts import PromptEncoder

MIB = 2**20
SIDE = 16
"""The VAE makes 8 x 8 pixels one latent, the transformer 2 x 2 latents one token."""
_STEP, _CONDITIONS, _FRAME, _LOAD = 1.0, 1.0, 0.05, 0.02
"""Seconds that are expected where no plan says better: of a step, of a segment's conditions, of a decoded frame, of one
hundredth of the weights."""


class WanAnimate:
    """An `engines.base.Engine`. It holds no global state but the device's memory cap, and works in any number per process.

    Args:
        networks: of a checkpoint, on one device or on several.
        text_on_cpu: the text encoder never goes to the GPU.
    """

    def __init__(self, networks: PlacedNetworks | TeamNetworks, text_on_cpu: bool = False) -> None:
        self.networks, self.text_on_cpu = networks, text_on_cpu
        self.folder, self.config, self.runtime = networks.folder, networks.config, networks.runtime
        self._prompts: PromptEncoder | None = None
        self._job: ResolvedJob | None = None
        self._loras: Sequence[tuple[Lora, LoraUse]] = ()
        self._maker: SegmentMaker | None = None

    @property
    def state(self) -> State:
        if self._maker is not None:
            return State.RUNNING
        return State.OPEN if self.networks.is_open else State.CLOSED

    @property
    def area(self) -> int:
        return self.config.defaults.area

    @property
    def device(self) -> torch.device:
        return self.networks.device

    @property
    def checkpoint(self) -> Checkpoint:
        """The networks, which have to be open."""
        return self.networks.checkpoint

    @property
    def files(self) -> list[Path]:
        """The checkpoint's files of weights, its card and its tokenizer."""
        return checkpoint_files(self.folder, self.config)

    def resolve(self, generate: GenerateSettings, mode: Mode) -> ResolvedJob:
        return ResolvedJob.of(generate, mode, self.folder, self.config, self.runtime.speed)

    def check(self, job: ResolvedJob) -> None:
        opened = self.networks.is_open  # they have been checked then
        params = self.checkpoint.transformer.params if opened else check_checkpoint(self.folder, self.config)
        self._is_new(job)  # whether umT5 and its tokenizer are there
        if job.files:
            with torch.device("meta"):
                job.matched(AnimateTransformer(params))

    def read_ahead(self, job: ResolvedJob) -> None:
        unused = set() if self.config.fixed_prompt or self._is_new(job) else set(text_files(self.folder))
        files = [] if self.networks.is_open or not is_big(self.folder) else self.files
        files = [file for file in files if file not in unused]
        if files and sum(file.stat().st_size for file in files) < psutil.virtual_memory().available // 2:
            Thread(target=_into_page_cache, args=(files,), name="read-ahead", daemon=True).start()

    def plan(self, job: ResolvedJob, size: tuple[int, int], count: int, beside: int = 0) -> Iterator[Event]:
        width, height = size
        if width % SIDE or height % SIDE:
            rule = f"the pose video is {width}x{height}, but both sides have to be multiples of {SIDE}"
            raise InputError("guides", f"{width}x{height}", rule, "Make the guides again with `wanimate preprocess`.")
        plan = self.networks.plan_job(job.work(size, count, self._is_new(job), beside), job.lora_sizes)
        if plan is not None:
            yield Notice(str(plan))

    def expected(self, job: ResolvedJob, count: int, finished: int = 0) -> list[Expected]:
        segments, plan = len(job.segments(count)) - finished, self.networks.plan
        steps, step = segments * job.settings.steps, _STEP if plan is None else plan.step_seconds
        loading = [] if self.networks.is_open else [Expected(Stage.LOAD, 100, _LOAD)]
        return [
            *loading, Expected(Stage.REFERENCE, 1, _CONDITIONS), Expected(Stage.CONDITIONS, segments, _CONDITIONS),
            Expected(Stage.DENOISE, steps, step), Expected(Stage.DECODE, count, _FRAME),
        ]  # fmt: skip

    def open(self, job: ResolvedJob, reader: GuidesReader) -> Iterator[Event]:
        self.release()
        self._job = job
        try:
            yield from self._encode_prompt(job)
            if isinstance(self.networks, PlacedNetworks):  # ranks compile as they go
                self.networks.compile_ahead(self._texts(job))
            yield from self._load()
            log_choice("device", str(self.device), "asked for" if self.runtime.device else "the best that PyTorch sees")
            yield from self._add_loras(job)
            yield StageStarted(Stage.REFERENCE)
            yield from self._notices(job)
            yield from self._encode_reference(job, reader)
        except BaseException:
            self.release()
            raise

    def segment(self, task: SegmentTask) -> Generator[Event | FramesReady, None, SegmentResult]:
        assert self._maker is not None, "the job is opened before its segments"
        assert self._job is not None
        if not self.networks.is_open:  # ranks that failed start anew
            yield from self._load()
            self._use_loras(self._job)
        return (yield from self._maker.segment(task))

    def shrink(self, stage: Stage) -> str | None:
        return self.networks.shrink(stage)

    def release(self) -> None:
        self._maker = self._job = None
        self._loras = ()
        self.networks.release()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def close(self) -> None:
        self.release()
        self._prompts = None
        self.networks.close()

    def facts(self) -> dict[str, Any]:
        return {
            "checkpoint": {"name": self.config.name, "note": self.config.note, "path": str(self.folder)},
            "device": str(self.device), "gpus": self.networks.parallel.gpus, "placement": str(self.networks.placement),
            "attention": self.networks.attention, "attention_asked": self.runtime.attention,
            "patches": self.patches(), "memory": self._memory(),
            "runtime": self.runtime.model_copy(update={"attention": self.networks.attention}).model_dump(mode="json"),
            "parallel": self.networks.parallel.model_dump(mode="json"),
            "lora": [
                {
                    "path": str(lora.path), "strength": use.strength, "steps": [use.start, use.stop],
                    "dialect": lora.dialect, "tensors": lora.targets, "unused": list(lora.unused),
                }
                for lora, use in self._loras
            ],
        }  # fmt: skip

    def patches(self) -> dict[str, list[str]]:
        """What has been put on the networks from outside (`runtime.patches`)."""
        if not self.networks.is_open:
            return {}
        return {"transformer": installed(self.checkpoint.transformer), "vae": installed(self.checkpoint.vae)}

    # The stages of `open`:

    def _encode_prompt(self, job: ResolvedJob) -> Iterator[Event]:
        """Before the transformer comes in, which leaves umT5 no room."""
        if not self._is_new(job):
            return
        assert self._prompts is not None
        yield StageStarted(Stage.PROMPT)
        self._prompts.encode(job.generate.prompt)
        if job.branches == 2:
            self._prompts.encode(job.generate.negative_prompt, negative=True)
        self._prompts.release()

    def _is_new(self, job: ResolvedJob) -> bool:
        """Whether the text encoder has to run for the job's prompts."""
        if self.config.fixed_prompt:
            return False
        if self._prompts is None:
            device = torch.device("cpu") if self.text_on_cpu else self.device
            self._prompts = open_prompts(self.folder, self.config, device)
        prompts, generate = self._prompts, job.generate
        known = prompts.is_known(generate.prompt)
        return not (known and (job.branches == 1 or prompts.is_known(generate.negative_prompt, negative=True)))

    def _texts(self, job: ResolvedJob) -> list[int]:
        """Tokens of the job's prompts, which have been encoded; a checkpoint's fixed one is not known yet."""
        if self._prompts is None:
            return []
        prompts, generate = self._prompts, job.generate
        found = [len(prompts.encode(generate.prompt))]
        if job.branches == 2:
            found.append(len(prompts.encode(generate.negative_prompt, negative=True)))
        return found

    def _load(self) -> Iterator[Event]:
        """Weights that do not fit go where they take less, and are read again."""
        yield StageStarted(Stage.LOAD)
        while not self.networks.is_open:
            try:
                for done, total in self.networks.open(self._prompts):
                    yield StageProgress(Stage.LOAD, done // MIB, max(total // MIB, 1))
            except torch.OutOfMemoryError as caught:
                reason = str(caught)
            if not self.networks.is_open:
                how = self.shrink(Stage.LOAD)
                if how is None:
                    raise torch.OutOfMemoryError(reason)
                yield Notice(f"too little memory for the weights: {how}; they are read again", "warning")

    def _add_loras(self, job: ResolvedJob) -> Iterator[Event]:
        if job.files:
            yield StageStarted(Stage.LORA)
        self._loras = job.matched(self.checkpoint.transformer)
        for lora, _ in self._loras:
            log_choice("LoRA", str(lora.path), f"{lora.dialect}, changes {lora.targets} tensors")
            if lora.unused:
                what = f"{len(lora.unused)} keys of it have no place in this network and are left out: "
                yield Notice(f"LoRA {lora.path.name}: {what}{', '.join(lora.unused)}", "warning")
        self._use_loras(job)

    def _use_loras(self, job: ResolvedJob) -> None:
        self.networks.use_loras(self._loras, job.generate.lora_fuse, job.settings.steps)

    def _notices(self, job: ResolvedJob) -> Iterator[Event]:
        speed = self.runtime.speed
        if speed != "exact" and self.device.type == "cpu" and not has_bf16(self.device):
            rule = f"speed {speed} computes like exact here: this processor does not multiply bfloat16"
            yield Notice(rule, "warning")
        if self.networks.parallel.gpus > 1 and self.device.type == "cpu":
            gpus = self.networks.parallel.gpus
            yield Notice(f"no GPU was found: {gpus} processes share the processor", "warning")
        if self.config.note:
            yield Notice(f"checkpoint {self.config.name}: {self.config.note}")
        if self.config.fixed_prompt and (job.generate.prompt or job.generate.negative_prompt):
            rule = f"the checkpoint {self.config.name} was trained with one fixed prompt: yours has no effect"
            yield Notice(rule, "warning")

    def _encode_reference(self, job: ResolvedJob, reader: GuidesReader) -> Iterator[Event]:
        """What every segment needs of the prompt and the character's picture."""
        checkpoint, generate, guides = self.checkpoint, job.generate, reader.guides
        text = checkpoint.prompts.encode(generate.prompt)
        negative = checkpoint.prompts.encode(generate.negative_prompt, negative=True) if job.branches == 2 else None
        chunk = vae_chunk(guides.size, self.device)
        builder: ConditionBuilder | None = None
        while builder is None:
            try:
                builder = ConditionBuilder(
                    reader, self.networks, checkpoint.image, text, negative, face_size=checkpoint.face_size,
                    device=self.device, chunk=chunk, anchored=job.anchored,
                )  # fmt: skip
            except torch.OutOfMemoryError as error:
                reason = str(error)
            if builder is None:
                if (how := self.shrink(Stage.REFERENCE)) is None:
                    raise torch.OutOfMemoryError(reason)
                yield Notice(f"too little memory for the character's picture: {how}", "warning")
                if not self.networks.is_open:
                    yield from self._load()
                    self._use_loras(job)
        checkpoint.release_encoders()

        def network(conditions: Conditions) -> SegmentNetwork:
            return self.networks.network(conditions, job.settings.guidance, job.caching, job.settings.steps)

        anchor = Anchor() if job.anchored else None
        self._maker = SegmentMaker(
            builder, network, self.networks, job.settings, chunk, self._stage_begins,
            attention_step=self.networks.attention_step, anchor=anchor,
        )  # fmt: skip

    def _stage_begins(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()  # the pieces that one stage leaves do not fit the next one's
        trim_heap()

    def _memory(self) -> dict[str, int]:
        """Peaks in bytes, forecast and measured; of host memory, mapped files count as far as they were resident."""
        found = {"host": peak_rss()}
        if self.device.type == "cuda":
            found |= {
                "gpu": torch.cuda.max_memory_allocated(self.device),
                "gpu_reserved": torch.cuda.max_memory_reserved(self.device),
            }
        if (plan := self.networks.plan) is not None:
            found |= {"planned_host": plan.host, "planned_gpu": plan.gpu}
        return found


def _into_page_cache(files: Sequence[Path]) -> None:
    """Have the system read files; whoever opens them next finds them in memory."""
    for file in files:
        with suppress(OSError, AttributeError), file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
