"""What a detector of people does. The backends are in this room; `registry` opens the one that the settings name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from wanimate.preprocess.people.tracking import Tracker
from wanimate.preprocess.pose.person import PersonPose
from wanimate.types import Frame, Keypoints


class PoseBackend(Protocol):
    """Finds people in pictures, and tracks one person through a clip."""

    name: str

    def detect(self, image: Frame) -> PersonPose | None:
        """The main person of a single picture [H, W, 3], or None."""
        ...

    def track(self, frames: Iterable[Frame], tracker: Tracker | None = None) -> Iterator[PersonPose]:
        """The same person through the frames of one shot, all of one size, one answer a frame, before the next is taken.

        Frames without a person are not valid. A person chosen for a time (`Choice.at`) is chosen in the first of the frames.

        Args:
            tracker: who is tracked, and what is known of them from other shots. If it knows their place, that is in the
                first of the frames, and they are only followed from there. None chooses afresh, as the backend was made to.

        Raises:
            InputError: the chosen person is not there.
        """
        ...

    def candidates(self, image: Frame, deep: bool = True) -> list[PersonPose]:
        """Everybody in a picture [H, W, 3], in no order.

        `deep`: where it shows nobody, look at it turned and in tiles as well, which takes long.
        """
        ...


@dataclass(frozen=True)
class Measured:
    """Proportions as redrawn pictures show them.

    Attributes:
        character: the character's points [133, 3] in pixels of its picture, with the lengths to take.
        edits: points [133, 3] of the redrawn performer and character, each in pixels of its own picture, from which the
            published retargeting takes its ratios; or None.
        facts: what was done, for the manifest.
        warnings: for the user.
    """

    character: Keypoints
    edits: tuple[Keypoints, Keypoints] | None
    facts: dict[str, Any]
    warnings: tuple[str, ...]


@runtime_checkable
class MeasuringBackend(PoseBackend, Protocol):
    """A detector that measures proportions in other pictures than those it is given."""

    def measure(
        self, performer: Keypoints, size: tuple[int, int], frame: Callable[[int], Frame], picture: Frame,
        character: Keypoints,
    ) -> Measured:  # fmt: skip
        """Called once, after the performer was found.

        Args:
            performer: points [n, 133, 3] in pixels of the clip's frames of `size` (width, height), zeros where nobody is.
            frame: gives the clip's frame [H, W, 3] at an index below n.
            picture: the character [H, W, 3]; `character` its points [133, 3].
        """
        ...
