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

    Raises:
        InputError: the label does not suit its rule, its font or the size; the key cannot be read.
    """

    def __init__(self, settings: MarkSettings, width: int, height: int, fps: float, id: str) -> None:
        self._fps = fps
        self._label = None if settings.label == "none" else Label(width, height, settings)
        key = key_of(settings)
        self._watermark = Watermark(width, height, payload_of(id), key) if settings.invisible else None

    def on(self, frames: Tensor, first: int) -> Tensor:
        """Frames float32 [n, 3, H, W] in [0, 1], of which the first is frame `first` of the result, with the marks. Those given
        stay as they are."""
        if self._label is not None:
            shown = torch.from_numpy(shows(self._label.seconds, self._fps, first, len(frames)))
            count = int(shown.sum())
            frames = torch.cat((self._label.on(frames[:count]), frames[count:])) if count else frames
        return frames if self._watermark is None else self._watermark.on(frames)

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
