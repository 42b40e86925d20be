"""A performer's clip and a character's picture to guides (preprocess spec, section 3.2; ours: section 18).

Two passes over the clip, both streaming: the first finds the person, the second draws skeletons and cuts out faces.
Between them only keypoints are kept (3 kB a frame), so memory does not grow with the size or length of the clip.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from wanimate.config import PreprocessSettings
from wanimate.errors import InputError, setting
from wanimate.events import Event, Notice, Stage, StageFinished, StageProgress, StageStarted
from wanimate.media.files import sha256
from wanimate.media.resize import cover, exact_size, letterbox, published_resize
from wanimate.media.timing import cap_rate, published_count, published_indices
from wanimate.media.video import iter_backwards, iter_indices, plan_frames
from wanimate.preprocess.detect.base import PoseBackend
from wanimate.preprocess.detect.registry import open_detector
from wanimate.preprocess.guides import GuidesWriter, load_guides
from wanimate.preprocess.people.choice import HEAD_AND_SHOULDERS, Choice, parse_choice
from wanimate.preprocess.pose import retarget, retarget_published
from wanimate.preprocess.pose.face import Squares, is_usable, published_box, published_crop, square_crop, steady_squares
from wanimate.preprocess.pose.keypoints import FACE, Parts, reuse_body_when_outside, runs, split
from wanimate.preprocess.pose.person import PersonPose
from wanimate.preprocess.pose.skeleton import draw
from wanimate.preprocess.pose.smooth import smooth
from wanimate.types import Clip, Frame, Guides, Keypoints

_SURE = 0.5


@dataclass(frozen=True)
class Drawing:
    """What to draw: joints on a canvas, and how the performer was fitted to the character."""

    parts: Parts
    canvas: tuple[int, int]
    retarget: dict[str, Any] = field(default_factory=dict)


def preprocess(
    clip: Clip,
    image: Frame,
    settings: PreprocessSettings,
    folder: Path,
    area: int,
    detector: PoseBackend | None = None,
) -> Generator[Event, None, Guides]:
    """Animation guides from a probed clip and a character picture, written to `folder` and returned.

    Args:
        image: the character, uint8 RGB [H, W, 3]. It decides the output size.
        area: pixel area of the output (width x height, only the product counts).
        detector: finds the people; None loads the one the settings name.

    Yields:
        A started, progress and finished event a stage, and notices for the user.

    Raises:
        InputError: nobody is in the clip, models are missing, or the clip cannot be read.
        OutputError: `folder` is taken or cannot be written. Nothing is left there then.
    """
    people = detector or open_detector(settings)
    reference = _fitted(image, area, settings.compat)
    size = reference.shape[1], reference.shape[0]
    indices, fps = plan(clip, settings)
    warnings: list[str] = []

    character = None if settings.retarget == "off" else people.detect(reference)
    if settings.retarget != "off" and character is None:
        warnings.append("no person was found in the character image: the performer's own proportions are kept")
        yield Notice(warnings[-1], "warning")
    keypoints, valid, doubts = yield from detect(people, clip, indices, settings)
    warnings += doubts
    if (message := report_missing(valid)) is not None:
        warnings.append(message)
        yield Notice(message, "warning")
    steady = smooth(keypoints, valid, fps) if settings.smooth and not settings.compat else keypoints
    clip_size = clip.width, clip.height
    drawing = _fit(steady, valid, clip_size, None if character is None else character.keypoints, size, settings)
    squares = steady_squares(keypoints[:, FACE], valid, fps)

    started = time.perf_counter()
    yield StageStarted(Stage.DRAW, len(indices))
    with GuidesWriter(folder, "animation", fps, size, settings.face_size) as writer:
        faces = face_crops(iter_indices(clip, indices), clip_size, settings, keypoints, valid, squares)
        for i, face in enumerate(faces):
            writer.write(_skeleton(drawing, i, size), face)
            yield StageProgress(Stage.DRAW, i + 1, len(indices))
        facts = manifest(clip, image, settings, people, indices, fps, valid, drawing, warnings)
        writer.finish(image if settings.compat else reference, facts, arrays(keypoints, drawing, squares))
    yield StageFinished(Stage.DRAW, time.perf_counter() - started)
    return load_guides(folder)


def _fitted(image: Frame, area: int, compat: bool) -> Frame:
    """The character at output size: filled with a small centre crop, or letterboxed as published."""
    if compat:
        return published_resize(image, area)
    return cover(image, *exact_size(image.shape[1], image.shape[0], area))


def plan(clip: Clip, settings: PreprocessSettings) -> tuple[tuple[int, ...], Fraction]:
    """Source frame of each job frame, and the rate; with `compat` as if the clip's rate were constant (section 5)."""
    if not settings.compat:
        return plan_frames(clip, settings.fps, settings.max_fps)
    fps = settings.fps or cap_rate(clip.fps, settings.max_fps)
    count = min(published_count(clip.count, clip.duration, float(clip.fps)), clip.count)
    indices, _ = published_indices(count, float(clip.fps), float(fps))
    if not indices:
        raise InputError(
            "preprocess.fps", fps, f"leaves no frame of a clip of {clip.duration:.2f} s", "Give a higher rate"
        )
    return indices, fps


