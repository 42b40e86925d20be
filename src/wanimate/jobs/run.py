"""The road from a job to a result: one line a stage, no tensor maths. `Animator.run` yields what happens on the way."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from wanimate.conditions.build import ConditionBuilder
from wanimate.conditions.read import GuidesReader
from wanimate.config import GenerateSettings, Job, LoraUse, OutputSettings, ParallelSettings, RuntimeSettings
from wanimate.errors import InputError, OutOfMemory, setting
from wanimate.events import Clock, Event, Finished, Notice, Stage, StageStarted, StepDone
from wanimate.finish.composite import composite
from wanimate.finish.encode import OutputWriter
from wanimate.finish.lock import OutputClaim
from wanimate.finish.record import hash_file, peak_rss, write_manifest
from wanimate.finish.sheet import sample_columns, sheet_of, write_sheet
from wanimate.jobs.resolve import Order
from wanimate.jobs.segments import LoopEvent, PixelsReady, run_segments, with_pixels
from wanimate.log import chosen
from wanimate.media.image import load_image
from wanimate.media.probe import probe
from wanimate.media.resize import exact_size
from wanimate.media.video import plan_frames
from wanimate.preprocess.drive import check, preprocess
from wanimate.preprocess.guides import load_guides
from wanimate.runtime.engine import Engine, alone, together
from wanimate.runtime.parallel.ranks import Ranks
from wanimate.runtime.parallel.team import Part, Team, follow, load_for
from wanimate.runtime.placement import PlacedNetworks
from wanimate.runtime.planning.plan import vae_chunk
from wanimate.runtime.processor import has_bf16
from wanimate.types import Clip, Frame, Frames, Guides, Mode, Result, Segment
from wanimate.weights.checkpoint import Card, Checkpoint, best_device, open_prompts, read_card
from wanimate.weights.lora import Lora
from wanimate.weights.prompts import PromptEncoder

SIDE = 16
"""The VAE makes 8 x 8 pixels one latent, the transformer 2 x 2 latents one token."""


class Animator:
    """One checkpoint, ready for any number of jobs; holds no global state.

    The weights are opened by the first job, after everything that can be wrong with its input has been checked.

    >>> for event in Animator.from_checkpoint().run(Job(image=image, video=video, out=out)):
    ...     print(event)
    """

    def __init__(
        self, folder: Path, card: Card, device: str | None = None, runtime: RuntimeSettings = RuntimeSettings(),
        ranks: Ranks | None = None, parallel: ParallelSettings = ParallelSettings(),
    ) -> None:  # fmt: skip
        self.folder, self.card, self.device, self.runtime = folder, card, device, runtime
        self.ranks, self.parallel = ranks, parallel
        self._team: Team | None = None
        self.text_on_cpu = False

    @classmethod
    def from_checkpoint(
        cls, path: Path | None = None, device: str | None = None, runtime: RuntimeSettings = RuntimeSettings(),
        ranks: Ranks | None = None, parallel: ParallelSettings = ParallelSettings(),
    ) -> Animator:  # fmt: skip
        """A checkpoint folder; None is the one in the package. `device` None is the GPU where there is one.

        With `ranks` (`runtime.parallel.ranks.join`), jobs run on all of them as `parallel` says: rank 0 runs jobs and
        then calls `dismiss`, the others call `follow`.

        Raises:
            CheckpointError: there is no such folder, or its card is not valid.
        """
        return cls(*read_card(path), device, runtime, ranks, parallel)

    @cached_property
    def placed(self) -> PlacedNetworks:
        """Where the networks are, or on several ranks, where they are foreseen to be: there they are the team's."""
        if self.ranks is None:
            return PlacedNetworks(self.folder, self.card, best_device(self.device), self.runtime)
        spread = self.parallel.model_copy(update={"gpus": self.ranks.count})
        return PlacedNetworks(self.folder, self.card, self.ranks.device, self.runtime, spread)

    @property
    def checkpoint(self) -> Checkpoint:
        """The networks. Raises CheckpointError, naming the keys, if the files do not hold them."""
        return self._opened(None)

    def _opened(self, prompts: PromptEncoder | None) -> Checkpoint:
        if self.ranks is None:
            return self.placed.open(prompts)
        if self._team is None:
            checkpoint = load_for(self.ranks, self.folder, self.parallel, self.runtime)
            self._team = Team(Part(self.ranks, checkpoint, self.parallel))
        return self._team.part.checkpoint

    def follow(self) -> None:
        """Ranks but the first: work for the first one's jobs until it dismisses this one."""
        assert self.ranks is not None
        follow(Part(self.ranks, load_for(self.ranks, self.folder, self.parallel, self.runtime), self.parallel))

    def dismiss(self) -> None:
        """Rank 0: let the other ranks go, after the last job."""
        if self.ranks is not None:
            assert self.checkpoint
            assert self._team is not None
            self._team.stop()

    def run(self, job: Job) -> Iterator[Event]:
        """The character of `job.image` performs what happens in `job.video`, in its own picture or in the clip's scene.

        The last event is `Finished`. Closing the iterator cancels the job; nothing half-written is left then.

        Raises:
            InputError: an input cannot be used. OutputError: the result cannot be written. OutOfMemory.
        """
        clock = Clock()
        order = self._order(job.generate, job.mode)
        check(job.mode, job.preprocess)
        inputs = {"image": job.image, "video": job.video}
        if job.preprocess.mask is not None:
            inputs["mask"] = job.preprocess.mask
        with OutputClaim(job.out, job.output.codec, tuple(inputs.values())) as claim, _guides_folder(job) as folder:
            clip = probe(job.video, job.preprocess.limits)
            image = load_image(job.image)
            area = job.preprocess.area or self.card.defaults.area
            making = preprocess(job.mode, clip, image, job.preprocess, folder, area)
            width, height = (clip.width, clip.height) if job.mode == "replacement" else image.shape[1::-1]
            size = exact_size(width, height, area)
            count = len(plan_frames(clip, job.preprocess.fps, job.preprocess.max_fps)[0])
            if order.warning:
                yield Notice(order.warning, "warning")
            engine = yield from self._load(clock, order, size, count)
            reader = _reading((yield from clock.watch(making)), order)
            yield from self._finish(reader, job.out, order, engine, job.output, claim, clock, clip, inputs, job)

    def generate(
        self, guides: Path | Guides, out: Path, generate: GenerateSettings = GenerateSettings(),
        output: OutputSettings = OutputSettings(),
    ) -> Iterator[Event]:  # fmt: skip
        """The same from a guides folder, ours or a published one. Its sound is the clip's, where the folder names one."""
        clock = Clock()
        with OutputClaim(out, output.codec) as claim:
            loaded = guides if isinstance(guides, Guides) else load_guides(guides)
            order = self._order(generate, loaded.mode)
            if order.warning:
                yield Notice(order.warning, "warning")
            reader = _reading(loaded, order)
            engine = yield from self._load(clock, order, loaded.size, loaded.count)
            source = Path(loaded.manifest.get("source", {}).get("path", ""))
            clip = probe(source, None) if source.is_file() else None
            inputs = {"guides": loaded.folder or Path()}
            yield from self._finish(reader, out, order, engine, output, claim, clock, clip, inputs, None)

    def _order(self, generate: GenerateSettings, mode: Mode) -> Order:
        return Order.of(generate, mode, self.folder, self.card, self.runtime.speed)

    def _load(self, clock: Clock, order: Order, size: tuple[int, int], count: int) -> Generator[Event, None, Engine]:
        """Plan, encode the prompts, and only then bring the transformer in, with its LoRAs."""
        generate, device = order.generate, self.placed.device
        is_open = self.placed.is_open if self.ranks is None else self._team is not None
        prompts = self.checkpoint.prompts if is_open else None
        if prompts is None and not self.card.fixed_prompt:
            prompts = open_prompts(self.folder, self.card, torch.device("cpu") if self.text_on_cpu else device)
        new = prompts is not None and not (
            prompts.is_known(generate.prompt)
            and (order.branches == 1 or prompts.is_known(generate.negative_prompt, negative=True))
        )
        if self.ranks is None or not is_open:
            plan = self.placed.foresee(order.work(size, count, new), order.twins)
            if plan is not None:
                yield Notice(str(plan))
        if prompts is not None and new:
            yield from clock.start(Stage.PROMPT)
            prompts.encode(generate.prompt)
            if order.branches == 2:
                prompts.encode(generate.negative_prompt, negative=True)
            prompts.release()
        yield from clock.start(Stage.LOAD)
        self._opened(prompts)
        why = "asked for" if self.device else "the best that PyTorch sees"
        chosen("device", str(device), why)
        if order.files:
            yield from clock.start(Stage.LORA)
        loras = order.matched(self.checkpoint.transformer)
        if self._team is None:
            engine = alone(self.placed, loras, generate, order.caching, order.settings.steps)
        else:
            engine = together(self._team, loras, generate, order.caching, order.settings.steps)
        yield from clock.stop()
        if self.runtime.speed != "exact" and device.type == "cpu" and not has_bf16(device):
            kind = self.runtime.speed
            yield Notice(f"speed {kind} computes like exact here: this processor does not multiply bfloat16", "warning")
        if self.card.note:
            yield Notice(f"checkpoint {self.card.name}: {self.card.note}")
        return engine

    def _finish(
        self, reader: GuidesReader, out: Path, order: Order, engine: Engine, output: OutputSettings, claim: OutputClaim,
        clock: Clock, clip: Clip | None, inputs: dict[str, Path], job: Job | None,
    ) -> Iterator[Event]:  # fmt: skip
        guides = reader.guides
        width, height = guides.size
        if width % SIDE or height % SIDE:
            rule = f"the pose video is {width}x{height}, but both sides have to be multiples of {SIDE}"
            raise InputError("guides", guides.folder, rule, "Make the guides again with `wanimate preprocess`.")
        generate, settings, caching = order.generate, order.settings, order.caching
        segments = order.segments(guides.count)
        seed = secrets.randbelow(2**32) if generate.seed is None else generate.seed
        if generate.seed is None:
            yield Notice(f"seed {seed} was drawn; pass it to get the same frames again")
        if self.card.fixed_prompt and (generate.prompt or generate.negative_prompt):
            yield Notice(
                f"the checkpoint {self.card.name} was trained with one fixed prompt: yours has no effect", "warning"
            )
        for lora, _ in engine.loras:
            chosen("LoRA", str(lora.path), f"{lora.dialect}, changes {lora.targets} tensors")
            if lora.unused:
                what = f"{len(lora.unused)} keys of it have no place in this network and are left out: "
                yield Notice(f"LoRA {lora.path.name}: {what}{', '.join(lora.unused)}", "warning")
        hashing = ThreadPoolExecutor(1, "hashes")
        paths = [*inputs.values(), *(lora.path for lora, _ in engine.loras)]
        files = {path: hashing.submit(_described, path) for path in paths}
        hashing.shutdown(wait=False)
        columns = sample_columns(guides.count)
        shown: dict[int, Frame] = {}
        skipped = [0] * len(segments)
        with OutputWriter(out, guides.fps, width, height, output, clip, claim) as writer:
            for event in with_pixels(_memory_checked(self._frames(reader, order, segments, seed, engine))):
                if isinstance(event, PixelsReady):
                    pixels = _finished(event.pixels, guides, event.start, output)
                    shown |= {i: pixels[i - event.start] for i in columns if 0 <= i - event.start < len(pixels)}
                    writer.write(pixels)
                else:
                    if isinstance(event, StepDone):
                        skipped[event.segment] = event.skipped
                    yield from clock.note(event)
            yield from clock.start(Stage.WRITE)
        yield from writer.notices
        if caching is not None:
            yield Notice(f"{caching}: {sum(skipped)} of {len(segments) * settings.steps} steps were skipped")
        sheet = None
        if output.sheet:
            sheet = write_sheet(out, sheet_of(guides, clip, columns, shown, f"wanimate, checkpoint {self.card.name}"))
        yield from clock.stop()
        record: dict[str, Any] = {
            "checkpoint": {
                "name": self.card.name, "note": self.card.note, "path": self.folder, "hashes": self.checkpoint.hashes,
            },
            "inputs": {name: files[path].result() for name, path in inputs.items()},
            "lora": [files[lora.path].result() | _lora_record(lora, use) for lora, use in engine.loras],
            "frames": guides.count, "fps": guides.fps, "size": guides.size, "seed": seed,
            "settings": generate.model_dump() | settings.model_dump() | {"seed": seed},
            "output": output, "preprocess": job.preprocess if job else guides.manifest.get("settings"),
            "segments": [[s.start, s.length, s.overlap] for s in segments],
            "cache": caching and {"kind": caching.kind, "gate": caching.gate, "skipped": skipped},
            "device": str(self.checkpoint.device), "gpus": self.parallel.gpus, "runtime": self.runtime,
            "placement": str(self.placed.placement), "attention": self.placed.attention, "memory": self._memory(),
            "seconds": clock.seconds,
        }  # fmt: skip
        write_manifest(out, record)
        yield Finished(Result(out, guides.count, guides.size, guides.fps, seed, sheet, record))

    def _memory(self) -> dict[str, int]:
        """Peaks in bytes, forecast and measured; of host memory, mapped files count as far as they were resident."""
        found = {"host": peak_rss()}
        if self.checkpoint.device.type == "cuda":
            found |= {"gpu": torch.cuda.max_memory_allocated(), "gpu_reserved": torch.cuda.max_memory_reserved()}
        if (plan := self.placed.plan) is not None:
            found |= {"planned_host": plan.host, "planned_gpu": plan.gpu}
        return found

    def _frames(
        self, reader: GuidesReader, order: Order, segments: tuple[Segment, ...], seed: int, engine: Engine
    ) -> Iterator[LoopEvent]:
        guides, checkpoint, device, generate = reader.guides, self.checkpoint, self.checkpoint.device, order.generate
        codec, network, ease = engine.codec, engine.network, engine.ease
        chunk = vae_chunk(guides.size, device)
        yield StageStarted(Stage.REFERENCE)
        text = checkpoint.prompts.encode(generate.prompt)
        negative = (
            checkpoint.prompts.encode(generate.negative_prompt, negative=True) if generate.guidance != 1 else None
        )
        builder: ConditionBuilder | None = None
        while builder is None:
            try:
                builder = ConditionBuilder(
                    guides, codec, checkpoint.image, text, negative, face_size=checkpoint.face_size, device=device,
                    chunk=chunk, reader=reader,
                )  # fmt: skip
            except torch.OutOfMemoryError as error:
                reason = str(error)
            if builder is None:
                if (how := ease("encode the conditions")) is None:
                    raise torch.OutOfMemoryError(reason)
                yield Notice(f"too little memory for the character's picture: {how}", "warning")
        checkpoint.release_encoders()
        for event in run_segments(segments, guides.count, builder, network, codec, order.settings, seed, chunk, ease):
            if isinstance(event, StageStarted) and device.type == "cuda":
                torch.cuda.empty_cache()  # the pieces that one stage leaves do not fit the next one's
            yield event


