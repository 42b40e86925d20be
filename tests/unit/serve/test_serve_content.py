"""What strangers send: kinds of files, names, uploads."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import re
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from wanimate.media.files import AtomicFile
from wanimate.serve import content
from wanimate.serve.content import Kind, TooLarge, kind_of_head, receive, safe_name, sniff, storage_name
from wanimate.serve.places import StorageAway, checked_name


def picture(format: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 10, 10)).save(out, format)
    return out.getvalue()


def clip(path: Path, format: str, codec: str) -> Path:
    with av.open(str(path), "w", format=format) as out:
        stream = out.add_stream(codec, rate=10)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for _ in range(2):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
        out.mux(stream.encode(None))
    return path


PICTURES = [
    ("PNG", content.PNG),
    ("JPEG", content.JPEG),
    ("WEBP", content.WEBP),
    ("BMP", content.BMP),
    ("GIF", content.GIF),
]


@pytest.mark.parametrize(("format", "kind"), [*PICTURES, ("TIFF", content.TIFF)])
def test_pictures_by_their_content(tmp_path: Path, format: str, kind: Kind) -> None:
    (tmp_path / "x.mp4").write_bytes(picture(format))
    assert sniff(tmp_path / "x.mp4") is kind
    assert kind.family == "picture"


CLIPS = [("mp4", content.MP4), ("mov", content.MOV), ("avi", content.AVI), ("matroska", content.MATROSKA)]


@pytest.mark.parametrize(("format", "kind"), CLIPS)
def test_clips_by_their_content(tmp_path: Path, format: str, kind: Kind) -> None:
    assert sniff(clip(tmp_path / "x.png", format, "mpeg4")) is kind
    assert kind.family == "clip"


HEADS = {
    b"\0\0\0\x18ftypheic": content.HEIC, b"\0\0\0\x18ftypavif": content.AVIF, b"\0\0\0\x14ftypM4V ": content.MP4,
    b"\0\0\0\x08wide\0\0\0\0mdat": content.MOV, b"\0\0\0\x6cmoov": content.MOV,
    b"": None, b"BMW is a car and no picture": None, b"RIFF\0\0\0\0WAVE": None, b"<svg>": None, b"GIF": None, b"\x89PNG": None,
    b"#!/bin/sh": None, b"%PDF-1.7": None, b"PK\x03\x04": None, b"\0" * 64: None,
}  # fmt: skip


@pytest.mark.parametrize("head", HEADS)
def test_heads(head: bytes) -> None:
    assert kind_of_head(head) is HEADS[head]


def test_what_the_hosted_contract_takes() -> None:
    assert {kind.name for kind in content.HOSTED_PICTURES} == {"png", "jpeg", "webp", "bmp"}
    assert {kind.name for kind in content.HOSTED_CLIPS} == {"mp4", "mov", "avi"}


NAMES = {
    "dance.mp4": ("dance.mp4", "dance.mp4"),
    "../../etc/passwd": ("passwd", "passwd"),
    "..\\..\\win.ini": ("win.ini", "win.ini"),
    "C:\\x\\a.png": ("a.png", "a.png"),
    "/": ("file", "file"), "": ("file", "file"), "..": ("file", "file"), ".": ("file", "file"), " . ": ("file", "file"),
    ".htaccess": ("htaccess", "htaccess"),
    "Tänzerin 1.mp4": ("Tänzerin 1.mp4", "Ta_nzerin_1.mp4"),
    "舞.mp4": ("舞.mp4", "_.mp4"),
    'a"b;c%2f\r\nX: y.png': ("a_b_c_2f__X_ y.png", "a_b_c_2f__X__y.png"),
    "a\0b\u202egnp.exe": ("a_b_gnp.exe", "a_b_gnp.exe"),
    "Anna's & $1.mp4": ("Anna's & $1.mp4", "Anna_s_1.mp4"),
    "con": ("_con", "_con"), "NUL.txt": ("_NUL.txt", "_NUL.txt"),
    "\ud800.png": ("_.png", "_.png"),
    "a" * 300 + ".mp4": ("a" * 116 + ".mp4", "a" * 116 + ".mp4"),
    "a." + "b" * 300: ("a." + "b" * 118, "a." + "b" * 118),
}  # fmt: skip


@pytest.mark.parametrize("text", NAMES)
def test_names(text: str) -> None:
    assert (safe_name(text), storage_name(text)) == NAMES[text]
    assert safe_name(safe_name(text)) == safe_name(text)
    assert "/" not in checked_name(storage_name(text))


def test_names_of_all_characters() -> None:
    for number in [*range(0x3000), 0xD800, 0xDFFF, 0xFEFF, 0xFFFF, 0x1F600, 0xE0001, 0x10FFFF]:
        for text in (chr(number), f"a{chr(number)}b"):
            assert not re.search(r'[\x00-\x1f\x7f-\x9f/\\"\ud800-\udfff]', safe_name(text))
            checked_name(storage_name(text))


async def pieces(parts: Iterable[bytes], asked: list[int] | None = None) -> AsyncIterator[bytes]:
    for number, part in enumerate(parts):
        if asked is not None:
            asked.append(number)
        yield part


def test_an_upload_is_counted_and_hashed(tmp_path: Path) -> None:
    parts = [os.urandom(700_000), b"", os.urandom(700_000), b"end"]
    found = asyncio.run(receive(pieces(parts), tmp_path / "x", 2_000_000))
    assert (tmp_path / "x").read_bytes() == b"".join(parts)
    assert (found.size, found.sha256) == (1_400_003, hashlib.sha256(b"".join(parts)).hexdigest())


@pytest.mark.parametrize("size", [1, 3 << 20])
def test_an_upload_that_is_too_large_is_not_read_on(tmp_path: Path, size: int) -> None:
    asked: list[int] = []
    with pytest.raises(TooLarge, match=f"larger than {size * 3} bytes"):
        asyncio.run(receive(pieces([b"x" * size] * 10, asked), tmp_path / "x", size * 3))
    assert asked == [0, 1, 2, 3]
    assert os.listdir(tmp_path) == []


def test_an_upload_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * (2 << 20)
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        asyncio.run(receive(broken(), tmp_path / "x", 10 << 20))
    assert os.listdir(tmp_path) == []


def test_an_upload_that_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    async def waiting() -> AsyncIterator[bytes]:
        yield b"x" * (2 << 20)
        await asyncio.sleep(60)

    async def cancelled() -> None:
        await asyncio.wait_for(receive(waiting(), tmp_path / "x", 10 << 20), 0.1)

    with pytest.raises(TimeoutError):
        asyncio.run(cancelled())
    assert os.listdir(tmp_path) == []


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(AtomicFile, "write", full)
    with pytest.raises(StorageAway, match="No space"):
        asyncio.run(receive(pieces([b"x"]), tmp_path / "x", 10))
    assert os.listdir(tmp_path) == []
