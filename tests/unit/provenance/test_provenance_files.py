"""XMP in files, and what the marks say: fields, escaping, one packet only, damaged and foreign files."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from xml.etree import ElementTree

import av
import numpy as np
import pytest
from PIL import Image

from wanimate.errors import InputError
from wanimate.media.png import write_png
from wanimate.media.writer import VideoWriter
from wanimate.provenance import boxes, xmp
from wanimate.provenance.about import COMPOSITE, TRAINED, About, about_job, payload_of

ABOUT = About("0123456789abcdef0123456789abcdef", "animation", datetime(2026, 11, 30, tzinfo=UTC))


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "a.mp4"
    with VideoWriter(path, Fraction(24), 64, 64) as writer:
        for level in range(5):
            writer.write(np.full((64, 64, 3), 50 * level, np.uint8))
    return path


def frames_of(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24").tobytes() for frame in container.decode(video=0)]


def test_the_aigc_key_has_all_fields_as_texts() -> None:
    told = json.loads(xmp.aigc(ABOUT, "Studio"))["AIGC"]
    assert tuple(told) == xmp.FIELDS
    assert told == {
        "Label": "1", "ContentProducer": "Studio", "ProduceID": ABOUT.id, "ReservedCode1": "", "ContentPropagator": "Studio",
        "PropagateID": ABOUT.id, "ReservedCode2": "",
    }  # fmt: skip
    with pytest.raises(InputError, match="printable ASCII"):
        xmp.aigc(ABOUT, "影片公司")


@pytest.mark.parametrize(("mode", "source_type"), [("animation", TRAINED), ("replacement", COMPOSITE)])
def test_a_packet_is_xml_and_is_read_back(mode: str, source_type: str) -> None:
    packet = xmp.packet(replace(ABOUT, mode=mode), 'A <b> & "c"', "video/mp4")  # type: ignore[arg-type]
    ElementTree.fromstring(packet.decode().split("?>", 1)[1].rsplit("<?", 1)[0])
    told = xmp.read(packet)
    assert told.source_type == source_type
    assert told.aigc is not None
    assert told.aigc["ContentProducer"] == 'A <b> & "c"'
    assert told.document == f"xmp.did:{ABOUT.id}"


def test_the_aigc_key_is_read_alone_as_well_and_as_an_attribute() -> None:
    inner = '{"Label":"1","ContentProducer":"x"}'
    for property in (f"<T:AIGC>{inner}</T:AIGC>", "<T:o/>"):
        attribute = "" if "AIGC" in property else f" T:AIGC='{inner}'"
        described = f"<rdf:Description{attribute}>{property}</rdf:Description>"
        text = f"<rdf:RDF xmlns:rdf='{xmp.RDF}' xmlns:T='urn:x'>{described}</rdf:RDF>"
        assert xmp.read(text.encode()).aigc == {"Label": "1", "ContentProducer": "x"}


@pytest.mark.parametrize(
    "text",
    [
        b"<a", b"<a/>", b"", b"\xff\xfe\0", b"<!DOCTYPE x [<!ENTITY a 'b'>]><x>&a;</x>", b" " * (boxes.LARGEST + 1),
        b"<a>" * 100000,
    ],
)  # fmt: skip
def test_what_is_no_xmp_is_told(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"^it "):
        xmp.read(text)


def test_an_mp4_keeps_its_frames_and_holds_one_packet(video: Path, tmp_path: Path) -> None:
    assert boxes.read_bmff(video) is None
    first, second = tmp_path / "b.mp4", tmp_path / "c.mp4"
    boxes.write_bmff(video, first, b"<first/>")
    boxes.write_bmff(first, second, b"<the second one/>")
    assert first.read_bytes().startswith(video.read_bytes())
    assert boxes.read_bmff(second) == b"<the second one/>"
    assert second.read_bytes().count(boxes.XMP_BOX) == 1
    assert frames_of(second) == frames_of(video)


def test_an_older_packet_in_the_middle_becomes_free_space(video: Path, tmp_path: Path) -> None:
    data = video.read_bytes()
    size = int.from_bytes(data[:4], "big")
    old = struct.pack(">I", 24 + 5) + b"uuid" + boxes.XMP_BOX + b"<old>"
    path = tmp_path / "b.mp4"
    path.write_bytes(data + old + struct.pack(">I", 8) + b"free")
    boxes.write_bmff(path, tmp_path / "c.mp4", b"<new/>")
    assert boxes.read_bmff(tmp_path / "c.mp4") == b"<new/>"
    assert frames_of(tmp_path / "c.mp4") == frames_of(video)
    assert size > 0


@pytest.mark.parametrize("cut", [1, 7, 100])
def test_a_cut_mp4_is_damaged(video: Path, tmp_path: Path, cut: int) -> None:
    video.write_bytes(video.read_bytes()[:-cut])
    with pytest.raises(ValueError, match="box"):
        boxes.write_bmff(video, tmp_path / "b.mp4", b"<x/>")


def test_an_mp4_whose_last_box_is_open_is_refused(video: Path, tmp_path: Path) -> None:
    with video.open("ab") as file:
        file.write(bytes(4) + b"free")
    with pytest.raises(ValueError, match="open to the end"):
        boxes.write_bmff(video, tmp_path / "b.mp4", b"<x/>")


def test_a_png_keeps_its_pixels_and_holds_one_packet(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    path, first, second = (tmp_path / name for name in ("a.png", "b.png", "c.png"))
    write_png(path, picture)
    boxes.write_png(path, first, b"<first/>")
    boxes.write_png(first, second, "<second>é</second>".encode())
    with Image.open(second) as shown:
        np.testing.assert_array_equal(np.asarray(shown), picture)
        assert shown.info["XML:com.adobe.xmp"] == "<second>é</second>"
    assert second.read_bytes().count(boxes.PNG_KEY) == 1
    assert boxes.read_png(second) == "<second>é</second>".encode()
    assert boxes.read_png(path) is None
    second.write_bytes(second.read_bytes()[:-3])
    with pytest.raises(ValueError, match="chunk"):
        boxes.write_png(second, path, b"<x/>")


def test_what_is_told_names_no_file_and_no_prompt(tmp_path: Path) -> None:
    clip = tmp_path / "Jane Doe dancing.mp4"
    clip.write_bytes(b"clip")
    record = {
        "mode": "replacement", "inputs": {"video": {"path": str(clip), "sha256": "sha256:1"}, "image": {"path": "/gone.png"}},
        "settings": {"prompt": "Jane Doe"}, "seed": 7, "fps": "30000/1001", "size": [64, 48], "frames": 3,
        "checkpoint": {"name": "mannequin", "hashes": {"a": "sha256:2"}}, "marks": {"id": "f" * 32},
    }  # fmt: skip
    about = about_job(record)
    assert about.id == "f" * 32
    assert about.payload == payload_of("f" * 32)
    assert [one.role for one in about.sources] == ["performance"]
    assert about.job is not None
    assert about.job["size"] == "64x48"
    assert "Jane" not in json.dumps(about.job)
