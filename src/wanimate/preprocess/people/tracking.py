"""Following the person who was chosen, and nobody else: by where they are, and by the colours they wear.

A person who was lost is taken up again near the place where that happened, if they look the same; or anywhere, if nobody
else who was seen in the clip looks like them. Keypoints are [133, 3] in pixels of the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from wanimate.errors import InputError
from wanimate.preprocess.people.appearance import Look, look_of, unlike
from wanimate.preprocess.people.choice import ABSENCE, TWICE, Choice, box, overlap, pick, same_person
from wanimate.preprocess.pose.person import PersonPose
from wanimate.types import Frame, Keypoints

# Looks of one person through a clip differ by up to 0.34 from the first one, those of different people by 0.56 and more
# (eight rendered people, the packaged performer, a filmed dancer; dev/LOG.md, 2026-11-25).
_SURE, _SAME, _OTHER = 0.35, 0.45, 0.5
_NEW, _SUDDEN, _TOWARDS = 0.25, 0.6, 0.1
"""Looks farther than the first from all known ones are remembered; nobody's look changes by the second from one frame to
the next; and one that comes nearer to another person's by the third may be that person, in front."""
_REMEMBERED = 16


class Chosen:
    """Who is followed through one clip, with what is known of them and of the others so far."""

    def __init__(self, choice: Choice) -> None:
        self.choice = choice
        self.known: Keypoints | None = None
        self._looks: list[Look] = []
        self._last: Look | None = None
        self._others: list[Look] = []

    @property
    def has_double(self) -> bool:
        """Whether somebody else was seen who may look like them."""
        return any(_nearest(self._looks, other) < _OTHER for other in self._others)

    def follows(self, person: Keypoints, frame: Frame) -> bool:
        """Whether a sight can be the known person's next one: near, and of a look that they have or can have got."""
        if self.known is None:
            return True
        if not same_person(self.known, person):
            return False
        look = look_of(frame, person)
        if look is None or self._last is None:
            return True  # only the place can tell
        if _nearest(self._looks, look) < _SAME:
            return True
        return unlike(self._last, look) < _SUDDEN and not self._is_towards_another(look)

    def among(self, people: Sequence[Keypoints], frame: Frame) -> tuple[int, str] | None:
        """Which of the people in a frame they are: chosen if nobody is known yet, else found again. "again": elsewhere.

        Raises:
            InputError: whoever was asked for is not there.
        """
        if self.known is None:
            return self._choose(people, frame)
        known = self.known
        if going_on := [i for i, p in enumerate(people) if self.follows(p, frame)]:
            return self._largest_overlap(going_on, people), ""
        looks = [look_of(frame, p) for p in people]
        far = [1.0 if look is None else _nearest(self._looks, look) for look in looks]
        near = [
            i for i, p in enumerate(people)
            if same_person(known, p, ABSENCE) and (far[i] < _SAME or looks[i] is None or not self._looks)
        ]  # fmt: skip
        if near:
            return self._largest_overlap(near, people), ""
        alike = [i for i, distance in enumerate(far) if distance < _SURE]
        return (alike[0], "again") if len(alike) == 1 and not self.has_double else None

    def keep(self, person: Keypoints, frame: Frame) -> None:
        """This sight was theirs."""
        self.known = person
        if (look := look_of(frame, person)) is None:
            return
        self._last = look
        if _nearest(self._looks, look) >= _NEW and not self._is_towards_another(look):
            self._looks = [*self._looks[:1], *self._looks[1:][-_REMEMBERED:], look]

    def note_others(self, people: Sequence[Keypoints], frame: Frame) -> None:
        """Remember how everybody looks who is not the known person."""
        assert self.known is not None
        for person in people:
            if overlap(box(self.known), box(person)) >= TWICE or same_person(self.known, person):
                continue
            look = look_of(frame, person)
            if look is not None and _nearest(self._others, look) >= _NEW:
                self._others = [*self._others[-_REMEMBERED:], look]

    def is_unsure(self, mine: Keypoints, people: Sequence[Keypoints]) -> bool:
        """Whether somebody else of these people, in a clip with a double, stands where the known person can be now."""
        if self.known is None or not self.has_double:
            return False
        others = (p for p in people if overlap(box(mine), box(p)) < TWICE)
        return any(same_person(self.known, p, ABSENCE) for p in others)

    def anybody(self, sight: PersonPose, frame: Frame) -> PersonPose:
        """Whoever is there is followed: the sight, as "other" in `found` where it cannot be the person before."""
        if not sight.valid:
            return sight
        if not self.follows(sight.keypoints, frame):
            sight, self._looks, self._last = replace(sight, found="other"), [], None
        self.keep(sight.keypoints, frame)
        return sight

    def _choose(self, people: Sequence[Keypoints], frame: Frame) -> tuple[int, str] | None:
        if people:
            return pick(self.choice, people), ""
        if self.choice.at is None:
            return None
        remedy = "Look at the candidates with `wanimate preprocess --list-people`"
        raise InputError("preprocess.person", self.choice, f"nobody was found {self.choice.when}", remedy)

    def _largest_overlap(self, some: Sequence[int], people: Sequence[Keypoints]) -> int:
        assert self.known is not None
        here = box(self.known)
        return max(some, key=lambda i: overlap(here, box(people[i])))

    def _is_towards_another(self, look: Look) -> bool:
        return any(
            unlike(other, look) < unlike(other, self._looks[0]) - _TOWARDS for other in self._others if self._looks
        )


def _nearest(looks: Sequence[Look], look: Look) -> float:
    return min((unlike(known, look) for known in looks), default=1.0)
