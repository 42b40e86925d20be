"""What is to be generated: the settings of a job with nothing left open, checked before anything large is opened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wanimate.conditions.segments import plan_segments
from wanimate.config import Defaults, GenerateSettings, LoraUse, Speed
from wanimate.errors import InputError, setting
from wanimate.model.transformer import AnimateTransformer
from wanimate.runtime.planning.plan import Work
from wanimate.sampling.cache import TURBO, Caching
from wanimate.types import Mode, Segment
from wanimate.weights.locate import CheckpointConfig
from wanimate.weights.lora import Lora, LoraFile, match_lora, read_lora
from wanimate.weights.lora_view import LoraSizes, LoraStack
from wanimate.weights.relighting import with_relighting


@dataclass(frozen=True)
class ResolvedJob:
    """Every setting filled in: `generate` with the step cache of the speed and the relighting LoRA, `settings` with the
    checkpoint's defaults. LoRA files are open. `warning`: what the user is to be told about relighting, if anything."""

    generate: GenerateSettings
    settings: Defaults
    caching: Caching | None
    files: tuple[LoraFile, ...]
    warning: str | None

    @classmethod
    def of(
        cls, generate: GenerateSettings, mode: Mode, folder: Path, config: CheckpointConfig, speed: Speed
    ) -> ResolvedJob:
        """What `generate` comes to with the checkpoint of `folder` and `config`.

        Raises:
            InputError: settings that cannot work on any clip longer than a segment; a LoRA that cannot be read or never acts.
        """
        if generate.cache is None and speed == "turbo":
            generate = generate.model_copy(update={"cache": TURBO})
        generate, warning = with_relighting(generate, mode, folder)
        settings = generate.resolve(config.defaults)
        caching = Caching.of(generate.cache, generate.cache_gate, settings.steps)
        plan_segments(settings.clip_length + 1, settings.clip_length, settings.overlap, generate.compat)
        files: list[LoraFile] = []
        for use in generate.lora:
            opened = next((file for file in files if file.path == use.path), None)
            files.append(opened or read_lora(use.path))
            if not any(use.acts(step, settings.steps) for step in range(settings.steps)):
                rule = f"none of the {settings.steps} steps lies in {100 * use.start:g}-{100 * use.stop:g}%"
                raise InputError(
                    "generate.lora", use.path, rule, f"Give it a wider share, or take more {setting('generate.steps')}."
                )
        return cls(generate, settings, caching, tuple(files), warning)

    @property
    def branches(self) -> int:
        return 1 if self.settings.guidance == 1 else 2

    @property
    def anchored(self) -> bool:
        """Whether colours are held from segment to segment."""
        return self.generate.anchor and not self.generate.compat

    @property
    def lora_sizes(self) -> Callable[[AnimateTransformer], LoraSizes] | None:
        """Tells from a transformer what the LoRAs take; None without LoRAs."""
        return self._lora_sizes if self.files else None

    def segments(self, count: int) -> tuple[Segment, ...]:
        """Of a job of `count` frames."""
        return plan_segments(count, self.settings.clip_length, self.settings.overlap, self.generate.compat)

    def work(self, size: tuple[int, int], count: int, new_prompt: bool, finishing: int = 0) -> Work:
        """As the plan sees it, but for the LoRAs. `size`: width and height in pixels. `finishing`: bytes."""
        kept = 0 if self.caching is None else self.caching.kept(self.branches)
        segments, steps = self.segments(count), self.settings.steps
        return Work(size, segments, steps, self.branches, new_prompt, kept, finishing=finishing)

    def matched(self, model: AnimateTransformer) -> list[tuple[Lora, LoraUse]]:
        """The LoRAs for this transformer, which may be on the meta device.

        Raises:
            InputError: one of them does not fit it.
        """
        loras = [match_lora(file, model, self.generate.lora_partial) for file in self.files]
        return list(zip(loras, self.generate.lora, strict=True))

    def _lora_sizes(self, model: AnimateTransformer) -> LoraSizes:
        return LoraStack(model, self.matched(model), self.generate.lora_fuse).sizes(self.settings.steps)
