"""Opening a video file safely, and the time stamps of its packets."""

from __future__ import annotations

import os
import statistics
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av

from wanimate.errors import Fault, InputError
from wanimate.media.kinds import VIDEO, kind_of

# Containers of video. Playlists, scripts and device formats are left out: they make a demuxer open other files.
CONTAINERS = "mov,matroska,gif,avi,mpegts,mpeg,flv,asf,ogg,h264,hevc,apng"
STANDARD = "an mp4, mov, webm, mkv or gif file"
AGAIN = "Copy or export the file again."
_FAILURES = 64
"""So often reading goes on where a place of the file cannot be read."""
_MOSTLY = 0.9
"""Where more packets than this part have a time stamp, those without one count as lost."""
_Packet = tuple[int | None, int | None, bool, int | None]
"""(pts, dts, whether a key frame, duration)."""


@dataclass(frozen=True)
class VideoIndex:
    """The video packets of a file by presentation time: `pts` in `time_base`, increasing; `keys` marks key frames."""

    pts: tuple[int, ...]
    keys: tuple[bool, ...]
    last_duration: int
    time_base: Fraction

    @property
    def times(self) -> tuple[float, ...]:
        """Seconds, from 0."""
        return tuple(float((p - self.pts[0]) * self.time_base) for p in self.pts)

    @property
    def duration(self) -> float:
        """Seconds, the last frame included."""
        return float((self.pts[-1] - self.pts[0] + self.last_duration) * self.time_base)

    def nearest(self, pts: int) -> int:
        """The index of the frame whose stamp is closest to `pts`."""
        i = bisect_left(self.pts, pts)
        if i == len(self.pts) or (i > 0 and pts - self.pts[i - 1] <= self.pts[i] - pts):
            return i - 1
        return i


def check_file(path: Path, field: str, remedy: str) -> None:
    """Raises InputError unless `path` is a readable file with something in it."""
    if not os.path.exists(path):  # unlike Path.exists, False for names no file can have
        raise InputError(field, path, "there is no such file", "Check the path.", Fault.UNREADABLE)
    if not path.is_file():
        raise InputError(field, path, "this is not a file", remedy, Fault.UNREADABLE)
    if not os.access(path, os.R_OK):
        raise InputError(field, path, "the file may not be read", "Change its permissions.", Fault.UNREADABLE)
    if path.stat().st_size == 0:
        raise InputError(field, path, "the file is empty", AGAIN, Fault.UNREADABLE)


def open_video(path: Path, field: str) -> Any:
    """An open PyAV container of a local file. Raises InputError where it is none of the accepted containers."""
    check_file(path, field, f"Give {STANDARD}.")
    try:
        # An absolute path: a name like "http:x" must never be taken for an address.
        options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
        return av.open(str(path.resolve()), options=options, metadata_errors="replace")
    except (av.error.FFmpegError, ValueError) as e:
        if _without_moov(path):
            rule = "it is cut off: its index (the moov box) is missing"
            raise InputError(field, path, rule, AGAIN, Fault.UNREADABLE) from e
        fault = Fault.UNREADABLE if kind_of(path) == VIDEO else Fault.KIND
        raise InputError(field, path, "not a video file that can be read", f"Give {STANDARD}.", fault) from e


def packets(container: Any, streams: Sequence[Any]) -> Iterator[Any]:
    """The packets of these streams to the end of the file, past places that cannot be read; empty ones flush decoders.

    Raises:
        FFmpegError, OSError: nothing more can be read.
    """
    failure: Exception | None = None
    for _ in range(_FAILURES):
        try:
            for packet in container.demux(streams):
                if packet.size:
                    failure = None
                elif failure is not None:
                    raise failure  # nothing came after that place
                yield packet
            return
        except (av.error.FFmpegError, OSError) as error:
            failure = error
    assert failure is not None, "the last round failed"
    raise failure


@dataclass(frozen=True)
class Demuxed:
    """All time stamps of one file: the video's, and start and end in seconds of every audio stream, by stream index."""

    video: VideoIndex
    audio: dict[int, tuple[float, float]]


