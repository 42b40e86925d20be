"""The published detectors, YOLOv10m and ViTPose-H, through onnxruntime (preprocess spec, sections 1, 6 and 7).

With `compat` everything is as published, number for number: the pose network gets its colours swapped (a defect), boxes
of any class suppress people, and without a person the whole frame is the box. The default feeds RGB, takes boxes of people
only, follows the person it started with, and says when nobody is there.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from wanimate.errors import InputError, setting
from wanimate.media.files import in_utf8
from wanimate.preprocess.detect.heatmaps import decode
from wanimate.preprocess.detect.tiles import DEEP, PATIENCE, tiles
from wanimate.preprocess.people.choice import TWICE, Choice, box
from wanimate.preprocess.people.tracking import Tracker
from wanimate.preprocess.pose.keypoints import BODY, has_person
from wanimate.preprocess.pose.person import PersonPose, nobody
from wanimate.types import Frame, Keypoints

Array = npt.NDArray[np.float32]
Session = Callable[[Array], Array]
"""A network: its one input to its one output."""

_DETECTOR, _POSE = Path("det/yolov10m.onnx"), Path("pose2d/vitpose_h_wholebody.onnx")
_DETECTOR_SIDE = 640
_CROP = (192, 256)
_MIN_SCORE, _MAX_OVERLAP = 0.05, 0.5
_SAME_BOX = 0.3
_WEAK, _CLEARLY = 0.5, 0.1
"""Below this mean confidence of the body, turned pictures are tried; one has to be surer by the second."""
_CROWD, _CROWD_SCORE = 8, 0.25
"""At most so many people of a crowd are measured, and only those detected with this score."""
_MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
_STD = np.array([0.229, 0.224, 0.225], dtype=np.float32)
_OTHER_FILE = "Give the published file"


@dataclass(frozen=True)
class Box:
    """A person's box in frame pixels. The score -1 means that nobody was found; the box is the whole frame then."""

    x1: float
    y1: float
    x2: float
    y2: float
    score: float

    def overlap(self, other: Box) -> float:
        """Intersection over union."""
        wide = max(min(self.x2, other.x2) - max(self.x1, other.x1), 0)
        high = max(min(self.y2, other.y2) - max(self.y1, other.y1), 0)
        areas = sum((b.x2 - b.x1) * (b.y2 - b.y1) for b in (self, other))
        return wide * high / max(areas - wide * high, 1e-9)


@dataclass(frozen=True)
class _Followed:
    """The box of a followed person, None of nobody, and the quarter turns of the picture in which they are upright."""

    box: Box | None = None
    turns: int = 0


