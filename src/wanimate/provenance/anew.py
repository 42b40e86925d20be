"""A finished video with marks in its picture: its frames are decoded, marked and encoded anew, its sound is copied."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wanimate.errors import InputError, setting
from wanimate.media.container import open_video
from wanimate.media.probe import probe
from wanimate.media.video import iter_indices
from wanimate.media.writer import FFV1, Encoding, StreamWriter
from wanimate.provenance.forms import MATROSKA, MOV, MP4, media_type
from wanimate.provenance.frames import FrameMarks

CRF = "14"
"""Quality of H.264 and H.265: the frames are encoded for a second time."""
_CODECS = {
    "h264": ("libx264", "yuv420p", {"crf": CRF}),
    "hevc": ("libx265", "yuv420p", {"crf": CRF, "x265-params": "log-level=error"}),
    "ffv1": ("ffv1", "bgr0", FFV1),
}  # fmt: skip
_CONTAINERS = {
    MP4: ("mp4", {"movflags": "+faststart"}),
    MOV: ("mov", {"movflags": "+faststart"}),
    MATROSKA: ("matroska", {}),
}


def mark_frames(source: Path, target: Path, marks: FrameMarks) -> None:
    """Write `target`: `source` with marked frames, in its own codec and container, and its sound.

    Raises:
        InputError: it is no video, or its codec is none that is written here. OutputError: it cannot be written.
    """
    clip, form = probe(source, limits=None, field="file"), media_type(source)
    if clip.codec not in _CODECS or form not in _CONTAINERS:
        rule = f"frames in {clip.codec} are not encoded anew"
        remedy = f"Mark them while the job makes them, or leave label and {setting('marks.invisible')} out."
        raise InputError("file", source, rule, remedy)
    codec, pixels, options = _CODECS[clip.codec]
    container, muxer = _CONTAINERS[form]
    encoding = Encoding(container, codec, pixels, dict(options), muxer)
    with StreamWriter(target, clip.fps, clip.width, clip.height, encoding) as writer:
        sound = _sound(source, writer)
        following = next(sound, None)
        for index, frame in enumerate(iter_indices(clip, range(clip.count), "file")):
            while following is not None and following[0] < (index + 1) / clip.fps:
                writer.mux(following[1])
                following = next(sound, None)
            writer.write(marks.on_bytes(frame, index))
        if following is not None:
            writer.mux(following[1])
        for _, packet in sound:
            writer.mux(packet)


def _sound(source: Path, writer: StreamWriter) -> Iterator[tuple[float, Any]]:
    """The packets of all sound tracks, with their times in seconds. The writer gets the tracks at once."""
    container = open_video(source, "file")
    tracks = list(container.streams.audio)
    made = {track.index: writer.container.add_stream_from_template(track) for track in tracks}
    video = container.streams.video[0]
    zero = float((video.start_time or 0) * video.time_base)
    return _packets(container, tracks, made, zero)


def _packets(container: Any, tracks: list[Any], made: dict[int, Any], zero: float) -> Iterator[tuple[float, Any]]:
    with container:
        for packet in container.demux(tracks) if tracks else ():
            if packet.size == 0 or packet.pts is None:
                continue
            shift = round(zero / packet.time_base)
            packet.pts -= shift
            packet.dts = packet.pts if packet.dts is None else packet.dts - shift
            time = float(packet.pts * packet.time_base)
            packet.stream = made[packet.stream.index]
            yield time, packet
