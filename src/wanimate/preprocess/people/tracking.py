"""Tracking the chosen person, and nobody else, by place and by appearance.

A person who was lost is taken up again near the place of the loss if the appearance matches. Elsewhere they are taken up
again only if nobody else seen in the clip looks like them. Keypoints are [133, 3] in pixels of the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from wanimate.errors import InputError
from wanimate.preprocess.people.appearance import Appearance, appearance_of, distance
from wanimate.preprocess.people.choice import (
    ABSENCE,
    LIST_PEOPLE,
    TRUNK,
    TWICE,
    Choice,
    box,
    overlap,
    pick,
    same_person,
)
from wanimate.preprocess.pose.person import PersonPose
from wanimate.types import Frame, Keypoints

# Appearances of one person through a clip differ by up to 0.34 from the first one, those of different people by 0.56 and
# more (eight rendered people, the packaged performer, a filmed dancer; dev/LOG.md, 2026-11-25).
_SURE, _SAME, _OTHER = 0.35, 0.45, 0.5
_NEW, _SUDDEN, _TOWARDS = 0.25, 0.6, 0.1
"""New: an appearance this far from all known ones is remembered. Sudden: nobody's appearance changes by this much from one
frame to the next. Towards: one that comes nearer to another person's by this much may be that person, in front."""
_REMEMBERED = 16


