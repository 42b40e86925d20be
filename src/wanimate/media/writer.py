"""Videos written frame by frame under a temporary name, renamed when they are complete."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import av
import numpy as np
import numpy.typing as npt

from wanimate.config.codecs import FORMATS
from wanimate.errors import OutputError
from wanimate.media.colour import BT709, EXACT, RGB
from wanimate.media.cpu import cpu_flags
from wanimate.media.files import AtomicFile, output_error
from wanimate.types import Frame

X264_THREADS = 8
"""Frames that x264 encodes at once. PyAV's choice, slices, makes larger files that differ with the machine's cores. More frames
at once shorten the vertical motion that the encoder can find (measured: dev/LOG.md)."""
FFV1 = FORMATS["ffv1"].options
_LIMITED, _FULL = 1, 2
_LATEST = 64
"""Frames by which an encoder may be late where it changes their order."""
W = TypeVar("W", bound="StreamWriter")


@dataclass(frozen=True)
class Encoding:
    """How frames become a file.

    format: PyAV's container name. codec, pixels, options: encoder, pixel format and encoder options; frames are
    tagged BT.709, Y'CbCr of limited range or RGB of full range. muxer: container options. tags: of the stream, such as its
    timecode.
    """

    format: str
    codec: str
    pixels: str
    options: dict[str, str]
    muxer: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


@cache
def repeatable(codec: str) -> dict[str, str]:
    """Options with which an encoder makes the same file of the same frames. x264's routines for AVX-512 read what happens to
    lie in memory, which flat pictures show; those for AVX2 take 5 % longer (dev/LOG.md)."""
    wide = codec.startswith("libx264") and "avx512f" in cpu_flags()
    return {"x264-params": "asm=AVX2"} if wide else {}


class StreamWriter:
    """Encodes RGB frames of one size as the first stream of a file that appears under its name when it is complete.

    `container` may get more streams before the first `write`; their packets go through `mux`.

    Args:
        path, fps, width, height: of the video; the rate is exact.
        field: what the file is called in errors.

    Raises:
        OutputError: the folder cannot be written, the disk is full, or the encoder cannot hold frames of this size.
    """

    def __init__(
        self, path: Path, fps: Fraction, width: int, height: int, encoding: Encoding, field: str = "out"
    ) -> None:
        self.width, self.height, self.count = width, height, 0
        codec, pixels = encoding.codec, encoding.pixels
        self._time_base, self._codec, self._pixels = 1 / Fraction(fps), codec, pixels
        self._target = AtomicFile(path, field)
        os.environ.setdefault("SVT_LOG", "1")  # SVT-AV1 tells its settings on stderr otherwise
        try:
            self.container: Any = av.open(self._target, "w", format=encoding.format, options=encoding.muxer)
            options = repeatable(codec) | encoding.options
            self.stream: Any = self.container.add_stream(codec, rate=Fraction(fps), options=options)
            self.stream.width, self.stream.height, self.stream.pix_fmt = width, height, pixels
            context = self.stream.codec_context
            if codec == "libx264":
                context.thread_type, context.thread_count = "FRAME", X264_THREADS
            _tag(context, pixels)
            self.stream.metadata.update(encoding.tags)
        except BaseException:
            self._target.discard()
            raise

    def write(self, frame: Frame) -> None:
        """Add one frame, uint8 RGB [H, W, 3] or RGB and opacity [H, W, 4] of the size given at construction."""
        assert frame.shape[:2] == (self.height, self.width), f"{frame.shape} is not {(self.height, self.width)}"
        form = {3: "rgb24", 4: "rgba"}[frame.shape[2]]
        picture: Any = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format=form)
        if self._pixels.startswith("yuv"):
            picture = picture.reformat(
                format=self._pixels, dst_colorspace="ITU709", dst_color_range="MPEG", interpolation=EXACT
            )
        self._add(picture)

    def write_planes(self, planes: Sequence[npt.NDArray[Any]]) -> None:
        """Add one frame as the planes of the pixel format, [h, w] each, in its whole numbers."""
        picture: Any = av.VideoFrame(self.width, self.height, self._pixels)
        for plane, values in zip(picture.planes, planes, strict=True):
            assert values.shape == (plane.height, plane.width), f"{values.shape} is not {(plane.height, plane.width)}"
            rows = np.zeros((plane.height, plane.line_size), np.uint8)
            bytes_of = np.ascontiguousarray(values).view(np.uint8)
            rows[:, : bytes_of.shape[1]] = bytes_of
            plane.update(rows.reshape(-1)[: plane.buffer_size])
        _tag(picture, self._pixels)  # ProRes writes what its frames say
        self._add(picture)

    def _add(self, picture: Any) -> None:
        picture.pts, picture.time_base = self.count, self._time_base
        self.count += 1
        self._encode(picture)

    def finish(self) -> None:
        """Write what is left; the file is complete then, under its temporary name. On failure nothing is left."""
        try:
            self._encode(None)
            self.container.close()
        except OSError as e:
            self.discard()
            raise output_error(self._target.path, self._target.error or e, self._target.field) from e
        except BaseException:
            self.discard()
            raise

    @property
    def temporary(self) -> Path:
        """Where the file is until `commit`."""
        return self._target.temporary

    def take(self, made: Path) -> None:
        """Put another file in the place of the finished one; as `AtomicFile.take`."""
        self._target.take(made)

    def commit(self, keep: bool = False) -> None:
        """Give a finished file its final name; `keep` as `AtomicFile.commit`."""
        self._target.commit(keep)

    def keep(self, why: OSError) -> OutputError:
        """Keep a finished file that cannot get its name; as `AtomicFile.keep`."""
        return self._target.keep(why)

    def close(self) -> None:
        """Finish the file under its final name."""
        self.finish()
        self.commit()

    def discard(self) -> None:
        """Remove what was written."""
        with suppress(av.error.FFmpegError, OSError):
            self.container.close()
        self._target.discard()

    def mux(self, packet: Any) -> None:
        """Add an encoded packet of any of the container's streams."""
        try:
            self.container.mux(packet)
        except OSError as e:
            raise output_error(self._target.path, self._target.error or e, self._target.field) from e

    def _encode(self, picture: Any) -> None:
        try:
            packets = self.stream.encode(picture)
        except av.error.FFmpegError as e:
            if isinstance(e, (OSError, MemoryError)):
                raise
            rule = f"{self._codec} cannot encode frames of {self.width}x{self.height} pixels ({e.strerror})"
            raise OutputError(self._target.field, self._target.path, rule, "Choose another size.") from e
        for packet in packets:
            if packet.dts is None or not 0 <= packet.pts - packet.dts <= _LATEST:
                packet.dts = packet.pts  # of one or two frames, x265 tells any number
            self.mux(packet)

    def __enter__(self: W) -> W:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()