def animate(
    image: Path | str, video: Path | str, out: Path | str, checkpoint: Path | str | None = None, **settings: Any
) -> Result:
    """Animate `image` by `video` and write `out`; `settings` are fields of `Job`, its parts and `RuntimeSettings`, by name.

    >>> wanimate.animate(image="character.png", video="performer.mp4", out="result.mp4", steps=8, seed=1)

    Raises:
        InputError: an input or a setting cannot be used.
    """
    runtime, settings = RuntimeSettings.split(settings)
    job = Job.of(image=image, video=video, out=out, **settings)
    folder = None if checkpoint is None else Path(checkpoint)
    for event in Animator.from_checkpoint(folder, runtime=runtime).run(job):
        if isinstance(event, Finished):
            return event.result
    raise AssertionError("a job ends with its result")


def replace(
    image: Path | str, video: Path | str, out: Path | str, checkpoint: Path | str | None = None, **settings: Any
) -> Result:
    """Put the character of `image` in the place of the performer of `video`; otherwise as `animate`.

    >>> wanimate.replace(image="character.png", video="performer.mp4", out="result.mp4", seed=1)

    Raises:
        InputError: an input or a setting cannot be used.
    """
    return animate(image, video, out, checkpoint, mode="replacement", **settings)


def _reading(guides: Guides, order: Order) -> GuidesReader:
    """The first segment's frames are read beside what comes before it."""
    reader = GuidesReader(guides)
    reader.begin(order.segments(guides.count)[0])
    return reader


