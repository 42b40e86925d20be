"""What a finished video is: codec, tags, rate, levels, sound, loudness, stills, opacity, timecode; read frame by frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from wanimate.errors import Fault, InputError
from wanimate.measure.loudness import Loudness, loudness_of
from wanimate.media.container import Demuxed, VideoIndex, demux, open_video, packets
from wanimate.media.probe import tag_of
from wanimate.media.streams import audio_streams, choose_video

BLACK, STILL = 0.02, 0.0004
"""Mean luma, of 1, up to which a frame is black; mean change of luma up to which it repeats the one before."""
_NOISE = 0.002
"""Opacity and colour may differ by that much."""
_LEVELLED = ("h264", "hevc")


@dataclass
class Picture:
    """What the frames show. `black` and `frozen`: stretches [first, stop) of frames. `excursions`: share of luma that lies
    outside of the limited range. `least_alpha`, `most_alpha`: of opacity; None without. `unmultiplied`: the largest share of a
    frame's pixels whose colour is larger than their opacity, which premultiplied alpha has nowhere."""

    frames: int = 0
    black: list[tuple[int, int]] = field(default_factory=list)
    frozen: list[tuple[int, int]] = field(default_factory=list)
    excursions: float = 0.0
    least_alpha: float | None = None
    most_alpha: float | None = None
    unmultiplied: float | None = None


@dataclass(frozen=True)
class Sound:
    """The first sound track. `late`: seconds by which it begins after the picture; `longer`: by which it is longer."""

    codec: str
    rate: int
    channels: int
    seconds: float
    late: float
    longer: float
    loudness: Loudness | None = None


@dataclass(frozen=True)
class Deliverable:
    """Everything `check` tells of a file. Numbers of primaries, transfer and matrix are those of ITU-T H.273. `jitter`: the
    largest distance in seconds of a time stamp from its place at the constant rate."""

    container: str
    codec: str
    codec_tag: str
    profile: str | None
    level: float | None
    pixels: str
    depth: int
    width: int
    height: int
    sample_aspect: str
    fields: str
    rate: Fraction
    jitter: float
    seconds: float
    primaries: int
    transfer: int
    matrix: int
    range: str
    timecode: str | None
    reel: str | None
    streamable: bool | None
    picture: Picture
    sound: Sound | None

    def to_dict(self) -> dict[str, Any]:
        """For JSON: fractions as texts."""
        return asdict(self) | {"rate": str(self.rate)}


def examine(path: Path) -> Deliverable:
    """Read a file whole. Frames pass one by one.

    Raises:
        InputError: it is no video, or is damaged.
    """
    with open_video(path, "file") as container:
        stream, _ = choose_video(container, path, "file")
        found = demux(container, stream, path, "file")
        rate, jitter = _rate(found.video, stream)
        context = stream.codec_context
        facts = {
            "container": container.format.name, "codec": context.codec.canonical_name, "codec_tag": _tag(context),
            "profile": context.profile, "sample_aspect": str(stream.sample_aspect_ratio or 1),
            "timecode": tag_of(container, "timecode") or None, "reel": tag_of(container, "reel_name") or None,
        }  # fmt: skip
        number, track = stream.index, _sound(container, found)
    picture, first, level = _seen(path, number)
    if first is None:
        rule = "not one of its frames can be decoded"
        raise InputError("file", path, rule, "Make the file again.", Fault.UNREADABLE)
    sound = None if track is None else replace(track[1], loudness=loudness_of(path, "file", track[0]))
    return Deliverable(
        **facts, level=level, pixels=first.format.name, depth=max(part.bits for part in first.format.components),
        width=first.width, height=first.height, fields="interlaced" if first.interlaced_frame else "progressive",
        rate=rate, jitter=jitter, seconds=found.video.duration, primaries=int(first.color_primaries),
        transfer=int(first.color_trc), matrix=int(first.colorspace),
        range={1: "limited", 2: "full"}.get(int(first.color_range), "untold"), streamable=_streamable(path),
        picture=picture, sound=sound,
    )  # fmt: skip


def _sound(container: Any, found: Demuxed) -> tuple[int, Sound] | None:
    """The first sound track and its number, without its loudness."""
    for number, track in audio_streams(container):
        if track.index in found.audio:
            begin, end = found.audio[track.index]
            start, context = float(found.video.pts[0] * found.video.time_base), track.codec_context
            longer = end - start - found.video.duration
            codec, channels = context.codec.canonical_name, context.channels
            return number, Sound(codec, context.sample_rate, channels, end - begin, begin - start, longer)
    return None


