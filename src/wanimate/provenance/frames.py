"""The marks in the picture: visible label, then invisible watermark, on frames as they come."""

from __future__ import annotations

import torch
from torch import Tensor

from wanimate.config import MarkSettings
from wanimate.errors import InputError
from wanimate.provenance.about import payload_of
from wanimate.provenance.label import Label, shows
from wanimate.provenance.watermark import PUBLIC_KEY, Watermark
from wanimate.types import Frame


class FrameMarks:
    """Marks the frames of one result.

    Args:
        width, height, fps: of the frames.
        id: the result's own (`about.new_id`).
        free: rows along the lower edge that the label leaves free.

    Raises:
        InputError: the label does not suit its rule, its font or the size; the key cannot be read.
    """

    def __init__(
        self, settings: MarkSettings, width: int, height: int, fps: float, id: str, free: int = 0
    ) -> None:  # fmt: skip
        self._fps = fps
        self._label = None if settings.label == "none" else Label(width, height, settings, free)
        key = key_of(settings)
        self._watermark = Watermark(width, height, payload_of(id), key) if settings.invisible else None

    def on(self, frames: Tensor, first: int, opacity: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Frames with the marks, and their opacity, which is full where the label is. Those given stay as they are.

        Args:
            frames: float32 [n, 3, H, W] in [0, 1]. first: the number of the first of them in the result.
            opacity: [n, 1, H, W], of a result that has one.
        """
        count = 0
        if self._label is not None:
            count = int(shows(self._label.seconds, self._fps, first, len(frames)).sum())
        if self._label is not None and count:
            seen = None if opacity is None else opacity[:count]
            labelled, shown = self._label.on(frames[:count], seen)
            frames = torch.cat((labelled, frames[count:]))
            opacity = None if opacity is None or shown is None else torch.cat((shown, opacity[count:]))
        return frames if self._watermark is None else self._watermark.on(frames), opacity

    def on_bytes(self, frame: Frame, index: int) -> Frame:
        """The same for one frame, uint8 RGB [H, W, 3]."""
        if self._label is not None and shows(self._label.seconds, self._fps, index, 1)[0]:
            frame = self._label.on_bytes(frame[None])[0]
        return frame if self._watermark is None else self._watermark.on_bytes(frame)


def key_of(settings: MarkSettings) -> bytes:
    """The watermark's key.

    Raises:
        InputError: its file cannot be read, or is empty.
    """
    path = settings.invisible_key
    if path is None:
        return PUBLIC_KEY
    try:
        with open(path, "rb") as file:
            key = file.read(1 << 16).strip()
    except OSError as error:
        rule = f"it cannot be read ({error.strerror})"
        raise InputError("marks.invisible_key", path, rule, "Name another file.") from error
    if not key:
        raise InputError("marks.invisible_key", path, "it is empty", "Put the key into it.")
    return key