def _finished(pixels: Frames, guides: Guides, start: int, output: OutputSettings) -> Frames:
    """Decoded frames from job frame `start` on, in replacement with the scene's own pixels around the character."""
    if guides.background is None or guides.mask is None or not output.composite:
        return pixels
    indices = range(start, start + len(pixels))
    return composite(pixels, guides.background.take(indices), guides.mask.take(indices), output.feather)


@contextmanager
def _guides_folder(job: Job) -> Iterator[Path]:
    """Where the guides go: the user's folder, or one that vanishes with the job."""
    if job.keep_guides is not None:
        yield job.keep_guides
        return
    with tempfile.TemporaryDirectory(prefix="wanimate-") as folder:
        yield Path(folder) / "guides"


def _lora_record(lora: Lora, use: LoraUse) -> dict[str, Any]:
    return {
        "strength": use.strength, "steps": [use.start, use.stop], "dialect": lora.dialect, "tensors": lora.targets,
        "unused": list(lora.unused),
    }  # fmt: skip


def _described(path: Path) -> dict[str, str]:
    return {"path": str(path)} | ({"sha256": hash_file(path)} if path.is_file() else {})


def _memory_checked(events: Iterator[LoopEvent]) -> Iterator[LoopEvent]:
    try:
        yield from events
    except torch.OutOfMemoryError as error:
        rule = "the GPU's memory is not enough for this size and clip length"
        raise OutOfMemory(
            f"{rule} ({error}). Give a smaller {setting('preprocess.area')} or {setting('generate.clip_length')}."
        ) from error
