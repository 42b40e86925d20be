"""Loudness of a sound track by EBU R 128 (ITU-R BS.1770), as FFmpeg's `ebur128` measures it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av

from wanimate.media.container import open_video, packets

_SILENCE = -70.0
"""LUFS of the gate: what is quieter has no loudness."""


@dataclass(frozen=True)
class Loudness:
    """`integrated` in LUFS, None for silence and for less than 0.4 s. `range` in LU. `true_peak` in dBTP, None for silence."""

    integrated: float | None
    range: float
    true_peak: float | None


def loudness_of(path: Path, field: str, track: int = 0) -> Loudness | None:
    """Of a sound track, counted from 0; None where nothing of it can be decoded."""
    said: dict[str, str] = {}
    with open_video(path, field) as container:
        stream = container.streams.audio[track]
        meter: _Meter | None = None
        for packet in packets(container, [stream]):
            try:
                frames = stream.decode(packet)
            except av.error.FFmpegError:
                continue
            for frame in frames:
                meter = meter or _Meter(frame)
                said.update(meter.add(frame))
        if meter is None:
            return None
        said.update(meter.rest())
    integrated, peak = float(said.get("I", _SILENCE)), float(said.get("true_peak", 0))
    return Loudness(
        integrated if integrated > _SILENCE else None,
        float(said.get("LRA", 0)),
        20 * math.log10(peak) if peak > 0 else None,
    )


class _Meter:
    """The filter; `said` of its last frame."""

    def __init__(self, like: Any) -> None:
        self._resampler = av.AudioResampler("fltp", like.layout, like.sample_rate)
        self._graph: Any = av.filter.Graph()
        source = self._graph.add_abuffer(
            format="fltp", sample_rate=like.sample_rate, layout=like.layout.name, time_base=f"1/{like.sample_rate}"
        )
        meter = self._graph.add("ebur128", "metadata=1:peak=true")
        sink = self._graph.add("abuffersink")
        source.link_to(meter)
        meter.link_to(sink)
        self._graph.configure()

    def add(self, frame: Any) -> dict[str, str]:
        said: dict[str, str] = {}
        for part in self._resampler.resample(frame):
            part.pts = None
            self._graph.push(part)
            said.update(self._pulled())
        return said

    def rest(self) -> dict[str, str]:
        self._graph.push(None)
        return self._pulled()

    def _pulled(self) -> dict[str, str]:
        said: dict[str, str] = {}
        while True:
            try:
                found = self._graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return said
            for key, text in found.metadata.items():
                said[key.removeprefix("lavfi.r128.")] = text
