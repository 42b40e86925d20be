"""The mask backend that the settings ask for; the default needs no network connection."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from wanimate.config import PreprocessSettings
from wanimate.preprocess.detect.models import find
from wanimate.preprocess.masks.base import MaskBackend
from wanimate.preprocess.masks.video import MaskVideo
from wanimate.types import Clip, Frame


def open_masks(
    settings: PreprocessSettings, clip: Clip, indices: Sequence[int], fit: Callable[[Frame], Frame]
) -> tuple[MaskBackend, str]:
    """The backend, its model loaded, and why it was taken.

    Args:
        indices: the clip's frame of every job frame.
        fit: brings a frame of the clip to the job's size.

    Raises:
        InputError: model files are missing, or the given mask or checkpoint cannot be used.
    """
    if settings.mask is not None:
        return MaskVideo(settings.mask, clip, indices, fit), "a mask video was given"
    if settings.sam2 is not None:
        from wanimate.preprocess.masks.sam2 import Sam2Masks

        return Sam2Masks(settings.sam2, settings.compat), "a SAM 2 checkpoint was given"
    from wanimate.preprocess.masks.selfie import SelfieMasks

    models = find(settings.models if settings.backend == "mediapipe" else None)
    return SelfieMasks(models), "neither a mask nor SAM 2 was given"
