"""A HEIC picture, put together by hand: no library at hand writes them."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import av
import numpy as np

from wanimate.types import Frame


def box(kind: bytes, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return struct.pack(">I", 8 + len(content)) + kind + content


def full_box(kind: bytes, *parts: bytes, version: int = 0, flags: int = 0) -> bytes:
    return box(kind, struct.pack(">I", version << 24 | flags), *parts)


def _encoded(frame: Frame) -> tuple[bytes, bytes]:
    """(configuration, picture) as HEVC."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as out:
        stream = out.add_stream("libx265", rate=1, options={"x265-params": "log-level=none:qp=4:keyint=1"})
        stream.height, stream.width = frame.shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.codec_tag = "hvc1"
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        picture = picture.reformat(format="yuv420p", dst_colorspace="ITU601", dst_color_range="JPEG")
        picture.pts = 0
        out.mux(stream.encode(picture))
        out.mux(stream.encode())
    with av.open(io.BytesIO(file.getvalue())) as read:
        packet = next(packet for packet in read.demux(video=0) if packet.size)
        return bytes(read.streams.video[0].codec_context.extradata), bytes(packet)


def make_heic(path: Path, frame: Frame, profile: bytes | None = None, turns: int = 0) -> Path:
    """`frame` as one HEIC picture; `turns`: quarters by which it is to be turned counter-clockwise."""
    config, data = _encoded(frame)
    height, width = frame.shape[:2]
    numbers = box(b"colr", b"nclx", struct.pack(">3HB", 1, 13, 6, 0x80))
    properties = [
        box(b"hvcC", config),
        full_box(b"ispe", struct.pack(">2I", width, height)),
        box(b"irot", bytes([turns])),
        numbers,
        *([] if profile is None else [box(b"colr", b"prof", profile)]),
    ]
    essential = [0x81, 0x02, 0x83, *range(4, len(properties) + 1)]
    associations = struct.pack(">IHB", 1, 1, len(essential)) + bytes(essential)
    start = box(b"ftyp", b"heic\0\0\0\0mif1heic")

    def meta(offset: int) -> bytes:
        return full_box(
            b"meta",
            full_box(b"hdlr", bytes(4), b"pict", bytes(13)),
            full_box(b"pitm", struct.pack(">H", 1)),
            full_box(b"iinf", struct.pack(">H", 1), full_box(b"infe", struct.pack(">2H", 1, 0), b"hvc1\0", version=2)),
            box(b"iprp", box(b"ipco", *properties), full_box(b"ipma", associations)),
            full_box(b"iloc", b"\x44\0", struct.pack(">4H2I", 1, 1, 0, 1, offset, len(data))),
        )

    place = len(start) + len(meta(0)) + 8
    path.write_bytes(start + meta(place) + box(b"mdat", data))
    return path
