"""The default backend: MediaPipe's TFLite networks. `bodies` finds and follows; here one person is kept to, and told apart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from wanimate.preprocess.detect.bodies import Bodies, Body
from wanimate.preprocess.detect.checks import looks_away
from wanimate.preprocess.detect.hands import find_hands
from wanimate.preprocess.detect.landmarks import Hand, Networks
from wanimate.preprocess.detect.litert import Picture, Vectors
from wanimate.preprocess.detect.tiles import DEEP, PATIENCE
from wanimate.preprocess.people.choice import TWICE, Choice, box, overlap, same_person
from wanimate.preprocess.people.tracking import Tracker
from wanimate.preprocess.pose.keypoints import FACIAL, LEFT_WRIST, RIGHT_WRIST, from_mediapipe, has_person
from wanimate.preprocess.pose.person import PersonPose, nobody
from wanimate.types import Frame, Keypoints

_COUNT, _SURVEY = 24, 8
"""The people beside the tracked one are detected every so many frames: where anybody is tracked, and where one was chosen."""
_SAME = 0.05
"""Two detections are of one person where heads and shoulders are this near, in heights of the seen body."""


@dataclass(frozen=True)
class _Detection:
    """Everything found of one person in one frame, kept to find it again in the next one."""

    body: Body
    left: Hand | None
    right: Hand | None


class _When(NamedTuple):
    """survey: count the others; deep: look at turned pictures and tiles where nobody is found; lost: for so many frames."""

    survey: bool
    deep: bool
    lost: int


def is_twice(a: Keypoints, b: Keypoints) -> bool:
    """Whether two detections in one picture are of one person. Their boxes differ where only one of them has an arm."""
    return overlap(box(a), box(b)) >= TWICE or same_person(a, b, _SAME)


class MediapipeBackend:
    """Body, face and hands of one person. Not for use by several threads at once."""

    name = "mediapipe"

    def __init__(self, folder: Path, choice: Choice = Choice("largest")) -> None:
        self._networks, self._choice = Networks(folder), choice

    def detect(self, image: Frame) -> PersonPose | None:
        picture = Picture(image)
        body = self._bodies.main(picture, deep=True)
        person = _person(None if body is None else self._with_hands(picture, body, None), image)
        return person if person.valid else None

    def track(self, frames: Iterable[Frame], tracker: Tracker | None = None) -> Iterator[PersonPose]:
        """See `PoseBackend`.

        Where nobody in particular was chosen, whoever is there is followed. `found` is "other" in the first frame with
        somebody who cannot be the person before.
        """
        tracker = Tracker(self._choice) if tracker is None else tracker
        start, before, lost = tracker.known, None, 0
        for i, frame in enumerate(frames):
            picture = Picture(frame)
            if i == 0 and start is not None and (body := self._bodies.at(picture, start)) is not None:
                before = self._with_hands(picture, body, None)
                yield _person(before, frame)
                continue
            step, often = self._follow_chosen, _SURVEY
            if tracker.choice.is_anybody:
                step, often = self._follow_anybody, _COUNT
            when = _When(i % often == 0, start is None and lost % DEEP == 0, lost)
            before, person = step(picture, frame, before, tracker, when)
            lost = 0 if person.valid else lost + 1
            yield person

    def candidates(self, image: Frame, deep: bool = True) -> list[PersonPose]:
        """Everybody found in a picture [H, W, 3], without hands, in no order."""
        return [person for _, person in self._everybody(Picture(image), image, deep)]

    @property
    def _bodies(self) -> Bodies:
        return Bodies(self._networks)

    def _everybody(
        self, picture: Picture, frame: Frame, deep: bool, known: Body | None = None
    ) -> list[tuple[Body, PersonPose]]:
        """All people; `known`: but this one, who is found already."""
        mine = [] if known is None else [(known, _person(_Detection(known, None, None), frame))]
        kept = list(mine)
        for body in self._bodies.everybody(picture, deep, known):
            person = _person(_Detection(body, None, None), frame)
            if person.valid and not any(is_twice(person.keypoints, other.keypoints) for _, other in kept):
                kept.append((body, person))
        return kept[len(mine) :]

    def _follow_anybody(
        self, picture: Picture, frame: Frame, before: _Detection | None, tracker: Tracker, when: _When
    ) -> tuple[_Detection | None, PersonPose]:
        """Whoever is there in the next frame.

        Somebody who steps in front is not followed at once: the person has a few frames to come out again.
        """
        body = None if before is None else self._bodies.follow(picture, before.body)
        seen = None if body is None else self._with_hands(picture, body, before)
        person = _person(seen, frame)
        if not tracker.goes_on(person, frame):
            body = self._anybody(picture, frame, tracker, when)
            seen = None if body is None else self._with_hands(picture, body, None)
            person = _person(seen, frame)
        if seen is None or not person.valid:
            return None, nobody()
        person = tracker.follow_anybody(person, frame)
        if when.survey:
            others = [other.keypoints for _, other in self._everybody(picture, frame, False, seen.body)]
            tracker.note_others(others, frame)
            person = replace(person, others=len(others))
        return seen, person

    def _anybody(self, picture: Picture, frame: Frame, tracker: Tracker, when: _When) -> Body | None:
        """Whom to follow where the person is lost, or not known yet."""
        if not tracker.has_look:
            return self._bodies.main(picture, when.deep)
        people = self._everybody(picture, frame, when.deep)
        patient = tracker.known is not None and when.lost < PATIENCE
        index = tracker.nearest_look([p.keypoints for _, p in people], frame, patient)
        return None if index is None else people[index][0]

    def _follow_chosen(
        self, picture: Picture, frame: Frame, before: _Detection | None, tracker: Tracker, when: _When
    ) -> tuple[_Detection | None, PersonPose]:
        """The chosen person in the next frame. One who was lost is taken up again if it can be the same.

        With a look-alike everybody is detected in every frame, to tell when the two may have been mixed up.
        """
        body = None if before is None else self._bodies.follow(picture, before.body)
        seen = None if body is None else self._with_hands(picture, body, before)
        person = _person(seen, frame)
        followed = tracker.goes_on(person, frame)
        alone = followed and not when.survey and not tracker.has_lookalike
        people = [] if alone else self._everybody(picture, frame, when.deep)
        points = [p.keypoints for _, p in people]
        if not followed:
            found = tracker.find(points, frame)
            if found is None:
                return None, nobody()
            index, how = found
            seen = self._with_hands(picture, people[index][0], None)
            person = _person(seen, frame)
            person = replace(person, found=how or person.found)
        if tracker.is_unsure(person.keypoints, points):
            person = replace(person, found="unsure")
        tracker.keep(person.keypoints, frame)
        tracker.note_others(points, frame)
        return seen, person

    def _with_hands(self, picture: Picture, body: Body, before: _Detection | None) -> _Detection:
        hands: tuple[Hand | None, Hand | None] = (None, None)
        moved: Vectors | None = None
        if before is not None:
            hands = before.left, before.right
            moved = body.pose.points[[15, 16], :2] - before.body.pose.points[[15, 16], :2]
        return _Detection(body, *find_hands(self._networks, picture, body.pose, hands, moved))


def _person(seen: _Detection | None, frame: Frame) -> PersonPose:
    if seen is None:
        return nobody()
    pose, mesh = seen.body.pose, seen.body.mesh
    left, right = (None if hand is None else hand.points for hand in (seen.left, seen.right))
    points = from_mediapipe(pose.points, None if mesh is None else mesh.points, left, right)
    if mesh is None and looks_away(pose):
        points[FACIAL, 2] = 0
    # Body and hand disagree about the wrist by a third of a palm; the hand knows better (section 17).
    for row, hand in ((LEFT_WRIST, left), (RIGHT_WRIST, right)):
        if hand is not None:
            points[row, :2] = hand[0, :2]
    if not has_person(points, frame.shape[1], frame.shape[0]):
        return nobody()
    return PersonPose(points, valid=True, found=seen.body.found)
