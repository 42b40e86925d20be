"""The mask backend that the settings ask for; the default needs no network connection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from wanimate.config import PreprocessSettings
from wanimate.preprocess.detect.models import SELFIE, U2NET, U2NETP, find
from wanimate.preprocess.masks.base import MaskBackend
from wanimate.preprocess.masks.video import MaskVideo
from wanimate.types import Clip, Frame, Keypoints

if TYPE_CHECKING:
    from wanimate.preprocess.masks.offline import Explained


def open_masks(
    settings: PreprocessSettings,
    clip: Clip,
    indices: Sequence[int],
    fit: Callable[[Frame], Frame],
    everybody: Callable[[Frame], Sequence[Keypoints]] = lambda frame: (),
    explain: Callable[[Explained], None] | None = None,
) -> tuple[MaskBackend, str]:
    """The backend, its model loaded, and why it was taken.

    Args:
        indices: the clip's frame of every job frame.
        fit: brings a frame of the clip to the job's size.
        everybody, explain: see `OfflineMasks`; the other backends need neither.

    Raises:
        InputError: model files are missing, or the given mask or checkpoint cannot be used.
    """
    if settings.mask is not None:
        return MaskVideo(settings.mask, clip, indices, fit), "a mask video was given"
    if settings.sam2 is not None:
        from wanimate.preprocess.masks.sam2 import Sam2Masks

        return Sam2Masks(settings.sam2, settings.compat), "a SAM 2 checkpoint was given"
    from wanimate.preprocess.masks.networks import Salient, Selfie
    from wanimate.preprocess.masks.offline import OfflineMasks

    high = settings.mask_quality == "high"
    folder = find(settings.models if settings.backend == "mediapipe" else None, (SELFIE, U2NET if high else U2NETP))
    salient, person = Salient(folder, settings.mask_quality), Selfie(folder)
    return OfflineMasks(salient, person, everybody, explain), "neither a mask nor SAM 2 was given"