class PublishedBackend:
    """YOLOv10m finds the person, ViTPose-H the 133 points. `load` reads both from a published folder."""

    name = "published"

    def __init__(
        self, detector: Session, pose: Session, compat: bool = False, choice: Choice = Choice("largest")
    ) -> None:
        self._detector, self._pose, self._compat, self._choice = detector, pose, compat, choice

    @classmethod
    def load(cls, folder: Path | None, compat: bool = False, choice: Choice = Choice("largest")) -> PublishedBackend:
        """Args: folder: the published `process_checkpoint` folder (section 1).

        Raises:
            InputError: no folder, a model file is missing or unreadable, or onnxruntime is not installed.
        """
        if folder is None:
            remedy = f"Give the process_checkpoint folder of Wan2.2-Animate-14B with {setting('preprocess.models')}"
            raise InputError("preprocess.models", None, "the published backend needs its model files", remedy)
        pose = folder / _POSE
        pose = pose / "end2end.onnx" if pose.is_dir() else pose
        return cls(_session(folder / _DETECTOR), _session(pose), compat, choice)

    def detect(self, image: Frame) -> PersonPose | None:
        person, _ = self._published(image) if self._compat else self._detect(image, _Followed(), True)
        return person if person.valid or self._compat else None

    def track(self, frames: Iterable[Frame], tracker: Tracker | None = None) -> Iterator[PersonPose]:
        """See `PoseBackend`. Where nobody in particular was chosen, it does as `MediapipeBackend`."""
        tracker = Tracker(self._choice) if tracker is None else tracker
        start, lost = tracker.known, 0
        before = _Followed() if start is None else _Followed(Box(*box(start), score=1.0))
        for frame in frames:
            if self._compat:
                person, _ = self._published(frame)
                yield tracker.follow_anybody(person, frame)
                continue
            deep = start is None and lost % DEEP == 0
            if tracker.choice.is_anybody:
                person, before = self._follow_anybody(frame, before, tracker, deep, lost < PATIENCE)
            else:
                person = self._follow_chosen(frame, tracker, deep)
            lost = 0 if person.valid else lost + 1
            yield person

    def candidates(self, image: Frame, deep: bool = True) -> list[PersonPose]:
        return [person for _, person in self._everybody(image, deep)]

    def _everybody(self, image: Frame, deep: bool) -> list[tuple[_Followed, PersonPose]]:
        height, width = image.shape[:2]
        boxes = self._people(image, _CROWD_SCORE, deep)
        people = [self._turned(image, _Followed(one), deep) for one in boxes[:_CROWD]]
        return [(one, PersonPose(p, True, "detector")) for one, p in people if has_person(p, width, height)]

    def _follow_chosen(self, frame: Frame, tracker: Tracker, deep: bool) -> PersonPose:
        people = [person for _, person in self._everybody(frame, deep)]
        points = [p.keypoints for p in people]
        found = tracker.find(points, frame)
        if found is None:
            return nobody()
        index, how = found
        unsure = tracker.is_unsure(points[index], points)
        tracker.keep(points[index], frame)
        tracker.note_others(points, frame)
        return replace(people[index], found="unsure" if unsure else how or people[index].found)

    def _follow_anybody(
        self, frame: Frame, before: _Followed, tracker: Tracker, deep: bool, patient: bool
    ) -> tuple[PersonPose, _Followed]:
        """Whoever is there. Somebody else is taken for the person only after some frames."""
        person, here = self._detect(frame, before, deep)
        after_cut = tracker.known is None and tracker.has_look
        if person.valid and (after_cut or not tracker.is_next(person.keypoints, frame)):
            people = self._everybody(frame, deep)
            patient = patient and not after_cut
            index = tracker.nearest_look([p.keypoints for _, p in people], frame, patient)
            here, person = (before, nobody()) if index is None else people[index]
        return tracker.follow_anybody(person, frame), here if person.valid else before

    def _points(self, frame: Frame, where: Box) -> Keypoints:
        crop, centre, size = pose_input(frame[..., ::-1] if self._compat else frame, where)
        maps = self._pose(crop)
        if maps.ndim != 4 or maps.shape[:2] != (1, 133) or not np.isfinite(maps).all():
            raise _strange("pose", maps)
        return decode(maps[0], centre, size)

    def _turned(self, frame: Frame, who: _Followed, again: bool) -> tuple[_Followed, Keypoints]:
        """The points of somebody who may lie or stand on their head: surest in the picture turned as they are.

        Args:
            who: box, and the quarter turns with which they were seen last, which are tried first.
            again: try the others where that is not sure.
        """
        assert who.box is not None
        best, points = who, self._in_turned(frame, who.box, who.turns)
        if again or who.turns:
            for turns in (t for t in range(4) if t != who.turns):
                if _sureness(points) >= _WEAK:
                    break
                other = self._in_turned(frame, who.box, turns)
                if _sureness(other) > _sureness(points) + _CLEARLY:
                    best, points = _Followed(who.box, turns), other
        return best, points

    def _in_turned(self, frame: Frame, where: Box, turns: int) -> Keypoints:
        """Points as seen in the frame turned by quarters against the clock, in pixels of the frame."""
        size = np.array(frame.shape[1::-1], dtype=float)
        corners = turned(np.array([[where.x1, where.y1], [where.x2, where.y2]]), size, turns)
        (x1, y1), (x2, y2) = corners.min(axis=0), corners.max(axis=0)
        points = self._points(np.rot90(frame, turns), Box(x1, y1, x2, y2, where.score))
        points[:, :2] = turned(points[:, :2], size if turns % 2 == 0 else size[::-1], -turns % 4)
        return points

    def _rows(self, frame: Frame) -> Array:
        """What the detector says, [n, 6]."""
        rows = self._detector(detector_input(frame))
        if rows.ndim != 3 or (rows.shape[0], rows.shape[2]) != (1, 6) or not np.isfinite(rows).all():
            raise _strange("person detection", rows)
        return rows[0]

    def _people(self, frame: Frame, score: float, deep: bool) -> list[Box]:
        """Boxes of people; with `deep` those of its tiles where the whole frame shows nobody."""
        height, width = frame.shape[:2]
        people = _boxes_of_people(self._rows(frame), width, height, score)
        if people or not deep:
            return people
        found = []
        for left, top, side in ((int(x), int(y), int(s)) for x, y, s in tiles(width, height)):
            tile = np.ascontiguousarray(frame[top : top + side, left : left + side])
            for b in _boxes_of_people(self._rows(tile), tile.shape[1], tile.shape[0], _CROWD_SCORE):
                found.append(Box(b.x1 + left, b.y1 + top, b.x2 + left, b.y2 + top, b.score))
        kept: list[Box] = []
        for one in sorted(found, key=lambda b: -b.score):
            if all(one.overlap(other) < _MAX_OVERLAP for other in kept):
                kept.append(one)
        return kept

    def _detect(self, frame: Frame, before: _Followed, deep: bool) -> tuple[PersonPose, _Followed]:
        """The person of the frame before, else the largest."""
        height, width = frame.shape[:2]
        people = self._people(frame, _MIN_SCORE, deep)
        if not people:
            return nobody(), before
        here = nearest_box(people, before.box)
        turns = before.turns if before.box is not None and before.box.overlap(here) >= _SAME_BOX else 0
        who, points = self._turned(frame, _Followed(here, turns), deep or before.box is None)
        if not has_person(points, width, height):
            return nobody(), before
        others = [b for b in people if b.score >= _CROWD_SCORE and b.overlap(here) < TWICE]
        return PersonPose(points, True, "detector", others=len(others)), who

    def _published(self, frame: Frame) -> tuple[PersonPose, Box]:
        """As published, number for number."""
        height, width = frame.shape[:2]
        where = person_box(self._rows(frame), width, height)
        points = self._points(frame, where)
        return PersonPose(points, has_person(points, width, height), "detector"), where


