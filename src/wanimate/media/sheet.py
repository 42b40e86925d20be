"""Pictures of pictures: rows of frames at sampled times, to be looked at."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from wanimate.media.resize import AREA, LINEAR
from wanimate.types import Frame, FrameSource

PAPER, INK, FAINT = (250, 250, 248), (32, 32, 36), (120, 120, 128)
GAP, MARGIN, LABEL_WIDTH, HEADER = 8, 24, 92, 26


def sample_columns(count: int, columns: int = 8) -> list[int]:
    """At most `columns` frame indices in the middles of equal parts of 0..count-1."""
    columns = min(columns, count)
    return [(2 * i + 1) * count // (2 * columns) for i in range(columns)]


def contact_sheet(
    rows: Sequence[tuple[str, Sequence[Frame]]], times: Sequence[float], title: str = "", row_height: int = 200
) -> Frame:
    """A sheet with one row per (label, frames), one column per time in seconds, as RGB uint8 [H, W, 3].

    Every frame keeps its aspect; all rows have `row_height` pixels, and columns are as wide as the widest frame.
    """
    scaled = [(label, [_to_height(f, row_height) for f in frames]) for label, frames in rows]
    assert all(len(frames) == len(times) for _, frames in scaled), "one frame per time in every row"
    column = max(f.shape[1] for _, frames in scaled for f in frames)
    title_height = 44 if title else 0
    width = MARGIN * 2 + LABEL_WIDTH + len(times) * (column + GAP) - GAP
    height = MARGIN * 2 + title_height + HEADER + len(scaled) * (row_height + GAP) - GAP
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((MARGIN, MARGIN), title, fill=INK, font=ImageFont.load_default(22))
    small, label_font = ImageFont.load_default(14), ImageFont.load_default(17)
    top, left = MARGIN + title_height, MARGIN + LABEL_WIDTH
    for i, seconds in enumerate(times):
        centre = left + i * (column + GAP) + column // 2
        draw.text((centre, top), f"{seconds:.2f} s", fill=FAINT, font=small, anchor="ma")
    for r, (label, frames) in enumerate(scaled):
        y = top + HEADER + r * (row_height + GAP)
        draw.text((MARGIN, y + row_height // 2), label, fill=INK, font=label_font, anchor="lm")
        for i, frame in enumerate(frames):
            x = left + i * (column + GAP) + (column - frame.shape[1]) // 2
            sheet.paste(Image.fromarray(frame), (x, y))
    return np.asarray(sheet)


def sheet_of_sources(
    sources: Sequence[tuple[str, FrameSource]], fps: float, columns: int = 8, title: str = "", row_height: int = 200
) -> Frame:
    """A `contact_sheet` of whole videos of one length: the same `columns` moments of each."""
    picked = sample_columns(min(source.count for _, source in sources), columns)
    rows = [(label, list(source.take(picked))) for label, source in sources]
    return contact_sheet(rows, [i / fps for i in picked], title, row_height)


def _to_height(frame: Frame, height: int) -> Frame:
    width = max(round(frame.shape[1] * height / frame.shape[0]), 1)
    return cv2.resize(frame, (width, height), interpolation=AREA if height < frame.shape[0] else LINEAR)
