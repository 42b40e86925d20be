"""The published `--use_flux`: proportions measured in a picture that FLUX.1 Kontext redrew in a standard pose.

As published (preprocess spec, section 14), but for the character only: the lengths of the performer's limbs come from all
frames of the clip. The edited picture gives lengths; place and pose stay those of the character's own picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wanimate.errors import InputError
from wanimate.media.resize import letterbox
from wanimate.preprocess.detect.base import PoseBackend
from wanimate.preprocess.pose.person import PersonPose
from wanimate.types import Frame, Keypoints

FOLDER = "FLUX.1-Kontext-dev"
STEPS, GUIDANCE = 28, 2.5
EXTRA = "pip install 'wanimate[diffusers]'"
Edit = Callable[[Frame, str], Frame]
"""A picture [H, W, 3] and an instruction -> the redrawn picture, of any size."""

_SURE = 0.5
_SHOULDERS, _HEAD = (5, 6), (0, 1, 2, 3, 4)
_LIMBS = ((5, 7), (7, 9), (6, 8), (8, 10), (11, 13), (13, 15), (12, 14), (14, 16))
"""Parent and child in the 133 layout: arms, then legs (preprocess spec, section 8.1)."""
_FOLLOWERS = {9: slice(91, 112), 10: slice(112, 133), 15: slice(17, 20), 16: slice(20, 23)}
"""Points that move with a wrist or an ankle."""


class WithEditedProportions:
    """A detector whose `detect` measures the character's limbs in an edited picture; `track` is the detector's own."""

    def __init__(self, inner: PoseBackend, edit: Edit) -> None:
        self.inner, self.edit, self.name = inner, edit, f"{inner.name} with FLUX Kontext"

    @classmethod
    def load(cls, inner: PoseBackend, folder: Path | None) -> WithEditedProportions:
        """`folder`: process_checkpoint, with FLUX.1-Kontext-dev in it.

        Raises:
            InputError: the folder or diffusers is missing, or the folder cannot be opened.
        """
        return cls(inner, kontext(folder))

    def detect(self, image: Frame) -> PersonPose | None:
        """The main person; where the edited picture shows nobody, as the detector found it."""
        person = self.inner.detect(image)
        if person is None:
            return None
        height, width = image.shape[:2]
        edited = self.inner.detect(letterbox(self.edit(image, instruction(width, height)), width, height))
        if edited is None:
            return person
        return replace(person, keypoints=with_lengths(person.keypoints, edited.keypoints))

    def track(self, frames: Iterable[Frame]) -> Iterator[PersonPose]:
        return self.inner.track(frames)

    def candidates(self, image: Frame) -> list[PersonPose]:
        return self.inner.candidates(image)


def instruction(width: int, height: int) -> str:
    """What the editor is told, by the shape of the picture (section 14)."""
    arms = "in a T-pose, arms stretched out to both sides" if width > height else "arms hanging down at the sides"
    return (
        "Show the same character in full, standing upright and facing the camera, "
        f"{arms}, with both hands and both feet in view. Keep face, clothes and background."
    )


def kontext(folder: Path | None) -> Edit:
    """FLUX.1 Kontext through diffusers, in bfloat16 on a GPU. Raises InputError where it cannot be had."""
    place = None if folder is None else folder / FOLDER
    if place is None or not place.is_dir():
        rule = f"it needs the folder {FOLDER} inside of --ckpt_path"
        raise InputError("--use_flux", place, rule, "Download it there, or leave the flag out.")
    try:
        from diffusers import FluxKontextPipeline
    except ImportError as error:
        raise InputError("--use_flux", place, "diffusers is not installed", f"Run `{EXTRA}`.") from error
    cuda = torch.cuda.is_available()
    try:
        pipe: Any = FluxKontextPipeline.from_pretrained(
            place, torch_dtype=torch.bfloat16 if cuda else torch.float32, local_files_only=True
        )
    except (OSError, ValueError) as error:
        rule = f"diffusers cannot open it ({(str(error).splitlines() or [''])[0]})"
        raise InputError("--use_flux", place, rule, "Download it again.") from error
    pipe.to("cuda" if cuda else "cpu")

    def edit(image: Frame, text: str) -> Frame:
        from PIL import Image

        height, width = image.shape[:2]
        made = pipe(
            image=Image.fromarray(image), prompt=text, height=height, width=width, guidance_scale=GUIDANCE,
            num_inference_steps=STEPS, generator=torch.Generator("cpu").manual_seed(0),
        )  # fmt: skip
        return np.asarray(made.images[0].convert("RGB"), dtype=np.uint8)

    return edit


def with_lengths(points: Keypoints, edited: Keypoints) -> Keypoints:
    """`points` [133, 3] with the limb lengths of `edited`, another picture of the same person, in the scale of `points`.

    Limbs keep their direction where both their ends are sure; others take direction and confidence of the edited picture.
    Limbs of which that is not sure either stay.
    """
    out = points.copy()
    scale = _compensation(points, edited)
    for parent, child in _LIMBS:
        if min(edited[parent, 2], edited[child, 2]) < _SURE:
            continue
        bone = edited[child, :2] - edited[parent, :2]
        length = float(np.hypot(*bone))
        own = points[child, :2] - points[parent, :2]
        if min(points[parent, 2], points[child, 2]) >= _SURE and np.hypot(*own) > 0:
            bone, confidence = own, points[child, 2]
        else:
            confidence = edited[child, 2]
        if length == 0:
            continue
        out[child, :2] = out[parent, :2] + bone / np.hypot(*bone) * length * scale
        out[child, 2] = confidence
        if (followers := _FOLLOWERS.get(child)) is not None:
            out[followers, :2] += out[child, :2] - points[child, :2]
    return out


def _compensation(points: Keypoints, edited: Keypoints) -> float:
    """Scale of the person in one picture over the other (section 13, step 1): the larger of head width and shoulders."""
    ratios = []
    for joints in (_HEAD, _SHOULDERS):
        sure = [j for j in joints if min(points[j, 2], edited[j, 2]) >= _SURE]
        if len(sure) > 1:
            span = [float(np.ptp(p[sure, 0])) for p in (points, edited)]
            if min(span) > 0:
                ratios.append(span[0] / span[1])
    return max(ratios, default=1.0)
