"""The timecode and the reel of a result: the clip's own from its first used frame on, or what the settings say."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Protocol

from wanimate.config import OutputSettings
from wanimate.errors import InputError, OutputError, setting
from wanimate.events import Notice
from wanimate.finish.encode import Carried
from wanimate.media import timecode
from wanimate.preprocess.manifest import first_seconds
from wanimate.types import Clip


class Labelled(Protocol):
    """A clip, or a master: its timecode at its first frame, its reel, its rate."""

    @property
    def timecode(self) -> str: ...

    @property
    def reel(self) -> str: ...

    @property
    def fps(self) -> Fraction: ...


def carried_of(
    clip: Labelled | None, manifest: Mapping[str, Any], fps: Fraction, output: OutputSettings
) -> tuple[Carried, list[Notice]]:
    """What a result of rate `fps` takes over, and what the user should be told.

    Args:
        clip: the clip the guides were made of, None where there is none; or a master.
        manifest: of the guides; it names the clip's first used frame. That of a master is empty.

    Raises:
        OutputError: the timecode that was asked for does not exist at this rate.
    """
    notices: list[Notice] = []
    reel = output.reel or ("" if clip is None else clip.reel)
    start: int | None
    if output.timecode is not None:
        start, drop = asked(output.timecode, fps), ";" in output.timecode
    else:
        start, drop, told = _of_clip(clip, manifest, fps)
        notices += [] if told is None else [Notice(told)]
    if output.slate:
        start = None if start is None else (start - 1) % _day(fps, drop)
    heard = first_seconds(clip, manifest) if isinstance(clip, Clip) else 0.0
    return Carried(start, drop, reel, heard, float(1 / fps) if output.slate else 0.0), notices


def first_label(record: Mapping[str, Any]) -> str | None:
    """The timecode of the first frame of the file that a record tells of, its slate included; None where it has none."""
    label, delivered = record.get("timecode"), record.get("delivered")
    if not isinstance(label, str) or not isinstance(delivered, Mapping):
        return None
    if not record.get("slate"):
        return label
    try:
        rate, drop = Fraction(delivered["fps"]), ";" in label
        return timecode.format((timecode.parse(label, rate) - 1) % _day(rate, drop), rate, drop)
    except (InputError, KeyError, TypeError, ValueError, ZeroDivisionError):
        return None


def asked(text: str, fps: Fraction) -> int:
    """The frame number of a timecode from the settings.

    Raises:
        OutputError: it does not exist at this rate.
    """
    if not timecode.is_exact(fps):
        rule = f"timecode does not exist at {fps} frames a second"
        remedy = f"Leave it out, or bring the result to another rate with {setting('output.fps_out')}, 24 or 25 for instance."
        raise OutputError("output.timecode", text, rule, remedy)
    try:
        return timecode.parse(text, fps)
    except InputError as error:
        raise OutputError("output.timecode", text, error.rule, error.remedy) from error


def _of_clip(clip: Labelled | None, manifest: Mapping[str, Any], fps: Fraction) -> tuple[int | None, bool, str | None]:
    """Frame number at the result's rate, whether labels are dropped, and what is to be told."""
    if clip is None or not clip.timecode:
        return None, False, None
    said = f"the clip's timecode {clip.timecode} is not carried over"
    if not timecode.is_exact(fps):
        return None, False, f"{said}: it does not exist at {fps} frames a second"
    try:
        start = timecode.parse(clip.timecode, clip.fps)
    except InputError as error:
        return None, False, f"{said}: {error.rule}"
    used = manifest.get("source", {}).get("frames") or [0]
    start += used[0]
    drop = ";" in clip.timecode
    if fps == clip.fps:
        return start, drop, None
    # Dropped labels stay with the clock. Others are kept: 01:00:00:00 is the same label at 23.976 and at 24.
    by = fps / clip.fps if drop else Fraction(timecode.counted(fps), timecode.counted(clip.fps))
    return round(start * by), drop and timecode.may_drop(fps), None


def _day(fps: Fraction, drop: bool) -> int:
    """Frames in 24 hours of labels."""
    base = timecode.counted(fps)
    last = f"23:59:59{';' if drop else ':'}{base - 1:02}"
    return timecode.parse(last, fps) + 1
