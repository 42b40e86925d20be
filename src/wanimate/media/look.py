"""What the first frames of a clip tell of all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av

from wanimate.errors import Fault, InputError
from wanimate.media.colour import UNSPECIFIED, colours_of, has_alpha
from wanimate.media.container import open_video, packets
from wanimate.media.decode import open_decoder
from wanimate.media.interlace import combing, is_telecined
from wanimate.media.orientation import of_frame

_CLOSELY = 40
"""Frames that are looked at where the first ones are interlaced: telecine shows after some cycles."""
_DOLBY_TAGS = ("dvh1", "dvhe", "dva1", "dvav", "dav1")
_DOLBY_DATA = ("DOVI_METADATA", "DOVI_RPU_BUFFER")


@dataclass(frozen=True)
class Look:
    """Stored size, orientation (as EXIF), and what the user should be told."""

    size: tuple[int, int]
    orientation: int
    notices: tuple[str, ...]
    hdr: str = ""


@dataclass(frozen=True)
class _Frame:
    """What one frame tells."""

    interlaced: bool
    transparent: bool
    combing: float


def look(path: Path, stream: int, field: str, count: int) -> Look:
    """Decode the first `count` frames of a video stream, and some more where they are interlaced.

    Raises:
        InputError: not one of its frames can be decoded, or its colours cannot be read.
    """
    seen: list[_Frame] = []
    found: Look | None = None
    with open_video(path, field) as container:
        video = next(one for one in container.streams.video if one.index == stream)
        dolby = video.codec_context.codec_tag in _DOLBY_TAGS
        for picture in _pictures(container, video):
            if found is None:
                found = _of_first(picture, dolby, path, field)
            seen.append(_Frame(picture.interlaced_frame, _is_transparent(picture), _combing(picture)))
            if len(seen) >= (_CLOSELY if count > 1 and any(one.interlaced for one in seen) else count):
                break
    if found is None:
        rule, remedy = "not one of its frames can be decoded", "Export it again as H.264 mp4."
        raise InputError(field, path, rule, remedy, Fault.UNREADABLE)
    notices = [*found.notices]
    if any(one.transparent for one in seen):
        notices.append("the clip has transparent parts; they are shown white")
    if any(one.interlaced for one in seen):
        notices.append(_interlacing(seen))
    return replace(found, notices=tuple(notices))


def _pictures(container: Any, video: Any) -> Iterator[Any]:
    decoder = open_decoder(video)
    for packet in packets(container, [video]):
        try:
            yield from decoder.decode(packet)
        except av.error.FFmpegError:
            continue  # one damaged packet does not lose the clip


def _of_first(picture: Any, dolby: bool, path: Path, field: str) -> Look:
    colours = colours_of(picture)
    colours.check(path, field)
    dolby = dolby or any(data.type.name in _DOLBY_DATA for data in picture.side_data)
    if dolby and picture.color_trc == UNSPECIFIED:
        rule = "it is Dolby Vision without a base layer (profile 5), whose colours only Dolby's own decoders know"
        raise InputError(field, path, rule, "Export it again as HDR10, HLG or SDR.", Fault.UNREADABLE)
    told = colours.told
    size = picture.width, picture.height
    return Look(size, of_frame(picture), () if told is None else (told,), told if told and colours.is_hdr else "")


def _is_transparent(picture: Any) -> bool:
    return has_alpha(picture) and bool(picture.reformat(format="rgba").to_ndarray()[..., 3].min() < 255)


def _combing(picture: Any) -> float:
    return combing(picture.reformat(format="gray").to_ndarray()) if picture.interlaced_frame else 0.0


def _interlacing(seen: Sequence[_Frame]) -> str:
    if is_telecined([one.combing for one in seen]):
        return (
            "the clip is film in interlaced video (telecine); its frames are deinterlaced, so one in five shows twice"
        )
    return "the clip is interlaced; its frames are deinterlaced"