def detect(
    people: PoseBackend, clip: Clip, indices: tuple[int, ...], settings: PreprocessSettings,
    fit: Callable[[Frame], Frame] = lambda frame: frame,
) -> Generator[Event, None, tuple[Keypoints, npt.NDArray[np.bool_], list[str]]]:  # fmt: skip
    """Keypoints [n, 133, 3] in pixels of the fitted frames, where there is somebody [n], and doubts as warnings.

    Somebody chosen for a time is followed from there to the end, and from there back to the start.

    Raises:
        InputError: nobody is in the clip, or not whoever was chosen.
    """
    started, count = time.perf_counter(), len(indices)
    yield StageStarted(Stage.DETECT, count)
    keypoints, valid, found = np.zeros((count, 133, 3)), np.zeros(count, dtype=bool), [""] * count
    for done, (i, person) in enumerate(_sights(people, clip, indices, parse_choice(settings.person), fit)):
        keypoints[i], valid[i], found[i] = person.keypoints, person.valid, person.found
        yield StageProgress(Stage.DETECT, done + 1, count)
    yield StageFinished(Stage.DETECT, time.perf_counter() - started)
    if not valid.any():
        remedy = "Give a clip in which one person's head and shoulders are plainly visible"
        raise InputError("video", clip.path, f"nobody was found in any of its {count} frames", remedy)
    doubts = report_doubts(keypoints, valid, found)
    for doubt in doubts:
        yield Notice(doubt, "warning")
    return keypoints, valid, doubts


def _sights(
    people: PoseBackend, clip: Clip, indices: tuple[int, ...], choice: Choice, fit: Callable[[Frame], Frame]
) -> Iterator[tuple[int, PersonPose]]:
    """(job frame, who is in it), each frame once."""
    first = frame_at(clip, indices, choice)
    yield from enumerate(people.track(map(fit, iter_indices(clip, indices[first:]))), start=first)
    if first:
        back = people.track(map(fit, iter_backwards(clip, indices[first::-1])))
        next(back)  # the frame that both ways start from
        yield from zip(range(first - 1, -1, -1), back, strict=True)


def frame_at(clip: Clip, indices: tuple[int, ...], choice: Choice) -> int:
    """The job frame that shows the clip at the choice's time; the first one where it has none.

    Raises:
        InputError: the clip ends before.
    """
    if choice.at is None:
        return 0
    if choice.at > clip.duration:
        raise InputError(
            "preprocess.person", choice, f"the clip ends at {clip.duration:.2f} s", "Give a time within the clip"
        )
    return int(np.argmin([abs(clip.times[i] - clip.times[0] - choice.at) for i in indices]))


def report_doubts(keypoints: Keypoints, valid: npt.NDArray[np.bool_], found: Sequence[str]) -> list[str]:
    """Where the person followed may be another, or was hardly seen, in words."""
    doubts = []
    if others := [i for i, how in enumerate(found) if how == "other"]:
        where = ", ".join(str(i) for i in others[:10])
        doubts.append(
            f"from frame {where} on, somebody who may not be the person before is followed; "
            f"{setting('preprocess.person')} chooses one"
        )
    if again := [i for i, how in enumerate(found) if how == "again"]:
        where = ", ".join(str(i) for i in again[:10])
        doubts.append(f"the chosen person was lost and, by their clothes, found again elsewhere in frame {where}")
    unsure = np.array([how == "unsure" for how in found])
    if unsure.any():
        doubts.append(
            f"somebody who looks like the chosen person is so near in {_spans(unsure)} that they may be mixed up from there on"
        )
    hardly = valid & (keypoints[:, HEAD_AND_SHOULDERS, 2].mean(axis=1) < _SURE)
    if hardly.any():
        doubts.append(f"head and shoulders were seen with low confidence in {_spans(hardly)}")
    return doubts


def report_missing(valid: npt.NDArray[np.bool_]) -> str | None:
    return None if valid.all() else f"no person was found in {_spans(~valid)}"


