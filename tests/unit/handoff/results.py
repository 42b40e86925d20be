"""Finished results with their records, as jobs write them."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

from wanimate.config import OutputSettings
from wanimate.finish.commit import commit
from wanimate.finish.encode import Carried, OutputWriter
from wanimate.finish.lock import OutputLock
from wanimate.media import timecode
from wanimate.media.probe import probe
from wanimate.types import Clip

COUNT, SIZE = 12, (96, 64)


def frames(count: int = COUNT, size: tuple[int, int] = SIZE) -> torch.Tensor:
    """[count, 3, H, W]: grey that brightens, with a square that moves."""
    width, height = size
    made = torch.zeros(count, 3, height, width)
    for i, frame in enumerate(made):
        frame += (30 + 8 * i) / 255
        frame[0, 10:30, 2 * i : 2 * i + 20] = 220 / 255
    return made


def result(
    path: Path, fps: Fraction = Fraction(25), start: str | None = None, mode: str = "animation",
    size: tuple[int, int] = SIZE, opacity: torch.Tensor | None = None, sound: Clip | None = None,
    count: int = COUNT, record: dict[str, Any] | None = None, **settings: Any,
) -> Path:  # fmt: skip
    """A finished result of `count` frames, with the record of a job beside it."""
    output = OutputSettings(**settings)
    first = None if start is None else timecode.parse(start, fps)
    carried = Carried(first, start is not None and ";" in start, "A001")
    given = frames(count, size)
    with OutputLock(path, output) as lock:
        writer = OutputWriter(path, fps, *size, output, sound, lock, carried)
        matte = None
        if output.matte is not None:
            assert opacity is not None
            plain = output.model_copy(update={"alpha": "none", "audio": False})
            matte = OutputWriter(output.matte, fps, *size, plain, None, lock, carried)
            matte.write(opacity.repeat(1, 3, 1, 1))
            matte.finish()
        writer.write(given, opacity if output.alpha != "none" else None)
        writer.finish()
        told = {
            "mode": mode, "inputs": {}, "frames": count, "fps": fps, "size": size, "seed": 7,
            "delivered": {"frames": count, "fps": fps, "size": size}, "timecode": start, "reel": "A001", "slate": False,
            "output": output.model_dump(mode="json"), "version": None, "segments": [[0, 9, 0], [8, 9, 1]],
            "warnings": [], "redraws": {},
        }  # fmt: skip
        commit(writer, lock, told | (record or {}), None, matte)
        if matte is not None:
            matte.close()
        writer.close()
    return path


def clip_with_sound(path: Path, seconds: float = 1.0) -> Clip:
    """A clip whose sound is a tone."""
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio: Any = container.add_stream("aac", rate=48000)
        audio.layout = "stereo"
        for i in range(round(25 * seconds)):
            picture: Any = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 90, np.uint8), format="rgb24")
            picture.pts = i
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
        for i in range(round(48000 * seconds) // 1024):
            tone = np.sin(np.arange(1024 * i, 1024 * (i + 1)) / 20).astype(np.float32) / 2
            sound: Any = av.AudioFrame.from_ndarray(np.stack([tone, tone]), format="fltp", layout="stereo")
            sound.sample_rate, sound.pts = 48000, 1024 * i
            container.mux(audio.encode(sound))
        container.mux(audio.encode(None))
    return probe(path, None)
