"""The published `--use_flux`: proportions measured in pictures that FLUX.1 Kontext redrew in a standard pose.

With `compat` as published (preprocess spec, section 14): performer and character are redrawn, and published retargeting
takes its ratios from both. Otherwise the character alone is redrawn: the lengths of the performer's limbs come from all
frames of the clip, and the redrawn picture gives lengths, while place and pose stay those of the character's own picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wanimate.errors import InputError
from wanimate.media.resize import letterbox
from wanimate.preprocess.detect.base import Measured, PoseBackend
from wanimate.preprocess.people.tracking import Tracker
from wanimate.preprocess.pose.keypoints import Points, move, reuse_body_when_outside, split
from wanimate.preprocess.pose.person import PersonPose
from wanimate.types import Frame, Keypoints

FOLDER = "FLUX.1-Kontext-dev"
STEPS, GUIDANCE = 28, 2.5
EXTRA = "pip install 'wanimate[diffusers]'"
Edit = Callable[[Frame, str], Frame]
"""A picture [H, W, 3] and an instruction -> the redrawn picture, of any size."""

_ARM_JOINTS, _LEG_JOINTS = (3, 4, 6, 7), (9, 10, 12, 13)
"""Of the 20 joints: elbows and wrists, knees and ankles."""
_SEEN = 0.75
_SURE = 0.5
_SHOULDERS, _HEAD = (5, 6), (0, 1, 2, 3, 4)
_LIMBS = ((5, 7), (7, 9), (6, 8), (8, 10), (11, 13), (13, 15), (12, 14), (14, 16))
"""Parent and child in the 133 layout: arms, then legs (preprocess spec, section 8.1)."""
_FOLLOWERS = {9: slice(91, 112), 10: slice(112, 133), 15: slice(17, 20), 16: slice(20, 23)}
"""Points that move with a wrist or an ankle."""


class WithEditedProportions:
    """A detector that measures proportions in redrawn pictures; the detector `inner` finds people, there as elsewhere.

    With `compat` both are redrawn, as published: the clip's second frame and the character's picture, and the ratio of
    every limb comes from the two. Else only the character is: the performer's lengths come from all frames of the clip.
    """

    def __init__(self, inner: PoseBackend, edit: Edit, compat: bool = False) -> None:
        self.inner, self.edit, self.compat, self.name = inner, edit, compat, f"{inner.name} with FLUX Kontext"
        self.pictures: dict[str, Frame] = {}
        """What was redrawn: "performer" and "character" -> picture of the original's size."""

    @classmethod
    def load(cls, inner: PoseBackend, folder: Path | None, compat: bool = False) -> WithEditedProportions:
        """`folder`: process_checkpoint, with FLUX.1-Kontext-dev in it.

        Raises:
            InputError: the folder or diffusers is missing, or the folder cannot be opened.
        """
        return cls(inner, kontext(folder), compat)

    def detect(self, image: Frame) -> PersonPose | None:
        return self.inner.detect(image)

    def track(self, frames: Iterable[Frame], tracker: Tracker | None = None) -> Iterator[PersonPose]:
        return self.inner.track(frames, tracker)

    def candidates(self, image: Frame, deep: bool = True) -> list[PersonPose]:
        return self.inner.candidates(image, deep)

    def measure(
        self,
        performer: Keypoints,
        size: tuple[int, int],
        frame: Callable[[int], Frame],
        picture: Frame,
        character: Keypoints,
    ) -> Measured:
        """See `MeasuringBackend`. Where a redrawn picture shows nobody, proportions stay those of the originals.

        Raises:
            InputError: `compat`, and the clip has one frame.
        """
        if self.compat and len(performer) < 2:
            rule = "the published code redraws the clip's second frame, and there is one frame"
            raise InputError("--use_flux", True, rule, "Leave --compat or --use_flux out, or give a longer clip.")
        body = reuse_body_when_outside(split(move(performer, (1 / size[0], 1 / size[1]), (0, 0))).body)
        texts = instructions(body, size, (picture.shape[1], picture.shape[0]))
        originals = {"character": (picture, texts[1])}
        if self.compat:
            originals["performer"] = (frame(1), texts[0])
        told: dict[str, str] = {}
        facts = {"redrawn": told}
        found: dict[str, Keypoints] = {}
        for name, (image, text) in originals.items():
            told[name] = text
            person = self.inner.detect(self._redrawn(name, image, text))
            if person is None:
                warning = (
                    f"nobody was found in the redrawn picture of the {name}: proportions are those of the originals"
                )
                return Measured(character, None, facts, (warning,))
            found[name] = person.keypoints
        if self.compat:
            return Measured(character, (found["performer"], found["character"]), facts, ())
        return Measured(with_lengths(character, found["character"]), None, facts, ())

    def _redrawn(self, name: str, image: Frame, text: str) -> Frame:
        """The picture as the editor redraws it, brought back to its size, and kept."""
        self.pictures[name] = letterbox(self.edit(image, text), image.shape[1], image.shape[0])
        return self.pictures[name]


def instructions(body: Points, performer_size: tuple[int, int], character_size: tuple[int, int]) -> tuple[str, str]:
    """What the editor is told for a picture of the performer and for the character's (preprocess spec, section 14).

    What the performer shows in any frame decides what both pictures shall show: with legs, all of the body; with arms
    only, the hands; with neither, a face that looks ahead. The shape of each picture decides the pose of its arms.

    Args:
        body: the performer's 20 joints over the clip [n, 20, 3], x and y relative to the frame (0 to 1), and confidence.
        performer_size: width and height of the performer's picture; `character_size` of the character's.
    """
    arms, legs = (any(_shows(joints, frame) for frame in body) for joints in (_ARM_JOINTS, _LEG_JOINTS))
    return _instruction(arms, legs, performer_size), _instruction(arms, legs, character_size)


def _shows(joints: Sequence[int], body: Points) -> bool:
    """Whether one of these joints is surely seen. As published, left of and above the frame counts as inside."""
    limb = body[list(joints)]
    known = bool((limb != 0).all(axis=1).any())
    return known and bool(((limb[:, 0] <= 1) & (limb[:, 1] <= 1) & (limb[:, 2] >= _SEEN)).any())


def _instruction(arms: bool, legs: bool, size: tuple[int, int]) -> str:
    if not (arms or legs):
        return "Turn the same character's face to the camera. Keep everything else."
    width, height = size
    pose = "in a T-pose, arms stretched out to both sides" if width > height else "arms hanging down at the sides"
    shown = "standing upright, with both hands and both feet in view" if legs else "with both hands in view"
    return f"Show the same character facing the camera, {pose}, {shown}. Keep face, clothes and background."


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
