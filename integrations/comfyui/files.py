"""ComfyUI's tensors and videos as files, and back."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from PIL import Image

from wanimate.config.values import parse_rate
from wanimate.errors import InputError
from wanimate.media.video import VideoFrames
from wanimate.media.writer import LosslessWriter
from wanimate.types import FrameSource

_AT_ONCE = 16
"""Frames that are converted at once."""
_NUMBERS = 5


def picture_file(image: torch.Tensor, path: Path) -> Path:
    """An IMAGE [1, H, W, 3 or 4] in 0..1 as a PNG.

    Raises:
        InputError: it holds several pictures.
    """
    if image.ndim != 4 or len(image) != 1:
        rule = f"it holds {len(image)} pictures; one character is drawn"
        raise InputError("image", "IMAGE", rule, "Take one of them, with ImageFromBatch for instance.")
    Image.fromarray(_levels(image)[0]).save(path)
    return path


def clip_file(frames: torch.Tensor, fps: float, path: Path) -> Path:
    """An IMAGE batch [N, H, W, 3] in 0..1 as a lossless clip of `fps` frames a second."""
    _, height, width, _ = frames.shape
    with LosslessWriter(path, parse_rate(fps), width, height, "frames") as writer:
        for frame in frames:
            writer.write(_levels(frame[None, ..., :3])[0])
    return path


def video_file(video: Any, path: Path) -> Path:
    """The file behind a VIDEO; a copy at `path` where it lies in memory, or is cut or edited by nodes before."""
    trimmed = getattr(video, "get_active_trim_window", lambda: (0.0, 0.0))()
    if tuple(trimmed) != (0.0, 0.0) or getattr(video, "has_pending_frame_edits", lambda: False)():
        video.save_to(str(path))
        return path
    source = video.get_stream_source()
    if isinstance(source, (str, os.PathLike)):
        return Path(source)
    path.write_bytes(source.getvalue())
    return path


def images(source: FrameSource) -> torch.Tensor:
    """Frames as an IMAGE batch: float32 [N, H, W, 3] in 0..1."""
    width, height = source.size
    batch = torch.empty((source.count, height, width, 3), dtype=torch.float32)
    for start in range(0, source.count, _AT_ONCE):
        indices = range(start, min(start + _AT_ONCE, source.count))
        batch[start : start + len(indices)] = torch.from_numpy(source.take(indices)) / 255
    return batch


def video_images(path: Path) -> tuple[torch.Tensor, Fraction]:
    """A video's frames as an IMAGE batch, and their rate."""
    video = VideoFrames(path, "out")
    return images(video), video.fps


def sound(path: Path) -> dict[str, Any] | None:
    """A video's sound as AUDIO: waveform float32 [1, channels, samples] and its rate; None where it has none."""
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return None
        stream = container.streams.audio[0]
        resampler = av.AudioResampler(format="fltp", layout=stream.layout, rate=stream.rate)
        parts = [part.to_ndarray() for part in _resampled(container, stream, resampler)]
    waveform = np.concatenate(parts, axis=1) if parts else np.zeros((1, 0), np.float32)
    return {"waveform": torch.from_numpy(waveform)[None], "sample_rate": int(stream.rate)}


def _resampled(container: Any, stream: Any, resampler: Any) -> Iterator[Any]:
    for frame in container.decode(stream):
        yield from resampler.resample(frame)
    yield from resampler.resample(None)


def place(prefix: str, output: Path) -> tuple[Path, str]:
    """Folder and bare name of a result below ComfyUI's output folder.

    Raises:
        InputError: `prefix` leads out of it, or names nothing.
    """
    path = Path(os.path.normpath(output / prefix))
    if not prefix.strip() or prefix.endswith(("/", "\\")) or not path.is_relative_to(output) or path == output:
        rule = "it does not name a file in ComfyUI's output folder"
        raise InputError("filename_prefix", prefix, rule, "Give a name such as wanimate/video.")
    return path.parent, path.name


def free_name(folder: Path, name: str, ending: str) -> str:
    """NAME_00001.mp4, or the first number after those that are there."""
    pattern = re.compile(rf"{re.escape(name)}_(\d+)\..+")
    found = [int(match[1]) for one in os.listdir(folder) if (match := pattern.fullmatch(one))]
    return f"{name}_{max(found, default=0) + 1:0{_NUMBERS}}{ending}"


def _levels(image: torch.Tensor) -> np.ndarray:
    """Values of 0..1 as uint8."""
    return (image.detach().float().cpu().clamp(0, 1) * 255).round().to(torch.uint8).contiguous().numpy()
