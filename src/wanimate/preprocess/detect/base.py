"""What finds people: one call, several backends (`mediapipe` offline by default, `published` through onnxruntime)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from wanimate.config import PreprocessSettings
from wanimate.errors import InputError, setting
from wanimate.preprocess.people.choice import parse_choice
from wanimate.preprocess.pose.keypoints import COUNT
from wanimate.types import Frame, Keypoints


@dataclass(frozen=True)
class PersonPose:
    """One person in one frame: 133 keypoints [133, 3] in pixels of the frame (all zero where `valid` is False).

    `found` tells how the body was located, for reports: "track", "face", "detector", or "" where nobody was; "other"
    where it cannot be the person who was followed before, "again" where a chosen one who was lost is taken up elsewhere,
    "unsure" where it may be somebody beside them who looks the same.
    """

    keypoints: Keypoints
    valid: bool
    found: str = ""

    def __post_init__(self) -> None:
        assert self.keypoints.shape == (COUNT, 3)


def nobody() -> PersonPose:
    """A frame without a person."""
    return PersonPose(np.zeros((COUNT, 3)), valid=False)


class PoseBackend(Protocol):
    """Finds the main person of a picture or follows one through a clip."""

    name: str

    def detect(self, image: Frame) -> PersonPose | None:
        """The main person of a single picture [H, W, 3], or None."""
        ...

    def track(self, frames: Iterable[Frame]) -> Iterator[PersonPose]:
        """The same person through frames of one size, one answer a frame; frames without a person are not valid.

        Somebody chosen for a time (`Choice.at`) is chosen in the first of the frames.

        Raises:
            InputError: whoever was chosen is not there.
        """
        ...

    def candidates(self, image: Frame) -> list[PersonPose]:
        """Everybody in a picture [H, W, 3]; in no order."""
        ...


@dataclass(frozen=True)
class Measured:
    """Proportions as redrawn pictures show them.

    character: the character's points [133, 3] in pixels of its picture, with the lengths to take;
    edits: points [133, 3] of the redrawn performer and character, each in pixels of its own picture, from which published
    retargeting takes its ratios, or None; facts: what was done, for the record; warnings: for the user.
    """

    character: Keypoints
    edits: tuple[Keypoints, Keypoints] | None
    facts: dict[str, Any]
    warnings: tuple[str, ...]


@runtime_checkable
class MeasuringBackend(PoseBackend, Protocol):
    """Measures proportions in other pictures than those it is shown."""

    def measure(
        self,
        performer: Keypoints,
        size: tuple[int, int],
        frame: Callable[[int], Frame],
        picture: Frame,
        character: Keypoints,
    ) -> Measured:
        """Called once, after everybody was found.

        Args:
            performer: points [n, 133, 3] in pixels of the clip's frames of `size` (width, height), zeros where nobody is.
            frame: the clip's frame [H, W, 3] at an index below n.
            picture: the character [H, W, 3]; `character` its points [133, 3].
        """
        ...


def backend(settings: PreprocessSettings) -> PoseBackend:
    """The backend that the settings name, its models loaded.

    Raises:
        InputError: models or the optional package of the backend are missing; the message says what to run.
    """
    choice = parse_choice(settings.person)
    if settings.compat and not choice.is_anybody:
        rule = "the published code takes the largest person of every frame"
        raise InputError("preprocess.person", settings.person, rule, f"Leave it or {setting('preprocess.compat')} out")
    if settings.backend == "published":
        from wanimate.preprocess.detect.yolo_vitpose import PublishedBackend

        return PublishedBackend.load(settings.models, settings.compat, choice)
    from wanimate.preprocess.detect.mediapipe import MediapipeBackend
    from wanimate.preprocess.detect.models import find

    return MediapipeBackend(find(settings.models), choice)
