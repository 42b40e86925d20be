"""The matte of a result, frame by frame: the seam of a replacement, or the character as found in what was made."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from wanimate.errors import InputError
from wanimate.finish.composite import seam
from wanimate.finish.decode import to_pixels
from wanimate.media.levels import from_light
from wanimate.preprocess.detect.models import find
from wanimate.preprocess.guides import drawn_points
from wanimate.preprocess.masks.matte import MATTE_MODELS, SoftMatte, open_masks
from wanimate.types import FrameSource, Guides, Mode

Matted = tuple[Tensor, Tensor]
"""Frames float32 [n, 3, H, W] with their matte [n, 1, H, W], 1 on the character."""


class MatteSource(Protocol):
    """Adds the matte to frames that come in order. They may come out later than they went in."""

    def add(self, frames: Tensor, start: int) -> Iterator[Matted]: ...

    def rest(self) -> Iterator[Matted]: ...


class Seams:
    """In replacement: how much of each pixel is the character's, as `composite` mixed it."""

    def __init__(self, mask: FrameSource, feather: int) -> None:
        self._mask, self._feather = mask, feather

    def add(self, frames: Tensor, start: int) -> Iterator[Matted]:
        taken = self._mask.take(range(start, start + len(frames)))
        yield frames, seam(taken, self._feather).to(frames.device)

    def rest(self) -> Iterator[Matted]:
        yield from ()


class Found:
    """In animation: the character as the segmenter finds it in the result, where the guides have drawn it.

    Raises:
        InputError: the segmenter's files are missing.
    """

    def __init__(self, guides: Guides) -> None:
        valid = np.ones(guides.count, bool) if guides.valid is None else np.array(guides.valid)
        people = drawn_points(guides)
        self._matte = SoftMatte(open_masks(), people, valid, guides.manifest.get("cuts", []))
        self._waiting: deque[Tensor] = deque()

    def add(self, frames: Tensor, start: int) -> Iterator[Matted]:
        for frame, picture in zip(frames.split(1), to_pixels(frames), strict=True):
            self._waiting.append(frame)
            yield from self._out(self._matte.add(picture))

    def rest(self) -> Iterator[Matted]:
        yield from self._out(self._matte.rest())

    def _out(self, mattes: Iterator[np.ndarray]) -> Iterator[Matted]:
        for matte in mattes:
            frame = self._waiting.popleft()
            yield frame, torch.from_numpy(matte)[None, None].to(frame.device)


def matte_of(guides: Guides, feather: int) -> MatteSource:
    """Where the matte of a job comes from.

    Raises:
        InputError: the segmenter's files are missing.
    """
    try:
        return Found(guides) if guides.mask is None else Seams(guides.mask, feather)
    except InputError as error:
        if error.field != "preprocess.models":
            raise
        raise _without_segmenter(error) from error


def check_matte(mode: Mode) -> None:
    """Raises InputError where the matte of a job of this mode cannot be found."""
    if mode == "animation":
        try:
            find(None, MATTE_MODELS)
        except InputError as error:
            raise _without_segmenter(error) from error


def _without_segmenter(error: InputError) -> InputError:
    rule = f"the matte needs the segmenter: {error.rule}"
    return InputError("output.matte", error.value, rule, error.remedy, error.fault)


def as_picture(matte: Tensor, light: bool) -> Tensor:
    """A matte [n, 1, H, W] as grey frames [n, 3, H, W]. `light`: they will be stored as light, which has to be the matte."""
    grey = from_light(matte) if light else matte
    return grey.expand(-1, 3, -1, -1)
