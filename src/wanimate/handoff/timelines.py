"""Timelines of one clip for editing programs: OpenTimelineIO and FCPXML 1.10. Times are counted in frames, never in seconds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from wanimate.review.markers import Count, Marker, in_order
from wanimate.types import Clip

FCPXML_RATES = frozenset(map(Fraction, ("24000/1001", "24", "25", "30000/1001", "30", "50", "60000/1001", "60")))
"""Frames a second of a project in Final Cut Pro."""
_AUDIO_RATES = {
    32000: "32k", 44100: "44.1k", 48000: "48k", 88200: "88.2k", 96000: "96k", 176400: "176.4k", 192000: "192k",
}  # fmt: skip


@dataclass(frozen=True)
class Cut:
    """A file as the one clip of a timeline, which begins at 01:00:00:00.

    title: of clip and timeline. file: name of the file beside the timeline. frames, size, count: of the file. sound: the file's
    own, None where it has none.
    """

    title: str
    file: str
    frames: int
    size: tuple[int, int]
    count: Count
    markers: Sequence[Marker]
    sound: Sound | None = None
    reel: str = ""


@dataclass(frozen=True)
class Sound:
    """Channels, and samples a second."""

    channels: int
    rate: int

    @classmethod
    def of(cls, clip: Clip | None) -> Sound | None:
        """The first sound track of a file."""
        if clip is None or not clip.audio:
            return None
        return cls(clip.audio[0].channels, clip.audio[0].sample_rate)


def otio(cut: Cut) -> str:
    """The JSON of OpenTimelineIO (schemas Timeline.1, Clip.2, Marker.2). Rates are floats there; the exact one is in the
    metadata."""
    rate, start = float(cut.count.rate), cut.count.start

    def time(frames: int) -> dict[str, Any]:
        return {"OTIO_SCHEMA": "RationalTime.1", "rate": rate, "value": float(frames)}

    def span(first: int, frames: int) -> dict[str, Any]:
        return {"OTIO_SCHEMA": "TimeRange.1", "start_time": time(first), "duration": time(frames)}

    def clip() -> dict[str, Any]:
        media = {
            "OTIO_SCHEMA": "ExternalReference.1", "metadata": {}, "name": cut.file, "target_url": quote(cut.file),
            "available_range": span(start, cut.frames), "available_image_bounds": None,
        }  # fmt: skip
        return {
            "OTIO_SCHEMA": "Clip.2", "metadata": {"wanimate": {"reel": cut.reel}}, "name": cut.title, "enabled": True,
            "source_range": span(start, cut.frames), "effects": [], "markers": [],
            "media_references": {"DEFAULT_MEDIA": media}, "active_media_reference_key": "DEFAULT_MEDIA",
        }  # fmt: skip

    def track(kind: str, children: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "OTIO_SCHEMA": "Track.1", "metadata": {}, "name": kind, "kind": kind, "source_range": None, "effects": [],
            "markers": [], "enabled": True, "children": children,
        }  # fmt: skip

    picture = clip()
    picture["markers"] = [
        {
            "OTIO_SCHEMA": "Marker.2", "metadata": {"wanimate": {"done": one.done}}, "name": one.name,
            "color": one.colour.upper(), "comment": one.whole("\n"),
            "marked_range": span(start + one.frame, one.duration),
        }
        for one in in_order(cut.markers)
    ]  # fmt: skip
    tracks = [track("Video", [picture])] + ([track("Audio", [clip()])] if cut.sound else [])
    stack: dict[str, Any] = {
        "OTIO_SCHEMA": "Stack.1", "metadata": {}, "name": "tracks", "source_range": None, "effects": [], "markers": [],
        "enabled": True, "children": tracks,
    }  # fmt: skip
    exact = {"rate": str(cut.count.rate), "drop_frame": cut.count.drop, "timecode": cut.count.exact}
    timeline = {
        "OTIO_SCHEMA": "Timeline.1", "metadata": {"wanimate": exact}, "name": cut.title,
        "global_start_time": time(cut.count.hour), "tracks": stack,
    }  # fmt: skip
    return json.dumps(timeline, ensure_ascii=False, indent=1) + "\n"


def fcpxml(cut: Cut) -> str:
    """FCPXML 1.10: a library with one event, one project, one clip. Every time is a whole number of frames."""
    count, rate = cut.count, cut.count.rate

    def time(frames: int) -> str:
        return quoteattr(seconds(frames, rate))

    labels = f'tcFormat="{"DF" if count.drop else "NDF"}"'
    title, hour, width, height = quoteattr(cut.title), count.hour, *cut.size
    name = f" name={quoteattr(known)}" if (known := _format_name(cut.size, rate)) else ""
    sound, audio = cut.sound, ""
    heard = ""
    if sound is not None:
        heard = f' hasAudio="1" audioSources="1" audioChannels="{sound.channels}" audioRate="{sound.rate}"'
        layout = {1: "mono", 2: "stereo"}.get(sound.channels, "surround")
        audio = f' audioLayout="{layout}" audioRate="{_AUDIO_RATES.get(sound.rate, "48k")}"'
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        "<!DOCTYPE fcpxml>",
        '<fcpxml version="1.10">',
        " <resources>",
        f'  <format id="r1"{name} frameDuration={time(1)} width="{width}" height="{height}" '
        'colorSpace="1-1-1 (Rec. 709)"/>',
        f'  <asset id="r2" name={title} start={time(count.start)} duration={time(cut.frames)} hasVideo="1" format="r1" '
        f'videoSources="1"{heard}>',
        f'   <media-rep kind="original-media" src={quoteattr("./" + quote(cut.file))}/>',
        "  </asset>",
        " </resources>",
        " <library>",
        f"  <event name={title}>",
        f"   <project name={title}>",
        f'    <sequence format="r1" duration={time(cut.frames)} tcStart={time(hour)} {labels}{audio}>',
        "     <spine>",
        f'      <asset-clip ref="r2" name={title} offset={time(hour)} start={time(count.start)} '
        f'duration={time(cut.frames)} format="r1" {labels}>',
        *(f"       {_marker(one, count)}" for one in in_order(cut.markers)),
        "      </asset-clip>",
        "     </spine>",
        "    </sequence>",
        "   </project>",
        "  </event>",
        " </library>",
        "</fcpxml>",
    ]
    return "\n".join(lines) + "\n"


def seconds(frames: int, rate: Fraction) -> str:
    """A time as FCPXML writes it: whole frames as a fraction of seconds, 107892 at 30000/1001 as 107999892/30000s."""
    return f"{frames * rate.denominator}/{rate.numerator}s" if frames else "0s"


def _marker(one: Marker, count: Count) -> str:
    """Within the clip, in the file's own time. `completed` makes a to-do of a comment; markers of the program are plain."""
    start, length = seconds(count.start + one.frame, count.rate), seconds(one.duration, count.rate)
    todo = f' completed="{int(one.done)}"' if one.colour in ("Red", "Green") else ""
    value, note = quoteattr(_written(one.name)), quoteattr(_written(one.whole("\n")))
    return f'<marker start="{start}" duration="{length}" value={value}{todo} note={note}/>'


def _written(text: str) -> str:
    """A text without the characters that XML cannot hold."""
    return "".join(letter for letter in text if letter in "\t\n" or (letter >= " " and letter not in "\ufffe\uffff"))


def _format_name(size: tuple[int, int], rate: Fraction) -> str:
    """Final Cut Pro's own name of a format, where it has one."""
    named = {(1920, 1080): "1080p", (1280, 720): "720p", (3840, 2160): "3840x2160p"}.get(size)
    if named is None or rate not in FCPXML_RATES:
        return ""
    number = f"{float(rate):.2f}".replace(".", "") if rate.denominator > 1 else str(rate)
    return f"FFVideoFormat{named}{number}"
