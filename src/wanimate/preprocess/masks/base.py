"""What finds the pixels of a person. The backends are in this room; `registry` opens the one that the settings ask for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from wanimate.types import Frame, Keypoints

Mask = npt.NDArray[np.uint8]
"""uint8 [H, W], 1 = person."""


class MaskBackend(Protocol):
    """Finds the pixels of one person through a clip."""

    name: str

    def follow(
        self, frames: Iterable[Frame], people: Keypoints, valid: npt.NDArray[np.bool_], cuts: Sequence[int] = ()
    ) -> Iterator[tuple[Frame, Mask]]:
        """Each frame [H, W, 3] with its mask [H, W], in order.

        Args:
            people: the person's points [n, 133, 3] in pixels of the frames.
            valid: frames that show somebody [n]; the others get an empty mask.
            cuts: first frames of shots. Nothing is carried from one shot to another.
        """
        ...
