"""What a detector of people does. The backends are in this room; `registry` opens the one that the settings name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from wanimate.preprocess.pose.person import PersonPose
from wanimate.types import Frame


class PoseBackend(Protocol):
    """Finds people in pictures, and tracks one person through a clip."""

    name: str

    def detect(self, image: Frame) -> PersonPose | None:
        """The main person of a single picture [H, W, 3], or None."""
        ...

    def track(self, frames: Iterable[Frame]) -> Iterator[PersonPose]:
        """The same person through frames of one size, one answer a frame; frames without a person are not valid.

        A person chosen for a time (`Choice.at`) is chosen in the first of the frames.

        Raises:
            InputError: the chosen person is not there.
        """
        ...

    def candidates(self, image: Frame) -> list[PersonPose]:
        """Everybody in a picture [H, W, 3], in no order."""
        ...
