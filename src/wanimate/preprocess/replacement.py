"""A performer's clip and a character's picture to replacement guides (preprocess spec, sections 3.1, 12 and 18).

As for animation there are two passes. The clip decides the size: every frame is brought to the output size, and
skeleton, scene and hole lie on it where they lie in the clip.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from itertools import tee
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from wanimate.config import PreprocessSettings
from wanimate.errors import InputError, setting
from wanimate.events import Event, Notice, Stage, StageFinished, StageProgress, StageStarted
from wanimate.media.resize import AREA, cover, cover_placement, exact_size, published_resize, published_size
from wanimate.media.video import iter_indices
from wanimate.preprocess.detect.base import PoseBackend
from wanimate.preprocess.detect.models import find
from wanimate.preprocess.detect.registry import open_detector
from wanimate.preprocess.drive import (
    Drawing,
    arrays,
    detect,
    face_crops,
    manifest,
    plan,
    report_missing,
)  # fmt: skip
from wanimate.preprocess.guides import GuidesWriter, load_guides
from wanimate.preprocess.masks.base import MaskBackend
from wanimate.preprocess.masks.selfie import SelfieMasks
from wanimate.preprocess.masks.shape import MaskShape, as_picture, scene, shape_mask
from wanimate.preprocess.masks.video import MaskVideo
from wanimate.preprocess.pose import retarget
from wanimate.preprocess.pose.face import steady_squares
from wanimate.preprocess.pose.keypoints import FACE, move, reuse_body_when_outside, runs, split
from wanimate.preprocess.pose.skeleton import draw
from wanimate.preprocess.pose.smooth import smooth
from wanimate.types import Clip, Frame, Guides, Keypoints

_DIFFERENT = 1.4
"""Proportions that differ by this factor make a character stretched to the performer's bones look wrong."""
_GROWTH, _ROUNDS = 0.03, 3
"""By which part of the short side an outline grows unless told otherwise, and the most rounds (dev/LOG.md, 2026-11-27)."""


def check(settings: PreprocessSettings) -> None:
    """Refuse what replacement cannot do. Raises InputError."""
    if settings.retarget not in (None, "off"):
        rule = "the character has to fit into the performer's place, so its skeleton is the performer's"
        raise InputError("preprocess.retarget", settings.retarget, rule, "Leave it out in replacement")
    if settings.mask is not None and settings.sam2 is not None:
        raise InputError(
            "preprocess.sam2",
            settings.sam2,
            f"the masks are given with {setting('preprocess.mask')} already",
            "Leave one of them out",
        )


def mask_backend(clip: Clip, settings: PreprocessSettings, area: int) -> tuple[MaskBackend, str]:
    """The backend that the settings ask for, and why it was taken.

    Raises:
        InputError: model files are missing, or the given mask or checkpoint cannot be used.
    """
    if settings.mask is not None:
        width, height = _size(clip, area, settings.compat)

        def fit(frame: Frame) -> Frame:
            return published_resize(frame, area) if settings.compat else cover(frame, width, height)

        return MaskVideo(settings.mask, clip, plan(clip, settings)[0], fit), "a mask video was given"
    if settings.sam2 is not None:
        from wanimate.preprocess.masks.sam2 import Sam2Masks

        return Sam2Masks(settings.sam2, settings.compat), "a SAM 2 checkpoint was given"
    models = find(settings.models if settings.backend == "mediapipe" else None)
    return SelfieMasks(models), "neither a mask nor SAM 2 was given"