def _spans(flags: npt.NDArray[np.bool_]) -> str:
    """ "3 of 12 frames (2, 6-7)" """
    spans = runs(flags)
    ranges = ", ".join(str(a) if b == a + 1 else f"{a}-{b - 1}" for a, b in spans[:10])
    more = f" and {len(spans) - 10} more stretches" if len(spans) > 10 else ""
    return f"{int(flags.sum())} of {len(flags)} frames ({ranges}{more})"


def _fit(
    keypoints: Keypoints,
    valid: npt.NDArray[np.bool_],
    clip_size: tuple[int, int],
    character: Keypoints | None,
    size: tuple[int, int],
    settings: PreprocessSettings,
) -> Drawing:
    """Joints as they will be drawn. With `compat`, "auto" means the published retargeting."""
    if character is None:
        if settings.compat:
            parts = split(keypoints)
            body = reuse_body_when_outside(parts.body)
            return Drawing(Parts(body, parts.left_hand, parts.right_hand, parts.face), clip_size, {"mode": "off"})
        return Drawing(retarget.off(keypoints, clip_size, size), size, {"mode": "off"})
    if settings.retarget == "published" or settings.compat:
        first = int(np.flatnonzero(valid)[0])
        parts, old = retarget_published.retarget(keypoints, clip_size, character, size, first=first)
        facts = {"mode": "published", "scale": old.scale, "ratios": old.ratios.tolist(), "class": old.body_class}
        return Drawing(parts, size, facts)
    parts, new = retarget.auto(keypoints, valid, clip_size, character, size)
    facts = {"mode": "auto", "scale": new.scale, "ratios": new.ratios.tolist(), "hands": new.hands}
    return Drawing(parts, size, facts | {"anchor": new.anchor})


def _skeleton(drawing: Drawing, index: int, size: tuple[int, int]) -> Frame:
    parts = drawing.parts.at(index)
    hands = parts.left_hand, parts.right_hand
    if drawing.retarget["mode"] == "published":
        hands = hands[::-1]  # the published code draws the right hand first here (section 13, step 10)
    picture = draw(parts.body, *hands, *drawing.canvas)
    return picture if drawing.canvas == size else letterbox(picture, *size)


def face_crops(
    frames: Iterable[Frame],
    size: tuple[int, int],
    settings: PreprocessSettings,
    keypoints: Keypoints,
    valid: npt.NDArray[np.bool_],
    squares: Squares,
) -> Iterator[Frame]:
    """Face crops, one a frame. Black where nobody is; with `compat`, the last usable box stays in force."""
    box: tuple[int, int, int, int] | None = None
    for i, frame in enumerate(frames):
        if not settings.compat:
            yield square_crop(frame, squares[i], settings.face_size)
            continue
        new = published_box(keypoints[i, FACE], *size)
        if is_usable(new):
            box = new
        if box is None or not valid[i]:
            yield np.zeros((settings.face_size, settings.face_size, 3), dtype=np.uint8)
        else:
            yield published_crop(frame, box, settings.face_size)


def arrays(keypoints: Keypoints, drawing: Drawing, squares: Squares) -> dict[str, npt.NDArray[Any]]:
    parts = drawing.parts
    named = {"source": keypoints, "body": parts.body, "left_hand": parts.left_hand, "right_hand": parts.right_hand}
    return {name: a.astype(np.float32) for name, a in (named | {"face_squares": squares}).items()}


def manifest(
    clip: Clip,
    image: Frame,
    settings: PreprocessSettings,
    people: PoseBackend,
    indices: tuple[int, ...],
    fps: Fraction,
    valid: npt.NDArray[np.bool_],
    drawing: Drawing,
    warnings: list[str],
) -> dict[str, Any]:
    return {
        "no_person": runs(~valid),
        "source": {
            "path": str(clip.path.resolve()),
            "sha256": sha256(clip.path),
            "size": [clip.width, clip.height],
            "fps": str(clip.fps),
            "frames": list(indices),
            "times": [round(clip.times[i], 6) for i in indices],
        },
        "image": {"sha256_of_pixels": hashlib.sha256(image.tobytes()).hexdigest(), "size": list(image.shape[1::-1])},
        "backend": people.name,
        "smooth": settings.smooth and not settings.compat,
        "compat": settings.compat,
        "retarget": drawing.retarget,
        "warnings": warnings,
        "versions": {
            "wanimate": importlib.metadata.version("wanimate"),
            "opencv": cv2.__version__,
            "numpy": np.__version__,
        },
    }
