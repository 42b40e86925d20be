"""Frames of a clip as they are decoded: by index, deinterlaced, upright, in BT.709 RGB."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, groupby
from typing import Any

import av
import numpy as np

from wanimate.errors import Fault, InputError
from wanimate.media.colour import colours_of, to_rgb
from wanimate.media.container import VideoIndex, demux, open_video, packets
from wanimate.media.interlace import deinterlaced
from wanimate.media.orientation import as_shown, shown_size
from wanimate.types import Clip, Frame

_WITH_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
"""Decoders that read the opacity that lies beside a frame in WebM and Matroska; FFmpeg's own ones pass over it."""
_PLACES = 5
"""So many places of damage are told."""


class Damage:
    """Frames of a clip that could not be decoded, or not whole, remembered while it is decoded."""

    def __init__(self) -> None:
        self.frames: set[int] = set()

    def told(self, clip: Clip) -> str | None:
        """One sentence with number and places; None where nothing was wrong."""
        if not self.frames:
            return None
        count = len(self.frames)
        what = "1 frame is damaged or missing" if count == 1 else f"{count} frames are damaged or missing"
        return f"{what} in the clip (at {places(clip.times, sorted(self.frames))}); the clip goes on"


def places(times: Sequence[float], indices: Sequence[int]) -> str:
    """Where frames are, in seconds: "0.40-0.52 s, 1.20 s"; `indices` increase."""
    runs = []
    for _, run in groupby(enumerate(indices), key=lambda pair: pair[1] - pair[0]):
        found = [index for _, index in run]
        ends = [f"{times[i]:.2f}" for i in (found[0], found[-1])]
        runs.append(f"{'-'.join(dict.fromkeys(ends))} s")
    more = f" and {len(runs) - _PLACES} more places" if len(runs) > _PLACES else ""
    return ", ".join(runs[:_PLACES]) + more


def open_decoder(stream: Any) -> Any:
    """What decodes packets of a stream: the stream itself, or a decoder of its own where its frames have an opacity."""
    codec = stream.codec_context.codec.canonical_name
    other = _WITH_ALPHA.get(codec)
    said = {key.lower(): text for key, text in stream.metadata.items()}  # a tag of that name is in capitals
    if other not in av.codecs_available or said.get("alpha_mode") != "1":
        return stream.codec_context
    decoder = av.CodecContext.create(other, "r")
    decoder.extradata = stream.codec_context.extradata
    return decoder


class Decoder:
    """Decodes a clip forward from any key frame and knows each picture's index by its time stamp.

    Args:
        clip: as probed.
        field: what the file is called in errors.
        damage: remembers frames that could not be decoded; None where nobody asks.
        sd: without tags its colours are BT.601's, whatever its size.

    Raises:
        InputError: the file vanished or changed since it was probed.
    """

    def __init__(self, clip: Clip, field: str, damage: Damage | None = None, sd: bool = False) -> None:
        self.path, self.field, self._clip, self._sd = clip.path, field, clip, sd
        self._damage = Damage() if damage is None else damage
        self._size = shown_size(clip.width, clip.height, clip.orientation)
        with open_video(self.path, field) as container:
            stream = self._stream_of(container)
            self.index: VideoIndex = demux(container, stream, self.path, field).video
        self._open()

    def __enter__(self) -> Decoder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._container.close()

    def _stream_of(self, container: Any) -> Any:
        for stream in container.streams.video:
            if stream.index == self._clip.stream and stream.codec_context is not None:
                return stream
        rule = "it has changed since it was looked at"
        raise InputError(self.field, self.path, rule, "Start again.", Fault.UNREADABLE)

    def _open(self) -> None:
        self._container = open_video(self.path, self.field)
        self._stream = self._stream_of(self._container)
        # Where every frame stands alone, decoding several ahead only delays a jump to another frame.
        self._stream.thread_type = "SLICE" if all(self.index.keys) else "AUTO"
        self._decoder = open_decoder(self._stream)
        self._at_start = True

    def pictures(self) -> Iterator[tuple[int, Any]]:
        """(index, PyAV frame) from the present position to the end of the file."""
        return deinterlaced(self._decoded())

    def _decoded(self) -> Iterator[tuple[int, Any]]:
        counter = following = 0 if self._at_start else None
        for picture in self._all():
            counter = counter or 0 if picture.pts is None else self.index.nearest(picture.pts)
            if following is not None:
                self._damage.frames.update(range(following, counter))
            if picture.is_corrupt:
                self._damage.frames.add(counter)
            yield counter, picture
            counter = following = counter + 1
        if following is not None:
            self._damage.frames.update(range(following, len(self.index.pts)))

    def _all(self) -> Iterator[Any]:
        for packet in packets(self._container, [self._stream]):
            try:
                yield from self._decoder.decode(packet)
            except av.error.FFmpegError:
                continue  # a damaged packet; the frame before stands in for it

    def pictures_from(self, frame: int) -> Iterator[tuple[int, Any]]:
        """`pictures` from the key frame `frame`; the first frame is reached even where the format cannot seek."""
        if frame == 0:
            self._container.close()
            self._open()
        else:
            self._container.seek(self.index.pts[frame], stream=self._stream, backward=True)
            self._decoder.flush_buffers()
            self._at_start = False
        return self.pictures()

    def pictures_before(self, frame: int) -> Iterator[tuple[int, Any]]:
        """`pictures` from a key frame before `frame`, the nearest that decoding reaches. Two frames come before `frame`, where
        there are as many: deinterlacing looks at the one before."""
        keys = [i for i, is_key in enumerate(self.index.keys[: max(frame - 1, 0)]) if is_key and i > 0]
        for key in reversed(keys):
            found = self.pictures_from(key)
            first = next(found, None)
            if first is not None and first[0] <= max(
                frame - 2, 0
            ):  # a seek by decode times may land on a later key frame
                return chain([first], found)
        return self.pictures_from(0) if keys else self.pictures()

    def upright(self, picture: Any) -> Frame:
        """Square pixels, upright, RGB of the displayed size (also where a clip changes size midway)."""
        frame = to_rgb(picture, colours_of(picture, self._sd), *self._size)
        return np.ascontiguousarray(as_shown(frame, self._clip.orientation))
