"""Small clips and pictures for tests of the library."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

SIZE = (96, 64)


def write_clip(path: Path, frames: int = 50, period: int = 25, tint: int = 0) -> Path:
    """A light disc that goes round, H.264, 25 frames/s."""
    width, height = SIZE
    rows, columns = np.mgrid[:height, :width]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(25), options={"preset": "ultrafast", "crf": "15"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i in range(frames):
            x, y = width / 2 + 24 * np.cos(2 * np.pi * i / period), height / 2 + 18 * np.sin(2 * np.pi * i / period)
            disc = np.exp(-(((columns - x) ** 2 + (rows - y) ** 2) / 80))[..., None]
            frame = (40 + tint + (200 - tint) * disc).repeat(3, axis=2).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def write_picture(path: Path, tint: int = 90) -> Path:
    Image.new("RGB", SIZE, (tint, 120, 60)).save(path)
    return path
