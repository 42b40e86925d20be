"""The relighting LoRA of a checkpoint: in replacement the character takes on the scene's light (arXiv 2509.14055)."""

from __future__ import annotations

from pathlib import Path

from wanimate.config import GenerateSettings, LoraUse
from wanimate.errors import InputError
from wanimate.types import Mode
from wanimate.weights.locate import home

PLACES = (
    Path("relighting_lora.safetensors"), Path("relighting_lora.ckpt"), Path("relighting_lora") / "adapter_model.safetensors",
)  # fmt: skip


def find_relighting(folder: Path) -> Path | None:
    """The relighting LoRA's file in a checkpoint folder: ours, or one of the two published ones; None where there is none."""
    return next((file for place in PLACES if (file := home(folder) / place).is_file()), None)


def with_relighting(generate: GenerateSettings, mode: Mode, folder: Path) -> tuple[GenerateSettings, str | None]:
    """The settings with the checkpoint's relighting LoRA as the last of their LoRAs where it is to act, and a warning.

    `relight` None: in replacement, if there is one. A file that is among the LoRAs already is left to its own strength. In
    animation the scene is the reference's own, so it is left out, but for `compat`, which applies it as published.

    Raises:
        InputError: relighting is asked for and the checkpoint has no such LoRA.
    """
    wanted = mode == "replacement" if generate.relight is None else generate.relight
    if not wanted:
        return generate, None
    if mode == "animation" and not generate.compat:
        return generate, "relighting has no effect in animation: the character stays in its own picture's light"
    file = find_relighting(folder)
    if file is None:
        if generate.relight is None:
            return generate, None
        rule = f"{home(folder)} holds no relighting LoRA ({', '.join(map(str, PLACES))})"
        raise InputError("generate.relight", True, rule, "Leave it out, or put the file there.")
    if any(use.path == file for use in generate.lora):
        return generate, None
    use = LoraUse(path=file, strength=generate.relight_strength)
    warning = "relighting is meant for replacement; it is applied all the same, as published"
    return generate.model_copy(update={"lora": (*generate.lora, use)}), warning if mode == "animation" else None
