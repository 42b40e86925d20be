"""Which of a file's streams are its film and its sound."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av

from wanimate.errors import Fault, InputError
from wanimate.media.container import STANDARD, open_video

_ASIDE = ("attached_pic", "timed_thumbnails", "still_image", "dependent")
"""Dispositions of streams that accompany others."""
_PROXY = 4
"""A stream of fewer pixels than this part of the largest one's is a proxy."""


@dataclass(frozen=True)
class _Found:
    """A video stream as its packets show it; `seconds` from the first to the last."""

    stream: Any
    frames: int
    seconds: float

    @property
    def pixels(self) -> int:
        return int(self.stream.codec_context.width * self.stream.codec_context.height)

    @property
    def told(self) -> str:
        context = self.stream.codec_context
        length = "one frame" if self.frames == 1 else f"{self.seconds:.1f} s"
        return f"{self.stream.index} ({context.width}x{context.height}, {length})"


def choose_video(container: Any, path: Path, field: str) -> tuple[Any, str | None]:
    """The video stream of an open container that is its film, and what the user is told where there was a choice.

    Pictures of covers and thumbnails, proxies and streams of less than half the length of another are passed over. Then the
    stream marked as the default one is taken, the largest, the longest, the first.

    Raises:
        InputError: it has none that can be decoded.
    """
    known = [stream for stream in container.streams.video if stream.codec_context is not None]
    usual = [stream for stream in known if not any(_is(stream, name) for name in _ASIDE)]
    if not usual:
        rule = "it holds only sound" if container.streams.audio else "it holds no video that can be decoded"
        raise InputError(field, path, rule, f"Give {STANDARD} with a video stream.", Fault.KIND)
    if len(usual) == 1:
        return usual[0], None
    found = _measured(usual, path, field)
    left = [one for one in found if one.frames > 1] or found
    left = [one for one in left if 2 * one.seconds >= max(other.seconds for other in left)]
    left = [one for one in left if _PROXY * one.pixels >= max(other.pixels for other in left)]
    best = max(left, key=lambda one: (_is(one.stream, "default"), one.pixels, one.seconds, -one.stream.index))
    others = ", ".join(one.told for one in found if one is not best)
    return best.stream, f"of {len(found)} video streams number {best.told} is read, not {others}"


def audio_streams(container: Any) -> list[tuple[int, Any]]:
    """(number among the sound streams, stream) of those that can be decoded, the default one first."""
    known = [(i, stream) for i, stream in enumerate(container.streams.audio) if stream.codec_context is not None]
    return sorted(known, key=lambda one: not _is(one[1], "default"))


def _measured(streams: list[Any], path: Path, field: str) -> list[_Found]:
    """Of every stream the packets, read from the file once more."""
    times: dict[int, list[float]] = {stream.index: [] for stream in streams}
    with open_video(path, field) as again:
        wanted = [stream for stream in again.streams.video if stream.index in times]
        packets = again.demux(wanted)
        while True:
            try:
                packet = next(packets)
            except (StopIteration, av.error.FFmpegError, OSError):
                break
            stamp = packet.dts if packet.pts is None else packet.pts
            if packet.size and not packet.is_discard:
                seconds = 0.0 if stamp is None else float(stamp * packet.time_base)
                times[packet.stream_index].append(seconds)
    return [_Found(one, len(t), max(t) - min(t) if t else 0.0) for one in streams for t in [times[one.index]]]


def _is(stream: Any, name: str) -> bool:
    return bool(stream.disposition & getattr(av.stream.Disposition, name))
