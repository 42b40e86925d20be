"""All eight ways in which a clip can lie in its file."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from make_clips import make_clip, set_matrix

from wanimate.media.orientation import as_shown, as_stored, of_matrix
from wanimate.media.probe import probe
from wanimate.media.video import VideoFrames, iter_frames
from wanimate.types import Frame

MATRICES = {
    1: (1, 0, 0, 1), 2: (-1, 0, 0, 1), 3: (-1, 0, 0, -1), 4: (1, 0, 0, -1),
    5: (0, 1, 1, 0), 6: (0, 1, -1, 0), 7: (0, -1, -1, 0), 8: (0, -1, 1, 0),
}  # fmt: skip
"""Orientation of EXIF -> (a, b, c, d)."""


def by_points(stored: Frame, matrix: tuple[int, int, int, int]) -> Frame:
    """Every pixel put where the matrix says."""
    a, b, c, d = matrix
    y, x = np.mgrid[: stored.shape[0], : stored.shape[1]]
    column, row = a * x + c * y, b * x + d * y
    column, row = column - column.min(), row - row.min()
    out = np.zeros((row.max() + 1, column.max() + 1, 3), np.uint8)
    out[row, column] = stored
    return out


@pytest.mark.parametrize("orientation", MATRICES)
def test_frames_come_out_as_the_matrix_says(tmp_path: Path, orientation: int) -> None:
    path = set_matrix(make_clip(tmp_path / "a.mp4", frames=3, size=(320, 240)), MATRICES[orientation])
    with av.open(str(path)) as container:
        stored = next(container.decode(video=0)).to_ndarray(format="rgb24")
    clip = probe(path, None)
    shown = next(iter_frames(clip))
    assert clip.orientation == orientation
    assert shown.shape == (clip.height, clip.width, 3)
    assert np.abs(shown.astype(int) - by_points(stored, MATRICES[orientation])).mean() < 2
    assert (VideoFrames(path).take([0])[0] == shown).all()


@pytest.mark.parametrize("orientation", MATRICES)
def test_there_and_back(orientation: int) -> None:
    stored = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    shown = as_shown(stored, orientation)
    assert (shown == by_points(stored, MATRICES[orientation])).all()
    assert (as_stored(shown, orientation) == stored).all()


@pytest.mark.parametrize("degrees", [-100, -80, 5, 85, 100, 175])
def test_a_crooked_matrix_is_taken_as_the_nearest_one(degrees: float) -> None:
    sine, cosine = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
    nearest = {0: 1, 1: 6, 2: 3, -1: 8}[round(degrees / 90)]
    assert of_matrix(cosine, sine, -sine, cosine) == nearest


@pytest.mark.parametrize("orientation", [2, 5, 6, 7])
def test_with_other_pixel_aspects_and_cropped_frames(tmp_path: Path, orientation: int) -> None:
    """Pixels are made square before the picture is turned; rows that only fill up blocks never show."""
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=30, options={"preset": "ultrafast", "crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 210, 250, "yuv420p"  # blocks of 16: 224x256 are stored
        stream.codec_context.sample_aspect_ratio = 2
        pixels = np.zeros((250, 210, 3), np.uint8)
        pixels[:125, :105] = (230, 30, 30)
        pixels[125:, :105] = (30, 200, 30)
        for i in range(3):
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            picture.pts = i
            out.mux(stream.encode(picture))
        out.mux(stream.encode())
    clip = probe(set_matrix(path, MATRICES[orientation]), None)
    assert (clip.width, clip.height) == ((420, 250) if orientation == 2 else (250, 420))
    shown = next(iter_frames(clip))
    wide = pixels.repeat(2, axis=1)
    assert np.abs(shown.astype(int) - by_points(wide, MATRICES[orientation])).mean() < 4
