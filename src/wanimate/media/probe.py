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
from wanimate.config.values import snap_rate
from wanimate.errors import Fault, InputError, one_line, setting
from wanimate.media.container import demux, open_video
from wanimate.media.decode import places
from wanimate.media.look import look
from wanimate.media.orientation import shown_size
from wanimate.media.streams import audio_streams, choose_video
from wanimate.types import AudioTrack, Clip

MAX_PIXELS = 8192 * 8192
SLACK_SECONDS = 0.05
_WITH_LENGTH = "matroska,webm"
"""The container that states its length and has nothing else to tell that it was cut off."""
_MOST_SECONDS = 86400
_WITH_DELAYS = ("gif", "apng")
"""Containers in which a frame may stay for as long as its maker wants."""
_MOST_GAPS = 1 / 3
"""Frames before a gap are at most this part of a clip whose frames are missing."""
_CYCLES = 10
"""Frames from which on their lengths can show a pattern."""
_LOOKED_AT = 6
"""Frames that are decoded of a clip that has to satisfy limits."""


def probe(path: Path, limits: ClipLimits | None = ClipLimits(), field: str = "video") -> Clip:
    """Read all packets of `path` and decode its first frames.

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
        raise InputError(field, path, rule, "Shorten or compress the clip.", Fault.BYTES)
    with open_video(path, field) as container:
        video, choice = choose_video(container, path, field)
        context = video.codec_context
        if context.width * context.height > MAX_PIXELS:
            rule = f"frames of {context.width}x{context.height} pixels, above {MAX_PIXELS // 10**6} megapixels"
            raise InputError(field, path, rule, "Scale the clip down.", Fault.SIZE)
        found = demux(container, video, path, field)
        audio = tuple(
            AudioTrack(
                index=i,
                codec=s.codec_context.codec.canonical_name,
                sample_rate=s.codec_context.sample_rate,
                channels=s.codec_context.channels,
                duration=found.audio[s.index][1] - found.audio[s.index][0],
            )
            for i, s in audio_streams(container)
            if s.index in found.audio
        )
        times = found.video.times
        fps, variable = _rate(times, found.video.duration, video)
        seen = look(path, video.index, field, _LOOKED_AT if limits is not None else 1)
        width, height = displayed_size(*seen.size, video.sample_aspect_ratio, seen.orientation)
        notices = [
            choice,
            *seen.notices,
            _gaps(times, fps) if container.format.name not in _WITH_DELAYS else None,
            _film(times, fps),
            _end(container, found.video.duration, audio),
        ]
        clip = Clip(
            path=path,
            container=container.format.name,
            codec=context.codec.canonical_name,
            width=width,
            height=height,
            orientation=seen.orientation,
            times=times,
            duration=found.video.duration,
            fps=fps,
            variable_rate=variable,
            audio=audio,
            bytes=size,
            stream=video.index,
            notices=tuple(text for text in notices if text is not None),
            timecode=tag_of(container, "timecode"),
            reel=tag_of(container, "reel_name"),
            hdr=seen.hdr,
        )
    if limits is not None:
        check_limits(clip, limits, field)
    return clip


def tag_of(container: Any, name: str) -> str:
    """What a file says under this name of itself or of one of its streams, such as the timecode track of mov; else ""."""
    for metadata in (container.metadata, *(stream.metadata for stream in container.streams)):
        for key, text in metadata.items():
            if key.lower() == name and text.strip():
                return one_line(text.strip())
    return ""


def check_limits(clip: Clip, limits: ClipLimits, field: str = "video") -> None:
    """Length, size and aspect. Raises InputError with the first rule that is broken."""
    path, size = clip.path, f"{clip.width}x{clip.height} pixels"
    if clip.duration < limits.min_seconds - SLACK_SECONDS:
        rule = f"{clip.duration:.2f} s long, shorter than {limits.min_seconds:g} s"
        raise InputError(field, path, rule, "Give a longer clip.", Fault.DURATION)
    if limits.max_seconds is not None and clip.duration > limits.max_seconds + SLACK_SECONDS:
        rule = f"{clip.duration:.2f} s long, longer than {limits.max_seconds:g} s"
        remedy = f"Cut it, or allow it with {setting('preprocess.limits.max_seconds')}."
        raise InputError(field, path, rule, remedy, Fault.DURATION)
    short, long = sorted((clip.width, clip.height))
    if short <= limits.min_side:
        rule = f"{size}; the short side must be over {limits.min_side}"
        raise InputError(field, path, rule, "Enlarge the clip.", Fault.SIZE)
    if long > limits.max_aspect * short:
        bounds = f"1:{limits.max_aspect:g} and {limits.max_aspect:g}:1"
        raise InputError(field, path, f"{size}; the aspect must lie between {bounds}", "Crop the clip.", Fault.ASPECT)


def displayed_size(width: int, height: int, sample_aspect: Fraction | None, orientation: int) -> tuple[int, int]:
    """Stored size to displayed (width, height): pixels made square, then upright."""
    if sample_aspect is not None and sample_aspect > 0 and sample_aspect != 1:
        width = max(round(width * sample_aspect), 1)
    return shown_size(width, height, orientation)


def _rate(times: tuple[float, ...], duration: float, video: Any) -> tuple[Fraction, bool]:
    """(frames per second, whether the rate varies)."""
    n = len(times)
    if n == 1:
        return snap_rate(Fraction(1 / duration).limit_denominator(10**6)), False
    period = _pulldown(times) or (times[-1] - times[0]) / (n - 1)
    # Containers with millisecond stamps wobble by 1 ms; a frame lost on the way is more than a quarter period.
    variable = any(abs(t - i * period) > max(0.25 * period, 0.0011) for i, t in enumerate(times))
    if variable:
        # The rate while frames come, not the average: a pause in the clip must not thin out the motion around it.
        gap = _usual_gap(times)
        return _stated(video, gap) or snap_rate(Fraction(1 / gap).limit_denominator(10**6), tolerance=0.03), True
    return _stated(video, period) or snap_rate(Fraction(1 / period).limit_denominator(10**6), tolerance=0.002), False


def _stated(video: Any, period: float) -> Fraction | None:
    """The rate that the file states, where it is that of `period`; exact where time stamps are of whole milliseconds."""
    for stated in (video.average_rate, video.guessed_rate):
        if stated and abs(float(stated) * period - 1) < 0.002:
            return snap_rate(Fraction(stated))
    return None


def _usual_gap(times: tuple[float, ...]) -> float:
    """Seconds from a frame to the next while frames come: the mean of those about the median."""
    gaps = [after - before for before, after in pairwise(times)]
    middle = statistics.median_low(gaps)
    return statistics.fmean(gap for gap in gaps if abs(gap / middle - 1) < 0.25)


def _gaps(times: tuple[float, ...], fps: Fraction) -> str | None:
    """What is told where frames are missing in a clip that is regular otherwise."""
    period = 1 / float(fps)
    steps = [(after - before) / period for before, after in pairwise(times)]
    gaps = [i for i, step in enumerate(steps) if step > 1.5]
    regular = all(abs(step - round(step)) < 0.1 for step in steps)
    if not gaps or not regular or len(gaps) > _MOST_GAPS * len(steps):
        return None
    count = sum(round(steps[i]) - 1 for i in gaps)
    what = "1 frame is" if count == 1 else f"{count} frames are"
    return f"{what} missing in the clip (after {places(times, gaps)}); the frame before stays as long"


def _film(times: tuple[float, ...], fps: Fraction) -> str | None:
    if _pulldown(times) is None:
        return None
    return f"the clip is film in video (soft telecine); its {float(fps):.3f} frames/s of film are taken"


def _pulldown(times: tuple[float, ...]) -> float | None:
    """Seconds of a frame of film in video whose time stamps tell: frames last for two and three fields in turn."""
    count = (len(times) - 1) // 2 * 2
    if count < _CYCLES:
        return None
    period = (times[count] - times[0]) / count
    steps = [(after - before) / period for before, after in pairwise(times)]
    short, long = ([abs(step - part) < 0.05 for step in steps] for part in (0.8, 1.2))
    in_turn = sum((short[i] and long[i + 1]) or (long[i] and short[i + 1]) for i in range(count - 1))
    return period if in_turn >= 0.9 * (count - 1) else None


def _end(container: Any, duration: float, audio: tuple[AudioTrack, ...]) -> str | None:
    """What is told where a file says that it is longer than what can be read of it. Some say so wrongly."""
    stated = (container.duration or 0) / av.time_base
    longest = max([duration, *(track.duration for track in audio)])
    if container.format.name not in _WITH_LENGTH or not 1.05 * longest + 1 < stated < _MOST_SECONDS:
        return None
    return f"the clip ends at {duration:.2f} s though its file says {stated:.2f} s: it may be cut off"