def preprocess_scene(
    clip: Clip, image: Frame, settings: PreprocessSettings, folder: Path, area: int, masks: MaskBackend,
    detector: PoseBackend | None = None,
) -> Generator[Event, None, Guides]:  # fmt: skip
    """Replacement guides from a probed clip and a character picture, written to `folder` and returned.

    Args:
        image: the character, uint8 RGB [H, W, 3]; the conditions letterbox it.
        area: pixel area of the output; its aspect is the clip's.
        masks: finds the person's pixels.
        detector: finds the people; None loads the one the settings name.

    Yields and raises as `run.preprocess`; moreover
        InputError: retargeting was asked for.
    """
    check(settings)
    people = detector or open_detector(settings)
    indices, fps = plan(clip, settings)
    size = _size(clip, area, settings.compat)
    # As published, compat does everything on the resized frames; else points and faces come from the whole picture.
    clip_size = size if settings.compat else (clip.width, clip.height)
    warnings: list[str] = []

    def fit(frame: Frame) -> Frame:
        return published_resize(frame, area) if settings.compat else frame

    keypoints, valid, doubts = yield from detect(people, clip, indices, settings, fit)
    character = people.detect(image)
    if character is None:
        warnings.append("no person was found in the character image: it may not fit the performer's pose")
    else:
        factor = retarget.mismatch(keypoints, valid, clip_size, character.keypoints, (image.shape[1], image.shape[0]))
        if factor >= _DIFFERENT:
            warnings.append(
                f"the proportions of character and performer differ by a factor of {factor:.1f}: the character is drawn "
                "with the performer's"
            )
    if (message := report_missing(valid)) is not None:
        warnings.append(f"{message}; these keep the clip's own picture")
    for warning in warnings:
        yield Notice(warning, "warning")
    warnings = [*doubts, *warnings]
    steady = smooth(keypoints, valid, fps) if settings.smooth and not settings.compat else keypoints
    squares = steady_squares(keypoints[:, FACE], valid, fps)
    placed = steady if clip_size == size else _placed(steady, clip_size, size)
    drawing = _drawing(placed, size, settings.compat)
    shape = mask_shape(settings, size)

    started, empty, covered = time.perf_counter(), np.zeros(len(indices), dtype=bool), 0.0
    yield StageStarted(Stage.DRAW, len(indices))
    with GuidesWriter(folder, "replacement", fps, size, settings.face_size) as writer:
        originals, again = tee(map(fit, iter_indices(clip, indices)))
        scenes = (frame if settings.compat else cover(frame, *size) for frame in again)
        faces = face_crops(originals, clip_size, settings, keypoints, valid, squares)
        for i, (face, (frame, outline)) in enumerate(zip(faces, masks.follow(scenes, placed, valid), strict=True)):
            hole = shape_mask(outline, shape)
            parts = drawing.parts.at(i)
            pose = draw(parts.body, parts.left_hand, parts.right_hand, *size) if valid[i] else np.zeros_like(frame)
            writer.write(pose, face, scene(frame, hole), as_picture(hole))
            empty[i], covered = not hole.any(), covered + float(hole.mean())
            yield StageProgress(Stage.DRAW, i + 1, len(indices))
        if (message := _report_empty(empty & valid)) is not None:
            warnings.append(message)
        facts = manifest(clip, image, settings, people, indices, fps, valid, drawing, warnings)
        facts["mask"] = {
            "backend": masks.name, "given": None if settings.mask is None else str(settings.mask), "shape": vars(shape),
            "empty": runs(empty), "mean_share": covered / len(indices),
        }  # fmt: skip
        writer.finish(image if settings.compat else _small(image, size), facts, arrays(keypoints, drawing, squares))
    if message is not None:
        yield Notice(message, "warning")
    yield StageFinished(Stage.DRAW, time.perf_counter() - started)
    return load_guides(folder)


def mask_shape(settings: PreprocessSettings, size: tuple[int, int]) -> MaskShape:
    """The hole's shape in frames of this size; without a grid it is the outline, with `compat` the published box.

    Unless told otherwise, small frames get fewer rounds than the published three: a scene is worth more than a wide margin.
    """
    rounds = settings.iterations
    if rounds is None:
        fitting = round(_GROWTH * min(size) / max(settings.k // 2, 1))
        rounds = _ROUNDS if settings.compat else min(max(fitting, 1), _ROUNDS)
    if settings.compat:
        return MaskShape(rounds, settings.k, settings.w_len or 1, settings.h_len or 1)
    return MaskShape(rounds, settings.k, settings.w_len, settings.h_len)


def _size(clip: Clip, area: int, compat: bool) -> tuple[int, int]:
    if not compat:
        return exact_size(clip.width, clip.height, area)
    size = published_size(clip.width, clip.height, area)
    if min(size) < 16:
        raise InputError(
            "preprocess.area", area, f"leaves no 16-pixel cell for a {clip.width}x{clip.height} clip", "Give more."
        )
    return size


def _placed(points: Keypoints, clip_size: tuple[int, int], size: tuple[int, int]) -> Keypoints:
    place = cover_placement(*clip_size, *size)
    return move(points, (place.scale_x, place.scale_y), (place.offset_x, place.offset_y))


def _drawing(points: Keypoints, size: tuple[int, int], compat: bool) -> Drawing:
    parts = split(points)
    if compat:
        body = reuse_body_when_outside(parts.body)
        parts = type(parts)(body, parts.left_hand, parts.right_hand, parts.face)
    return Drawing(parts, size, {"mode": "off"})


def _small(image: Frame, size: tuple[int, int]) -> Frame:
    """The character, made to fit into the output size where it is larger; averaged, so that nothing aliases later."""
    height, width = image.shape[:2]
    scale = min(size[0] / width, size[1] / height)
    if scale >= 1:
        return image
    new = max(round(width * scale), 1), max(round(height * scale), 1)
    return np.asarray(cv2.resize(image, new, interpolation=AREA), dtype=np.uint8)


def _report_empty(empty: npt.NDArray[np.bool_]) -> str | None:
    gone = runs(empty)
    if not gone:
        return None
    return (
        f"in {int(empty.sum())} of {len(empty)} frames no pixel of the performer was found (first {gone[0][0]}): these "
        "keep the clip's own picture"
    )