def demux(container: Any, video: Any, path: Path, field: str) -> Demuxed:
    """Read every packet of a freshly opened container. Raises InputError where it is cut off or has no frames.

    A packet that is lost or damaged in the middle costs its frame alone.
    """
    found: list[_Packet] = []
    audio: dict[int, tuple[float, float]] = {}
    last_is_cut = False
    try:
        for packet in packets(container, [video, *container.streams.audio]):
            if packet.size == 0 or packet.is_discard:
                continue  # the flush at the end; frames outside an edit list
            if packet.stream_index == video.index:
                found.append((packet.pts, packet.dts, packet.is_keyframe, packet.duration))
                last_is_cut = packet.is_corrupt and container.format.name != "mpegts"  # there it is any lost packet
            elif packet.pts is not None:
                start = float(packet.pts * packet.time_base)
                end = start + float((packet.duration or 0) * packet.time_base)
                audio[packet.stream_index] = (audio.get(packet.stream_index, (start, end))[0], end)
    except (av.error.FFmpegError, OSError) as e:
        rule = f"it is cut off or damaged after {len(found)} frames"
        raise InputError(field, path, rule, AGAIN, Fault.UNREADABLE) from e
    if last_is_cut:
        raise InputError(field, path, f"it is cut off after {len(found)} frames", AGAIN, Fault.UNREADABLE)
    if not found:
        raise InputError(field, path, "its video has 0 frames", "Give a clip that has frames.", Fault.UNREADABLE)
    if video.frames > len(found) and _ends_early(video, path):
        rule = f"it is cut off: {len(found)} of {video.frames} frames are there"
        raise InputError(field, path, rule, AGAIN, Fault.UNREADABLE)
    return Demuxed(_index(found, video), audio)


def _index(packets: list[_Packet], video: Any) -> VideoIndex:
    """Sort (pts, dts, key, duration) by time; repair missing time stamps, drop repeated ones."""
    time_base = Fraction(video.time_base)
    stamped = [p for p in packets if p[0] is not None]
    if len(stamped) > _MOSTLY * len(packets):
        packets = stamped  # the head of the others is lost, as in a damaged transport stream
    stamps = [p[0] for p in packets]
    if None in stamps:
        # Without pts (AVI) the decode times, in order, are the times at which frames come out.
        stamps = [p[1] for p in packets]
    if None in stamps:
        rate = Fraction(video.average_rate or video.guessed_rate or 25)
        stamps = [round(i / rate / time_base) for i in range(len(packets))]
    by_time: dict[int, tuple[bool, int]] = {}
    for stamp, (_, _, key, duration) in zip(stamps, packets, strict=True):
        assert stamp is not None
        by_time.setdefault(stamp, (key, duration or 0))
    pts = tuple(sorted(by_time))
    last = by_time[pts[-1]][1]
    if last == 0 and len(pts) > 1:
        last = round(statistics.median(b - a for a, b in pairwise(pts)))
    if last == 0:
        last = round(1 / Fraction(video.average_rate or 25) / time_base)
    return VideoIndex(pts, tuple(by_time[p][0] for p in pts), max(last, 1), time_base)


def _ends_early(video: Any, path: Path) -> bool:
    size = path.stat().st_size
    return any(entry.pos + entry.size > size for entry in video.index_entries)


def _without_moov(path: Path) -> bool:
    """Whether the file starts like an mp4 but has no complete top-level moov box."""
    size, offset = path.stat().st_size, 0
    with open(path, "rb") as file:
        while offset + 8 <= size:
            file.seek(offset)
            header = file.read(16)
            length, kind = int.from_bytes(header[:4], "big"), header[4:8]
            if offset == 0 and kind not in (b"ftyp", b"mdat", b"moov", b"wide", b"free", b"skip"):
                return False
            length = int.from_bytes(header[8:16], "big") if length == 1 else length
            if kind == b"moov" or length < 8:
                return offset + length > size
            offset += length
    return offset > 0
