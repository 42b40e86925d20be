"""The preprocessing of either mode."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

from wanimate.config import PreprocessSettings
from wanimate.errors import InputError
from wanimate.events import Event
from wanimate.log import chosen
from wanimate.preprocess import replacement
from wanimate.preprocess.detect.base import PoseBackend
from wanimate.preprocess.drive import preprocess
from wanimate.preprocess.masks.base import MaskBackend
from wanimate.types import Clip, Frame, Guides, Mode


def preprocessing(
    mode: Mode, clip: Clip, image: Frame, settings: PreprocessSettings, folder: Path, area: int,
    detector: PoseBackend | None = None, masks: MaskBackend | None = None,
) -> Generator[Event, None, Guides]:  # fmt: skip
    """The preprocessing of a mode: `preprocess.drive.preprocess`, `replacement.preprocess_scene`. Loads models not given."""
    if mode == "animation":
        if settings.mask is not None or settings.sam2 is not None:
            option, value = (
                ("preprocess.mask", settings.mask) if settings.mask is not None else ("preprocess.sam2", settings.sam2)
            )
            raise InputError(
                option, value, "animation has no hole that needs a mask", "Leave it out, or take replacement"
            )
        return preprocess(clip, image, settings, folder, area, detector)
    replacement.check(settings)
    if masks is None:
        masks, why = replacement.mask_backend(clip, settings, area)
        chosen("mask backend", masks.name, why)
    return replacement.preprocess_scene(clip, image, settings, folder, area, masks, detector)