def _boxes_of_people(rows: Array, width: int, height: int, score: float) -> list[Box]:
    return people_boxes(rows[(rows[:, 5] == 0) & (rows[:, 4] >= score)], width, height)


def _sureness(points: Keypoints) -> float:
    return float(points[BODY, 2].mean())


def turned(points: npt.NDArray[np.float64], size: npt.NDArray[np.float64], turns: int) -> npt.NDArray[np.float64]:
    """Points [n, 2] of a picture of `size` (width, height) in pixels of `np.rot90(picture, turns)`."""
    x, y = points[:, 0], points[:, 1]
    ways = ((x, y), (y, size[0] - x), (size[0] - x, size[1] - y), (size[1] - y, x))
    return np.stack(ways[turns], axis=1)


def _strange(kind: str, answer: Array) -> InputError:
    rule = f"the {kind} network answers {list(answer.shape)} or what are no numbers; it is damaged, or another network"
    return InputError("preprocess.models", "", rule, _OTHER_FILE)


def _session(path: Path) -> Session:
    if not path.is_file():
        remedy = "Give the process_checkpoint folder of Wan2.2-Animate-14B"
        raise InputError("preprocess.models", path, "this model file is missing", remedy)
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError("preprocess.backend", "published", "needs onnxruntime", "Install wanimate[onnx]") from error
    wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
    providers = [p for p in wanted if p in onnxruntime.get_available_providers()]
    try:
        with in_utf8(path) as spelled:
            session: Any = onnxruntime.InferenceSession(spelled, providers=providers)
        name, shape = session.get_inputs()[0].name, session.get_inputs()[0].shape
    except Exception as error:  # onnxruntime raises its own unrelated classes for unreadable files
        rule = "it cannot be loaded: it is damaged, or no network"
        raise InputError("preprocess.models", path, rule, "Download it again") from error
    if len(session.get_inputs()) != 1 or len(shape) != 4 or not session.get_outputs():
        raise InputError("preprocess.models", path, "it is another network: it takes no pictures", _OTHER_FILE)

    def run(array: Array) -> Array:
        try:
            return np.asarray(session.run(None, {name: array})[0], dtype=np.float32)
        except Exception as error:
            raise InputError("preprocess.models", path, "it is damaged, or another network", _OTHER_FILE) from error

    return run