def _tag(context: Any) -> str:
    tag = context.codec_tag
    return tag if isinstance(tag, str) and tag.isprintable() else ""


def _rate(index: VideoIndex, stream: Any) -> tuple[Fraction, float]:
    """The rate that the file states, else the mean one, and how far time stamps are from it."""
    times = index.times
    stated = Fraction(stream.average_rate or stream.guessed_rate or 0)
    if not stated:
        stated = Fraction((len(times) - 1) / times[-1] if len(times) > 1 else 25).limit_denominator(1001)
    return stated, max(abs(time - float(i / stated)) for i, time in enumerate(times))


def _seen(path: Path, number: int) -> tuple[Picture, Any, float | None]:
    """What the frames show, the first one, and the level that the decoder found."""
    found, first, before = Picture(), None, None
    dark: list[bool] = []
    still: list[bool] = []
    outside = 0.0
    with open_video(path, "file") as container:
        stream = container.streams[number]
        stream.thread_type = "AUTO"
        for frame in _frames(container, stream):
            first = frame if first is None else first
            luma = _luma(frame)
            dark.append(float(luma.mean()) <= BLACK)
            still.append(before is not None and float(np.abs(luma - before).mean()) <= STILL)
            before = luma
            outside += float(((luma < -_NOISE) | (luma > 1 + _NOISE)).mean())
            _look_through(frame, found)
            found.frames += 1
        level = stream.codec_context.level
        levelled = stream.codec_context.codec.canonical_name
    found.black, found.frozen = _runs(dark), _runs(still)
    found.excursions = outside / max(found.frames, 1)
    return found, first, (_level(levelled, level) if levelled in _LEVELLED else None)


def _frames(container: Any, stream: Any) -> Iterator[Any]:
    for packet in packets(container, [stream]):
        try:
            yield from stream.decode(packet)
        except av.error.FFmpegError:
            continue  # a damaged packet; the number of frames tells


def _luma(frame: Any) -> Any:
    """Luma [H, W] as a share of the way from black to white."""
    if frame.format.is_rgb or frame.format.has_palette:
        rgb = frame.reformat(format="rgb24").to_ndarray().astype(np.float32) / 255
        return rgb @ np.array([0.2126, 0.7152, 0.0722], np.float32)
    bits = frame.format.components[0].bits
    plane = frame.planes[0]
    kind = np.uint8 if bits <= 8 else np.uint16
    rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
    wide = plane.width * np.dtype(kind).itemsize
    values = np.ascontiguousarray(rows[:, :wide]).view(kind).astype(np.float32)
    if int(frame.color_range) == 2:
        return values / (2**bits - 1)
    return (values / 2 ** (bits - 8) - 16) / 219


def _look_through(frame: Any, found: Picture) -> None:
    if not any(part.is_alpha for part in frame.format.components):
        return
    shown = frame.reformat(format="rgba64le").to_ndarray().astype(np.float32) / 65535
    opacity = shown[..., 3]
    above = float((shown[..., :3].max(axis=2) > opacity + 4 * _NOISE).mean())
    found.least_alpha = min(float(opacity.min()), 1.0 if found.least_alpha is None else found.least_alpha)
    found.most_alpha = max(float(opacity.max()), found.most_alpha or 0.0)
    found.unmultiplied = max(above, found.unmultiplied or 0.0)


def _runs(flags: list[bool]) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], np.asarray(flags, np.int8), [0]])))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _level(codec: str, level: int) -> float | None:
    if level <= 0:
        return None
    return level / 10 if codec == "h264" else level / 30


def _streamable(path: Path) -> bool | None:
    """Whether an mp4 or mov has its index before its frames; None for other files."""
    with open(path, "rb") as file:
        order: list[bytes] = []
        place, size = 0, path.stat().st_size
        while place + 8 <= size and len(order) < 64:
            file.seek(place)
            head = file.read(16)
            length, kind = int.from_bytes(head[:4], "big"), head[4:8]
            if not order and kind != b"ftyp":
                return None
            order.append(kind)
            length = int.from_bytes(head[8:16], "big") if length == 1 else length
            if length < 8:
                break
            place += length
    if b"moov" not in order or b"mdat" not in order:
        return None
    return order.index(b"moov") < order.index(b"mdat")
