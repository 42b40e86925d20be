"""The default backend: MediaPipe's TFLite networks. They locate the face first, and every answer is checked.

A pose network can lock onto an upside-down body with full confidence, and its score does not reveal it (preprocess spec,
section 17). So the face is found first. It tells where and how large the body is, and every body has to agree with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from wanimate.preprocess.detect.hands import find_hands
from wanimate.preprocess.detect.landmarks import Hand, Mesh, Networks, Pose, face_square, person_square
from wanimate.preprocess.detect.litert import Picture, Square, Vectors
from wanimate.preprocess.people.choice import TWICE, Choice, box, overlap
from wanimate.preprocess.people.tracking import Tracker
from wanimate.preprocess.pose.keypoints import LEFT_WRIST, RIGHT_WRIST, from_mediapipe, has_person
from wanimate.preprocess.pose.person import PersonPose, nobody
from wanimate.types import Frame

_MIN_SCORE = 0.5
# A standing body, seen from its face: the hips are 4.5 face widths below it, the circle around the body 14 wide.
_HIPS_BELOW, _BODY_SIDE = 4.5, 14.0
_CROWD = 8
"""At most so many faces, and so many bodies, are measured of a crowd."""
_SURVEY = 8
"""The people beside a chosen person are detected every so many frames."""


@dataclass(frozen=True)
class _Detection:
    """Everything found of one person in one frame, kept to find it again in the next one."""

    pose: Pose
    mesh: Mesh | None
    left: Hand | None
    right: Hand | None
    found: str


class MediapipeBackend:
    """Body, face and hands of one person. Not for use by several threads at once."""

    name = "mediapipe"

    def __init__(self, folder: Path, choice: Choice = Choice("largest")) -> None:
        self._networks, self._choice = Networks(folder), choice

    def detect(self, image: Frame) -> PersonPose | None:
        person = _person(self._detect(Picture(image), None), image)
        return person if person.valid else None

    def track(self, frames: Iterable[Frame]) -> Iterator[PersonPose]:
        """See `PoseBackend`.

        Where nobody in particular was chosen, whoever is there is followed. `found` is "other" in the first frame with
        somebody who cannot be the person before.
        """
        tracker, before = Tracker(self._choice), None
        for i, frame in enumerate(frames):
            picture = Picture(frame)
            if not self._choice.is_anybody:
                before, person = self._follow_chosen(picture, frame, before, tracker, survey=i % _SURVEY == 0)
                yield person
                continue
            before = self._detect(picture, before)
            yield tracker.follow_anybody(_person(before, frame), frame)

    def candidates(self, frame: Frame) -> list[PersonPose]:
        """Everybody found in a picture [H, W, 3], without hands, in no order."""
        return [person for _, person in self._everybody(Picture(frame), frame)]

    def _everybody(self, picture: Picture, frame: Frame) -> list[tuple[_Detection, PersonPose]]:
        seen: list[_Detection] = []
        for face in sorted(self._networks.find_faces(picture, picture.whole()), key=lambda f: -f.area)[:_CROWD]:
            mesh = self._networks.face(picture, face_square(face))
            if mesh.score >= _MIN_SCORE:
                pose, found = self._pose(picture, mesh, None)
                seen += [] if pose is None else [_Detection(pose, mesh, None, None, found)]
        for body in self._networks.find_people(picture, picture.whole())[:_CROWD]:
            pose = self._networks.body(picture, person_square(body))
            if pose.score >= _MIN_SCORE:
                pose = self._networks.body(picture, pose.next)
            if pose.score >= _MIN_SCORE and plausible(pose, None):
                seen.append(_Detection(pose, None, None, None, "detector"))
        kept: list[tuple[_Detection, PersonPose]] = []
        for one in seen:
            person = _person(one, frame)
            here = box(person.keypoints)
            if person.valid and all(overlap(here, box(other.keypoints)) < TWICE for _, other in kept):
                kept.append((one, person))
        return kept

    def _follow_chosen(
        self, picture: Picture, frame: Frame, before: _Detection | None, tracker: Tracker, survey: bool
    ) -> tuple[_Detection | None, PersonPose]:
        """The chosen person in the next frame. One who was lost is taken up again if it can be the same.

        `survey`: detect everybody else, too. With a look-alike that is done in every frame, to tell when the two may have
        been mixed up.
        """
        seen = None if before is None else self._follow(picture, before)
        person = _person(seen, frame)
        followed = seen is not None and person.valid and tracker.is_next(person.keypoints, frame)
        alone = followed and not survey and not tracker.has_lookalike
        people = [] if alone else self._everybody(picture, frame)
        points = [p.keypoints for _, p in people]
        if not followed:
            found = tracker.find(points, frame)
            if found is None:
                return None, nobody()
            index, how = found
            again = people[index][0]
            hands = find_hands(self._networks, picture, again.pose, (None, None), None)
            seen = _Detection(again.pose, again.mesh, *hands, how or again.found)
            person = _person(seen, frame)
        if tracker.is_unsure(person.keypoints, points):
            person = replace(person, found="unsure")
        tracker.keep(person.keypoints, frame)
        tracker.note_others(points, frame)
        return seen, person

    def _detect(self, picture: Picture, before: _Detection | None) -> _Detection | None:
        seen = self._follow(picture, before)
        if seen is None and before is not None:
            return self._follow(picture, None)  # tracking led astray: start afresh
        return seen

    def _follow(self, picture: Picture, before: _Detection | None) -> _Detection | None:
        mesh = self._mesh(picture, before)
        pose, found = self._pose(picture, mesh, before)
        if pose is None:
            return None
        if mesh is None:
            mesh = self._mesh_on(picture, pose)
        hands: tuple[Hand | None, Hand | None] = (None, None)
        moved: Vectors | None = None
        if before is not None:
            hands = before.left, before.right
            moved = pose.points[[15, 16], :2] - before.pose.points[[15, 16], :2]
        return _Detection(pose, mesh, *find_hands(self._networks, picture, pose, hands, moved), found)

    def _mesh(self, picture: Picture, before: _Detection | None) -> Mesh | None:
        """The face: tracked if it was seen, else the largest one. While a body is tracked, only its own face counts."""
        if before is not None:
            if before.mesh is None:
                return None
            mesh = self._networks.face(picture, before.mesh.next)
            return mesh if mesh.score >= _MIN_SCORE else None
        for face in sorted(self._networks.find_faces(picture, picture.whole()), key=lambda f: -f.area):
            mesh = self._networks.face(picture, face_square(face))
            if mesh.score >= _MIN_SCORE:
                return mesh
        return None

    def _mesh_on(self, picture: Picture, pose: Pose) -> Mesh | None:
        """The face of a known body, detected around its head."""
        head = pose.points[[0, 7, 8], :2].mean(axis=0)
        shoulders = pose.points[[11, 12], :2]
        reach = max(np.hypot(*(shoulders.mean(axis=0) - head)), np.hypot(*(shoulders[0] - shoulders[1])) / 2)
        for face in self._networks.find_faces(picture, Square.at(head, 3.0 * float(reach))):
            mesh = self._networks.face(picture, face_square(face))
            if mesh.score >= _MIN_SCORE and plausible(pose, mesh):
                return mesh
        return None

    def _pose(self, picture: Picture, mesh: Mesh | None, before: _Detection | None) -> tuple[Pose | None, str]:
        for where, found in self._places(picture, mesh, before):
            pose = self._networks.body(picture, where)
            if found != "track" and pose.score >= _MIN_SCORE:
                pose = self._networks.body(picture, pose.next)  # once more, in the square that the first pass asks for
            if pose.score < _MIN_SCORE or not plausible(pose, mesh, upright=found != "track"):
                continue
            if found == "track" and before is not None and not _same_way_up(pose, before.pose):
                continue
            return pose, found
        return None, ""

    def _places(self, picture: Picture, mesh: Mesh | None, before: _Detection | None) -> Iterator[tuple[Square, str]]:
        if before is not None:
            yield before.pose.next, "track"
        if mesh is not None:
            down = mesh.down / np.hypot(*mesh.down)
            hips = mesh.centre + down * _HIPS_BELOW * mesh.width
            yield Square.at(hips, _BODY_SIDE * mesh.width, float(np.arctan2(-down[0], down[1]))), "face"
        for person in self._networks.find_people(picture, picture.whole())[:3]:
            yield person_square(person), "detector"


def plausible(pose: Pose, mesh: Mesh | None, upright: bool = True) -> bool:
    """Whether a body can be one, and belongs to the face (preprocess spec, section 17, corrections).

    With a face: the nose lies in it, the neck lies on its chin side, the shoulders are 0.9 to 4 face widths apart
    (0.2 from the side) and not mirrored, visible hips are below the shoulders. Without one: the head is on the other
    side of the neck than the hips, and where the body was not followed (`upright`) it is upright within 60 degrees.
    """
    p = pose.points[:, :2]
    neck, hips, nose = (p[11] + p[12]) / 2, (p[23] + p[24]) / 2, p[0]
    if mesh is None:
        spine = hips - neck
        opposite = float((nose - neck) @ spine) < 0
        return opposite and (not upright or bool(spine[1] > 0.5 * np.hypot(*spine)))
    width = mesh.width
    down = mesh.down / np.hypot(*mesh.down)
    across = mesh.points[263, :2] - mesh.points[33, :2]
    frontal = np.hypot(*across) > 0.5 * width
    shoulders = p[11] - p[12]
    apart = float(np.hypot(*shoulders)) / width
    return bool(
        np.hypot(*(nose - mesh.centre)) < 0.8 * width
        and (neck - mesh.centre) @ down > 0.3 * width
        and (0.9 if frontal else 0.2) <= apart <= 4.0
        and (not frontal or shoulders @ across > 0)
        and (pose.points[23:25, 2].max() < 0.5 or (hips - neck) @ down > 0)
    )


def _same_way_up(pose: Pose, before: Pose) -> bool:
    """Whether the spine rotated by less than 60 degrees in the picture since the frame before."""
    spines = [p.points[[23, 24], :2].mean(axis=0) - p.points[[11, 12], :2].mean(axis=0) for p in (pose, before)]
    return bool(spines[0] @ spines[1] > 0.5 * np.hypot(*spines[0]) * np.hypot(*spines[1]))


def _person(seen: _Detection | None, frame: Frame) -> PersonPose:
    if seen is None:
        return nobody()
    left, right = (None if hand is None else hand.points for hand in (seen.left, seen.right))
    points = from_mediapipe(seen.pose.points, None if seen.mesh is None else seen.mesh.points, left, right)
    # Body and hand disagree about the wrist by a third of a palm; the hand knows better (section 17).
    for row, hand in ((LEFT_WRIST, left), (RIGHT_WRIST, right)):
        if hand is not None:
            points[row, :2] = hand[0, :2]
    if not has_person(points, frame.shape[1], frame.shape[0]):
        return nobody()
    return PersonPose(points, valid=True, found=seen.found)
