"""One person in one picture, as every detector answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wanimate.preprocess.pose.keypoints import COUNT
from wanimate.types import Keypoints


@dataclass(frozen=True)
class PersonPose:
    """133 keypoints [133, 3] in pixels of the picture; all are zero where `valid` is False.

    `found` tells how the body was located, for reports:

        "track", "face", "detector"     by tracking, from the face, by the person detector
        "other"                         this cannot be the person of the frame before
        "again"                         the chosen person was lost and is taken up elsewhere
        "unsure"                        this may be somebody near the chosen person who looks the same
        ""                              nobody is there

    `others`: how many more people are in the picture, where somebody counted them.
    """

    keypoints: Keypoints
    valid: bool
    found: str = ""
    others: int = 0

    def __post_init__(self) -> None:
        assert self.keypoints.shape == (COUNT, 3)


def nobody() -> PersonPose:
    """A picture without a person."""
    return PersonPose(np.zeros((COUNT, 3)), valid=False)
