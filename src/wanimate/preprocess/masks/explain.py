"""A sheet that shows why masks look as they do: what the networks answered, what was decided, what came of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from wanimate.errors import InputError, OutputError
from wanimate.media.places import check_names
from wanimate.media.png import write_png
from wanimate.media.sheet import contact_sheet, sample_columns
from wanimate.preprocess.masks.base import Mask
from wanimate.types import Frame

if TYPE_CHECKING:
    from wanimate.preprocess.masks.offline import Explained

_FIELD = "preprocess.mask_debug"
_COLUMNS = 12
_OURS, _BOX, _BONES = (60, 255, 90), (255, 220, 60), (255, 70, 60)
_ROWS = ("frame", "stands out", "is a person", "weighed", "by colours", "outline", "inpaint")
"""Rows of the sheet. The four in the middle are the offline backend's."""


class MaskSheet:
    """Collects frames spread over a clip, and writes them as a PNG."""

    def __init__(self, path: Path, count: int) -> None:
        """Args:
            count: frames of the job.

        Raises:
            InputError: the name does not end in .png.
            OutputError: something lies there already, or cannot be written.
        """
        if path.suffix.lower() != ".png":
            raise InputError(_FIELD, path, "the sheet is a PNG", "Name a file that ends in .png")
        check_names(_FIELD, path, [path])
        if os.path.lexists(path):
            raise OutputError(_FIELD, path, "something of this name is there already", "Choose another name.")
        self._path, self._picked = path, sample_columns(count, _COLUMNS)
        self._rows: dict[str, list[Frame]] = {name: [] for name in _ROWS}
        self._reasons: dict[int, Explained] = {}

    def explain(self, reasons: Explained) -> None:
        """For `OfflineMasks`."""
        if reasons.index in self._picked:
            self._reasons[reasons.index] = reasons

    def add(self, index: int, frame: Frame, outline: Mask, inpaint: Mask) -> None:
        """One job frame [H, W, 3] with the person's outline and the inpaint mask [H, W]."""
        if index not in self._picked:
            return
        reasons = self._reasons.pop(index, None)
        shown = frame.copy()
        thick = max(round(max(frame.shape) / 400), 1)
        if reasons is not None:
            height, width = frame.shape[:2]
            core = cv2.resize(reasons.seen.core, (width, height), interpolation=cv2.INTER_NEAREST)
            _outlined(shown, core, _BONES, thick)
            if (box := reasons.box) is not None:
                cv2.rectangle(shown, (box.left, box.top), (box.right - 1, box.bottom - 1), _BOX, thick)
        _outlined(shown, outline, _OURS, thick)
        self._rows["frame"].append(shown)
        for name, values in zip(_ROWS[1:5], _reasoned(reasons, outline.shape), strict=True):
            self._rows[name].append(_grey(255 * np.clip(values, 0, 1)))
        self._rows["outline"].append(_grey(255.0 * outline))
        self._rows["inpaint"].append(_grey(255.0 * inpaint))

    def write(self, fps: float) -> None:
        """Write the sheet. Where nothing is known of how a mask was found, the rows in the middle are black.

        Raises:
            OutputError: the folder cannot be written, or the disk is full.
        """
        rows = list(self._rows.items())
        sheet = contact_sheet(rows, [i / fps for i in self._picked], "How the performer's pixels were found")
        write_png(self._path, sheet, _FIELD)


def _outlined(frame: Frame, mask: Mask, colour: tuple[int, int, int], thick: int) -> None:
    edges, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(frame, edges, -1, colour, thick)


def _reasoned(reasons: Explained | None, shape: tuple[int, ...]) -> list[npt.NDArray[np.float32]]:
    """Pictures 0..1 of what the networks answered, of both weighed, and of what colours decided (grey)."""
    if reasons is None:
        return [np.zeros(shape, np.float32)] * 4
    decided = np.where(reasons.decision.open, np.float32(0.5), reasons.decision.mask.astype(np.float32))
    return [reasons.seen.salient, reasons.seen.person, reasons.decision.mean, decided]


def _grey(values: npt.NDArray[Any]) -> Frame:
    return np.repeat(np.asarray(values + 0.5, dtype=np.uint8)[..., None], 3, axis=2)
