"""Clips for tests, written with PyAV. Every frame carries its own number, readable after lossy coding."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from wanimate.types import Frame

BITS = 8


def numbered(number: int, width: int, height: int) -> Frame:
    """A frame whose left half shows `number` as 8 bars, top bar lowest; its right half is red above, blue below."""
    frame = np.zeros((height, width, 3), np.uint8)
    frame[: height // 2, width // 2 :, 0] = 220
    frame[height // 2 :, width // 2 :, 2] = 220
    for bit in range(BITS):
        if number >> bit & 1:
            frame[bit * height // BITS : (bit + 1) * height // BITS, : width // 2] = 235
    return frame


def number_of(frame: Frame) -> int:
    """The number that `numbered` wrote."""
    height, width = frame.shape[:2]
    rows = [(2 * bit + 1) * height // (2 * BITS) for bit in range(BITS)]
    return sum(1 << bit for bit, y in enumerate(rows) if frame[y, width // 4].mean() > 128)


def make_clip(
    path: Path,
    frames: int = 60,
    fps: Fraction | int = 30,
    size: tuple[int, int] = (320, 240),
    *,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    container: str | None = None,
    times: Sequence[Fraction] | None = None,
    rotation: int = 0,
    sound: str | None = None,
    options: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None,
) -> Path:
    """Write `frames` numbered frames that are shown at `size`.

    `times` (seconds) makes the rate vary; `rotation` is by how many degrees clockwise players are to turn the picture.
    """
    width, height = size if rotation in (0, 180) else size[::-1]
    fast = {"preset": "ultrafast", "crf": "20"} if codec in ("libx264", "libx265") else {}
    with av.open(str(path), "w", format=container, options=muxer or {}) as out:
        stream = out.add_stream(codec, rate=Fraction(fps), options=options if options is not None else fast)
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 90000)
        if rotation:
            stream.set_display_rotation(-rotation)
        audio = None
        if sound is not None:
            audio = out.add_stream(sound, rate=48000)
            audio.layout = "mono"
        seconds = float(times[-1]) if times else frames / float(fps)
        for i in range(frames):
            stored = np.ascontiguousarray(np.rot90(numbered(i, *size), k=rotation // 90))
            picture = av.VideoFrame.from_ndarray(stored, format="rgb24").reformat(format=pixels)
            picture.time_base = Fraction(1, 90000) if times is not None else 1 / Fraction(fps)
            picture.pts = round(times[i] * 90000) if times is not None else i
            out.mux(stream.encode(picture))
        out.mux(stream.encode())
        if audio is not None:
            add_tone(out, audio, seconds)
    return path


def add_tone(out: av.container.OutputContainer, stream: av.AudioStream, seconds: float) -> None:
    """A 440 Hz tone of the given length."""
    format_name = stream.codec_context.format.name
    size = stream.codec_context.frame_size or 1024
    total = round(seconds * 48000)
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(total) / 48000)
    for start in range(0, total, size):
        part = tone[start : start + size].astype(np.float32)[None]
        if format_name.startswith("s16"):
            part = (part * 32767).astype(np.int16)
        elif format_name.startswith("s32"):
            part = (part * (2**31 - 1)).astype(np.int32)
        frame = av.AudioFrame.from_ndarray(part, format=format_name, layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
        out.mux(stream.encode(frame))
    out.mux(stream.encode())


def set_matrix(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Write a display matrix (a b c d) into an mp4: what lies at (x, y) is shown at (a x + c y, b x + d y)."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4
    at += 36 if data[at] == 1 else 24
    a, b, c, d = (value << 16 for value in matrix)
    data[at + 16 : at + 52] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def leave_out(source: Path, out: Path, packets: set[int]) -> Path:
    """A copy of a clip without some of its packets, counted from 0."""
    with av.open(str(source)) as read, av.open(str(out), "w") as write:
        stream = write.add_stream_from_template(read.streams.video[0])
        for number, packet in enumerate(read.demux(video=0)):
            if packet.size and number not in packets:
                packet.stream = stream
                write.mux(packet)
    return out


def make_sound(path: Path, codec: str = "aac", seconds: float = 3.0) -> Path:
    """A file with sound only."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=48000)
        stream.layout = "mono"
        add_tone(out, stream, seconds)
    return path