class Tracker:
    """Follows one person through one clip, and remembers the appearance of that person and of the others."""

    def __init__(self, choice: Choice) -> None:
        self.choice = choice
        self.known: Keypoints | None = None
        self._appearances: list[Appearance] = []
        self._last: Appearance | None = None
        self._others: list[Appearance] = []
        self._is_chosen = False
        self._seen: tuple[Frame, Keypoints, Appearance | None] | None = None

    @property
    def has_look(self) -> bool:
        """Whether the person's appearance is known."""
        return bool(self._appearances)

    def new_shot(self) -> None:
        """Forget the person's place: the clip is cut here. Only appearances go on."""
        self.known, self._last = None, None

    def starting_from(self, person: Keypoints) -> Tracker:
        """A tracker of the same person that goes on from a place."""
        other = Tracker(self.choice)
        other.known, other._is_chosen = person, True
        other._appearances, other._others = list(self._appearances), list(self._others)
        return other

    def nearest_look(self, people: Sequence[Keypoints], frame: Frame, patient: bool) -> int | None:
        """Which of the people to follow where anybody is: who looks like the person, else the largest.

        `patient`: nobody instead of the largest.
        """
        _, far = self._looks(people, frame)
        nearest = min(range(len(people)), key=lambda i: far[i], default=None)
        if nearest is None or far[nearest] < _SAME:
            return nearest
        return None if patient else pick(Choice("largest"), people)

    @property
    def has_lookalike(self) -> bool:
        """Whether somebody else was seen who may look like the person."""
        return any(_nearest(self._appearances, other) < _OTHER for other in self._others)

    def is_next(self, person: Keypoints, frame: Frame) -> bool:
        """Whether a detection can be the known person's next one: it is near, and the appearance fits.

        Someone who turns over moves the head far. Then the trunk counts, unless the appearance is plainly another's.
        """
        if self.known is None:
            return True
        appearance = self._appearance(frame, person)
        fits = appearance is not None and _nearest(self._appearances, appearance) < _SAME
        if not same_person(self.known, person):
            return (fits or appearance is None) and same_person(self.known, person, points=TRUNK)
        if appearance is None or self._last is None:
            return True  # only the place can tell
        return fits or (distance(self._last, appearance) < _SUDDEN and not self._is_towards_another(appearance))

    def goes_on(self, person: PersonPose, frame: Frame) -> bool:
        """Whether the person of the next frame is the known one.

        Someone followed from their own square who looks like the person may have moved farther than `is_next` allows, unless
        somebody else looks like them.
        """
        if not person.valid:
            return False
        if self.is_next(person.keypoints, frame):
            return True
        if person.found != "track" or self.has_lookalike:
            return False
        appearance = self._appearance(frame, person.keypoints)
        return appearance is not None and _nearest(self._appearances, appearance) < _SAME

    def find(self, people: Sequence[Keypoints], frame: Frame) -> tuple[int, str] | None:
        """Which of the people in a frame is the person, chosen now if nobody is known yet; "again" if found elsewhere.

        Raises:
            InputError: the person asked for is not there.
        """
        if self.known is None:
            return self._by_look(people, frame) if self._is_chosen else self._choose(people, frame)
        known = self.known
        if going_on := [i for i, p in enumerate(people) if self.is_next(p, frame)]:
            return self._largest_overlap(going_on, people), ""
        appearances, far = self._looks(people, frame)
        near = [
            i for i, p in enumerate(people)
            if same_person(known, p, ABSENCE) and (far[i] < _SAME or appearances[i] is None or not self._appearances)
        ]  # fmt: skip
        if near:
            return self._largest_overlap(near, people), ""
        alike = [i for i, how_far in enumerate(far) if how_far < _SURE]
        return (alike[0], "again") if len(alike) == 1 and not self.has_lookalike else None

    def keep(self, person: Keypoints, frame: Frame) -> None:
        """Remember a detection as the person's."""
        self.known, self._is_chosen = person, True
        if (appearance := self._appearance(frame, person)) is None:
            return
        self._last = appearance
        if _nearest(self._appearances, appearance) >= _NEW and not self._is_towards_another(appearance):
            self._appearances = [*self._appearances[:1], *self._appearances[1:][-_REMEMBERED:], appearance]

    def note_others(self, people: Sequence[Keypoints], frame: Frame) -> None:
        """Remember the appearance of everybody who is not the known person."""
        assert self.known is not None
        for person in people:
            if overlap(box(self.known), box(person)) >= TWICE or same_person(self.known, person):
                continue
            appearance = appearance_of(frame, person)
            if appearance is not None and _nearest(self._others, appearance) >= _NEW:
                self._others = [*self._others[-_REMEMBERED:], appearance]

    def is_unsure(self, mine: Keypoints, people: Sequence[Keypoints]) -> bool:
        """Whether somebody else of these people, in a clip with a look-alike, stands where the person can be now."""
        if self.known is None or not self.has_lookalike:
            return False
        others = (p for p in people if overlap(box(mine), box(p)) < TWICE)
        return any(same_person(self.known, p, ABSENCE) for p in others)

    def follow_anybody(self, person: PersonPose, frame: Frame) -> PersonPose:
        """Follow whoever is there. `found` becomes "other" where it cannot be the person of the frame before."""
        if not person.valid:
            return person
        is_next = self.goes_on(person, frame)
        if self.known is None and self._appearances:  # after a cut
            look = self._appearance(frame, person.keypoints)
            is_next = look is None or _nearest(self._appearances, look) < _OTHER
        if not is_next:
            person, self._appearances, self._last = replace(person, found="other"), [], None
        self.keep(person.keypoints, frame)
        return person

    def _appearance(self, frame: Frame, person: Keypoints) -> Appearance | None:
        """As `appearance_of`, worked out once for the person who is looked at several times."""
        if self._seen is None or self._seen[0] is not frame or self._seen[1] is not person:
            self._seen = frame, person, appearance_of(frame, person)
        return self._seen[2]

    def _looks(self, people: Sequence[Keypoints], frame: Frame) -> tuple[list[Appearance | None], list[float]]:
        """The appearances of people, and how far each is from the person's; 1 where it is not seen."""
        looks = [appearance_of(frame, p) for p in people]
        return looks, [1.0 if look is None else _nearest(self._appearances, look) for look in looks]

    def _by_look(self, people: Sequence[Keypoints], frame: Frame) -> tuple[int, str] | None:
        """After a cut: the only one who looks like the person; the only one at all where no look is known."""
        if not self._appearances:
            return (0, "again") if len(people) == 1 else None
        alike = [i for i, how_far in enumerate(self._looks(people, frame)[1]) if how_far < _SAME]
        return (alike[0], "again") if len(alike) == 1 else None

    def _choose(self, people: Sequence[Keypoints], frame: Frame) -> tuple[int, str] | None:
        if people:
            return pick(self.choice, people), ""
        if self.choice.at is None:
            return None
        raise InputError("preprocess.person", self.choice, f"nobody was found {self.choice.when}", LIST_PEOPLE)

    def _largest_overlap(self, some: Sequence[int], people: Sequence[Keypoints]) -> int:
        assert self.known is not None
        here = box(self.known)
        return max(some, key=lambda i: overlap(here, box(people[i])))

    def _is_towards_another(self, appearance: Appearance) -> bool:
        if not self._appearances:
            return False
        first = self._appearances[0]
        return any(distance(other, appearance) < distance(other, first) - _TOWARDS for other in self._others)


def _nearest(known: Sequence[Appearance], appearance: Appearance) -> float:
    return min((distance(one, appearance) for one in known), default=1.0)
