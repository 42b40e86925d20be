"""What a performer clip holds, found by reading every packet. Headers are not trusted."""

from __future__ import annotations

import os
import statistics
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av

from wanimate.config import ClipLimits
from wanimate.errors import InputError, setting
from wanimate.media.container import demux, open_video, video_stream
from wanimate.media.timing import snap_rate
from wanimate.types import AudioTrack, Clip

MAX_PIXELS = 8192 * 8192
SLACK_SECONDS = 0.05


def probe(path: Path, limits: ClipLimits | None = ClipLimits(), field: str = "video") -> Clip:
    """Read all packets of `path` and decode its first frame.

    Args:
        path: the file.
        limits: what the clip has to satisfy; None checks only that it can be decoded.
        field: what the file is called in errors.

    Raises:
        InputError: missing, unreadable, no video, no frames, cut off, or outside `limits`.
    """
    path = Path(path)
    size = path.stat().st_size if os.path.isfile(path) else 0
    if limits is not None and size > limits.max_bytes:
        rule = f"{size / 2**20:.1f} MB, above the limit of {limits.max_bytes / 2**20:.0f} MB"
        raise InputError(field, path, rule, "Shorten or compress the clip.")
    with open_video(path, field) as container:
        video = video_stream(container, path, field)
        context = video.codec_context
        if context.width * context.height > MAX_PIXELS:
            rule = f"frames of {context.width}x{context.height} pixels, above {MAX_PIXELS // 10**6} megapixels"
            raise InputError(field, path, rule, "Scale the clip down.")
        found = demux(container, video, path, field)
        audio = tuple(
            AudioTrack(
                index=i,
                codec=s.codec_context.codec.canonical_name,
                sample_rate=s.codec_context.sample_rate,
                channels=s.codec_context.channels,
                duration=found.audio[s.index][1] - found.audio[s.index][0],
            )
            for i, s in enumerate(container.streams.audio)
            if s.codec_context is not None and s.index in found.audio
        )
        times = found.video.times
        fps, variable = _rate(times, found.video.duration, video)
        rotation, width, height = _first_frame(path, field)
        clip = Clip(
            path=path,
            container=container.format.name,
            codec=context.codec.canonical_name,
            width=width,
            height=height,
            rotation=rotation,
            times=times,
            duration=found.video.duration,
            fps=fps,
            variable_rate=variable,
            audio=audio,
            bytes=size,
        )
    if limits is not None:
        check_limits(clip, limits, field)
    return clip


def check_limits(clip: Clip, limits: ClipLimits, field: str = "video") -> None:
    """Length, size and aspect. Raises InputError with the first rule that is broken."""
    path, size = clip.path, f"{clip.width}x{clip.height} pixels"
    if clip.duration < limits.min_seconds - SLACK_SECONDS:
        rule = f"{clip.duration:.2f} s long, shorter than {limits.min_seconds:g} s"
        raise InputError(field, path, rule, "Give a longer clip.")
    if limits.max_seconds is not None and clip.duration > limits.max_seconds + SLACK_SECONDS:
        rule = f"{clip.duration:.2f} s long, longer than {limits.max_seconds:g} s"
        raise InputError(field, path, rule, f"Cut it, or allow it with {setting('preprocess.limits.max_seconds')}.")
    short, long = sorted((clip.width, clip.height))
    if short <= limits.min_side:
        raise InputError(field, path, f"{size}; the short side must be over {limits.min_side}", "Enlarge the clip.")
    if long > limits.max_aspect * short:
        bounds = f"1:{limits.max_aspect:g} and {limits.max_aspect:g}:1"
        raise InputError(field, path, f"{size}; the aspect must lie between {bounds}", "Crop the clip.")


def displayed_size(width: int, height: int, sample_aspect: Fraction | None, rotation: int) -> tuple[int, int]:
    """Stored size to displayed (width, height): pixels made square, then rotated."""
    if sample_aspect is not None and sample_aspect > 0 and sample_aspect != 1:
        width = max(round(width * sample_aspect), 1)
    return (height, width) if rotation in (90, 270) else (width, height)


def frame_rotation(frame: Any) -> int:
    """Degrees clockwise in {0, 90, 180, 270} by which the stored picture has to be rotated."""
    # The display matrix gives the rotation counter-clockwise; real files only use multiples of 90 degrees.
    clockwise: int = round(-frame.rotation / 90) * 90 % 360
    return clockwise


def _first_frame(path: Path, field: str) -> tuple[int, int, int]:
    """(rotation, displayed width, displayed height), from a decoded picture."""
    with open_video(path, field) as container:
        video = video_stream(container, path, field)
        for packet in container.demux(video):
            try:
                frames = packet.decode()
            except av.error.FFmpegError:
                continue  # one damaged packet does not lose the clip
            for frame in frames:
                rotation = frame_rotation(frame)
                return rotation, *displayed_size(frame.width, frame.height, video.sample_aspect_ratio, rotation)
    raise InputError(field, path, "not one of its frames can be decoded", "Export it again as H.264 mp4.")


def _rate(times: tuple[float, ...], duration: float, video: Any) -> tuple[Fraction, bool]:
    """(frames per second, whether the rate varies)."""
    n = len(times)
    if n == 1:
        return snap_rate(Fraction(1 / duration).limit_denominator(10**6)), False
    period = (times[-1] - times[0]) / (n - 1)
    # Containers with millisecond stamps wobble by 1 ms; a frame lost on the way is more than a quarter period.
    variable = any(abs(t - i * period) > max(0.25 * period, 0.0011) for i, t in enumerate(times))
    if variable:
        # The rate while frames come, not the average: a pause in the clip must not thin out the motion around it.
        gap = statistics.median_low(b - a for a, b in pairwise(times))
        return snap_rate(Fraction(1 / gap).limit_denominator(10**6), tolerance=0.03), True
    for stated in (video.average_rate, video.guessed_rate):
        if stated and abs(float(stated) * period - 1) < 0.002:
            return snap_rate(Fraction(stated)), False
    return snap_rate(Fraction(1 / period).limit_denominator(10**6), tolerance=0.002), False