def _tag(what: Any, pixels: str) -> None:
    """Say of a stream's context or a frame that it is BT.709."""
    what.color_primaries = what.color_trc = BT709
    what.colorspace, what.color_range = (BT709, _LIMITED) if pixels.startswith("yuv") else (RGB, _FULL)


class LosslessWriter(StreamWriter):
    """FFV1 in Matroska, RGB exactly as given, every frame a key frame. Use in a `with` block, `.write(frame)`.

    The same frames give the same bytes.
    """

    def __init__(self, path: Path, fps: Fraction, width: int, height: int, field: str = "guides") -> None:
        exact = {"fflags": "+bitexact"}  # without it the container gets a random number
        super().__init__(path, fps, width, height, Encoding("matroska", "ffv1", "bgr0", dict(FFV1), exact), field)


class VideoWriter(StreamWriter):
    """H.264 yuv420p in mp4, its index at the front; even sizes only."""

    def __init__(
        self, path: Path, fps: Fraction, width: int, height: int, crf: int = 17, field: str = "guides"
    ) -> None:
        assert width % 2 == 0, "yuv420p needs an even width"
        assert height % 2 == 0, "yuv420p needs an even height"
        encoding = Encoding("mp4", "libx264", "yuv420p", {"crf": str(crf)}, {"movflags": "+faststart"})
        super().__init__(path, fps, width, height, encoding, field)


def write_h264(path: Path, fps: Fraction, width: int, height: int, crf: int = 17) -> VideoWriter:
    """A `VideoWriter`; the form in which the published guide set is written."""
    return VideoWriter(path, fps, width, height, crf)