def detector_input(frame: Frame) -> Array:
    """The whole frame squeezed to 640 x 640, RGB, 0..1, float32 [1, 3, 640, 640] (section 6)."""
    small = cv2.resize(frame, (_DETECTOR_SIDE, _DETECTOR_SIDE), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(np.transpose(small, (2, 0, 1))[None].astype(np.float32) / np.float32(255))


def person_box(rows: Array, width: int, height: int) -> Box:
    """The largest person of detector rows [n, 6] (x1, y1, x2, y2 in 640 space, score, class; section 6).

    Nobody: the whole frame with score -1.
    """
    people = people_boxes(rows, width, height)
    return _largest(people) if people else Box(0.0, 0.0, float(width), float(height), -1.0)


def nearest_box(people: list[Box], before: Box | None) -> Box:
    """The one of some people that overlaps the box before most, if it does by at least 0.3; else the largest."""
    if before is not None:
        nearest = max(people, key=before.overlap)
        if before.overlap(nearest) >= _SAME_BOX:
            return nearest
    return _largest(people)


def people_boxes(rows: Array, width: int, height: int) -> list[Box]:
    """Everybody in detector rows [n, 6], best score first; suppression runs over all rows, whatever their class."""
    rows = rows[rows[:, 4] >= _MIN_SCORE]
    scale = np.array([width, height] * 2, dtype=np.float32) / np.float32(_DETECTOR_SIDE)
    corners = rows[:, :4] * scale
    boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1).astype(np.int32)
    kept = cv2.dnn.NMSBoxes(boxes.tolist(), rows[:, 4].tolist(), _MIN_SCORE, _MAX_OVERLAP) if len(rows) else ()
    people = []
    for i in np.asarray(kept, dtype=int).reshape(-1):
        x, y, w, h = (float(v) for v in boxes[i])
        if rows[i, 5] == 0 and rows[i, 4] > _MIN_SCORE:
            people.append(Box(x, y, x + w, y + h, float(rows[i, 4])))
    return people


def _largest(people: list[Box]) -> Box:
    """The published choice: by area, leaving out boxes whose longer side is short beside the one to beat."""

    def side(one: Box) -> float:
        return max(one.x2 - one.x1, one.y2 - one.y1)

    longest, most, chosen = max(map(side, people)), -np.inf, people[0]
    for one in people:
        area = (one.x2 - one.x1) * (one.y2 - one.y1)
        if area > most and side(one) >= 0.4 * longest:
            chosen, most, longest = one, area, side(one)
    return chosen


def pose_input(frame: npt.NDArray[np.uint8], box: Box) -> tuple[Array, tuple[float, float], tuple[float, float]]:
    """The pose network's crop, float32 [1, 3, 256, 192], normalised (section 7).

    The channel order is that of `frame`. Outside of the frame is black. Returns the crop, its centre and its size in
    frame pixels (before the corners are rounded, as `decode` needs them).
    """
    height, width = frame.shape[:2]
    x1, y1, x2, y2 = box.x1, box.y1, box.x2, box.y2
    if box.score <= 0 or x2 - x1 < 10 or y2 - y1 < 10:
        x1, y1, x2, y2 = 0.0, 0.0, float(width), float(height)
    out_w, out_h = _CROP
    aspect = out_h / out_w
    cx, cy = (x1 + x2) / 2, (y1 + y2) / 2
    high = max((x2 - x1) * aspect, y2 - y1) * 1.25
    wide = high / aspect
    matrix = np.array(
        [[out_w / wide, 0, out_w * (-cx / wide + 0.5)], [0, out_h / high, out_h * (-cy / high + 0.5)], [0, 0, 1]]
    )
    inverse = np.linalg.inv(matrix)
    (left, top), (right, bottom) = (
        (round(float(x)), round(float(y))) for x, y, _ in (inverse @ (0, 0, 1), inverse @ (out_w, out_h, 1))
    )
    canvas = _sparse((bottom - top, right - left, 3))
    a, b, c, d = max(left, 0), min(right, width), max(top, 0), min(bottom, height)
    if a < b and c < d:
        rows = _resampled(bottom - top, out_h) + top
        rows = rows[(rows >= c) & (rows < d)]
        canvas[rows - top, a - left : b - left] = frame[rows, a:b]
    crop = cv2.resize(canvas, _CROP, interpolation=cv2.INTER_LINEAR)
    crop = (crop / np.float32(255) - _MEAN) / _STD
    return np.ascontiguousarray(crop.transpose(2, 0, 1)[None], dtype=np.float32), (cx, cy), (wide, high)


def _sparse(shape: tuple[int, ...]) -> Array:
    """Zeros that take memory where they are written only. NumPy would ask for pages of 2 MB, which hold many rows."""
    pages = mmap.mmap(-1, 4 * math.prod(shape))
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        with suppress(OSError):  # a kernel that knows no huge pages
            pages.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(pages, np.float32).reshape(shape)


def _resampled(size: int, out: int) -> npt.NDArray[np.intp]:
    """The rows that a bilinear resize from `size` to `out` rows reads, and their neighbours; the others take no memory."""
    nearest = np.floor((np.arange(out) + 0.5) * (size / out) - 0.5).astype(np.intp)
    return np.unique(np.clip(nearest[:, None] + np.arange(-1, 3), 0, size - 1))
