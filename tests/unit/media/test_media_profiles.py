"""Pictures whose colours are not sRGB, and pictures told by what they hold and not by their names."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from make_heic import make_heic
from make_patches import PATCHES, Said, codes_of, read_patches, spread
from PIL import Image, ImageCms

from wanimate.errors import InputError
from wanimate.media import image as images
from wanimate.media.image import load_image
from wanimate.types import Frame

D50 = (0.96422, 1.0, 0.82521)
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
SPACES = {
    "Display P3": ((0.680, 0.320, 0.265, 0.690, 0.150, 0.060), 2.2),
    "Adobe RGB": ((0.640, 0.330, 0.210, 0.710, 0.150, 0.060), 2.19921875),
}
"""Name -> chromaticities of red, green and blue, gamma; white is D65."""


def xyz(x: float, y: float) -> np.ndarray:
    return np.array([x / y, 1, (1 - x - y) / y])


def to_d50(chromaticities: tuple[float, ...]) -> np.ndarray:
    """Light of the space to XYZ of a profile."""
    columns = np.stack([xyz(*chromaticities[i : i + 2]) for i in (0, 2, 4)], axis=1)
    white = xyz(0.3127, 0.3290)
    columns = columns * np.linalg.solve(columns, white)
    gains = (_BRADFORD @ np.array(D50)) / (_BRADFORD @ white)
    return np.linalg.inv(_BRADFORD) @ np.diag(gains) @ _BRADFORD @ columns


def profile_of(tags: dict[bytes, bytes], space: bytes, kind: bytes = b"mntr", connection: bytes = b"XYZ ") -> bytes:
    """An ICC profile of version 2."""
    tags = {b"desc": b"desc" + bytes(4) + struct.pack(">I", 5) + b"made\0" + bytes(78)} | tags
    tags |= {b"wtpt": b"XYZ " + bytes(4) + fixed(*D50), b"cprt": b"text" + bytes(4) + b"none\0"}
    table, data, at = b"", b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += name + struct.pack(">2I", at + len(data), len(content))
        data += content
    size = at + len(data)
    head = struct.pack(">I4sI4s4s4s12s4s", size, b"lcms", 0x02400000, kind, space, connection, bytes(12), b"acsp")
    return head.ljust(68, b"\0") + fixed(*D50) + bytes(48) + struct.pack(">I", len(tags)) + table + data


def fixed(*values: float) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))


def rgb_profile(name: str) -> bytes:
    chromaticities, gamma = SPACES[name]
    columns = to_d50(chromaticities).T
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256))
    tags = {key: b"XYZ " + bytes(4) + fixed(*columns[i]) for i, key in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))}
    return profile_of(tags | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve), b"RGB ")


def stored(name: str) -> Frame:
    """The patches in the codes of that space."""
    chromaticities, gamma = SPACES[name]
    codes = PATCHES / 255
    light = np.where(codes <= 0.04045, codes / 12.92, ((codes + 0.055) / 1.055) ** 2.4)
    to_xyz = to_d50((0.640, 0.330, 0.300, 0.600, 0.150, 0.060))
    own = light @ (np.linalg.inv(to_d50(chromaticities)) @ to_xyz).T
    return spread(np.rint(own.clip(0, 1) ** (1 / gamma) * 255), 96, 160).astype(np.uint8)


def cmyk_profile() -> bytes:
    """One whose inks are as light as their codes, to Lab, by a table of two points an axis: CMY alone, K darkens."""
    corners = []
    for c, m, y, k in np.ndindex(2, 2, 2, 2):
        red, green, blue = ((1 - ink) * (1 - k) for ink in (c, m, y))
        lightness = (0.2126 * red + 0.7152 * green + 0.0722 * blue) * 100
        corners.append((lightness, 60 * (red - green), 60 * (green - blue)))
    grid = b"".join(bytes([round(L * 2.55), round(a + 128), round(b + 128)]) for L, a, b in corners)
    ramp = bytes(range(256))
    identity = fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity + ramp * 4 + grid + ramp * 3
    return profile_of({b"A2B0": table}, b"CMYK", b"prtr", b"Lab ")


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("form", ["jpg", "png", "tiff", "webp", "avif", "16 bits", "transparent"])
def test_profiles_are_converted(tmp_path: Path, name: str, form: str) -> None:
    pixels, profile = stored(name), rgb_profile(name)
    path = tmp_path / f"a.{form if form.isalpha() and form != 'transparent' else 'png'}"
    if form == "16 bits":
        _write_sixteen(path, pixels, profile)
    elif form == "transparent":
        opaque = np.full((*pixels.shape[:2], 1), 255, np.uint8)
        opaque[:20] = 0
        Image.fromarray(np.concatenate([pixels, opaque], axis=2)).save(path, icc_profile=profile)
    else:
        Image.fromarray(pixels).save(path, icc_profile=profile, **_exact(form))
    told: list[str] = []
    loaded = load_image(path, notices=told)
    most = 8 if form == "avif" else 4  # its luma and chroma of 8 bits are coarse for dark, saturated Adobe RGB
    assert np.abs(read_patches(loaded) - PATCHES).max() <= most
    assert told == []
    if form == "transparent":
        assert (loaded[:20] == 255).all()


def _exact(form: str) -> dict[str, object]:
    exact: dict[str, dict[str, object]] = {
        "jpg": {"quality": 98, "subsampling": 0},
        "webp": {"lossless": True},
        "avif": {"quality": 100, "subsampling": "4:4:4"},
    }
    return exact.get(form, {})


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _write_sixteen(path: Path, pixels: Frame, profile: bytes) -> None:
    cv2.imwrite(str(path), (pixels[..., ::-1].astype(np.uint16)) * 257)
    data = path.read_bytes()
    path.write_bytes(data[:33] + _chunk(b"iCCP", b"made\0\0" + zlib.compress(profile)) + data[33:])


def test_srgb_stays_bit_for_bit(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(noise).save(tmp_path / "a.png", icc_profile=profile)
    assert (load_image(tmp_path / "a.png") == noise).all()


def test_cmyk_with_a_profile(tmp_path: Path) -> None:
    inks = np.random.default_rng(0).integers(0, 256, (8, 4), dtype=np.uint8)
    picture = Image.frombytes("CMYK", (160, 96), spread(inks, 96, 160).tobytes())
    profile = cmyk_profile()
    picture.save(tmp_path / "a.tiff", icc_profile=profile)
    wanted = ImageCms.profileToProfile(
        picture, ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    found = read_patches(load_image(tmp_path / "a.tiff"))
    assert np.abs(found - read_patches(np.asarray(wanted))).max() <= 2
    assert np.abs(found - read_patches(np.asarray(picture.convert("RGB")))).max() > 20


UNUSABLE = {"rubbish": b"rubbish", "cut": rgb_profile("Display P3")[:200], "CMYK": cmyk_profile()}


@pytest.mark.parametrize("profile", UNUSABLE.values(), ids=UNUSABLE)
def test_profiles_that_cannot_be_used_are_told(tmp_path: Path, profile: bytes) -> None:
    pixels = stored("Display P3")
    Image.fromarray(pixels).save(tmp_path / "a.png", icc_profile=profile)
    told: list[str] = []
    assert (load_image(tmp_path / "a.png", notices=told) == pixels).all()
    (text,) = told
    assert text.startswith("the colour profile of a.png cannot be used")


def test_grey_with_a_profile(tmp_path: Path) -> None:
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, 256)  # linear light
    Image.new("L", (64, 48), 128).save(tmp_path / "a.png", icc_profile=profile_of({b"kTRC": curve}, b"GRAY"))
    assert np.abs(load_image(tmp_path / "a.png").astype(int) - 188).max() <= 1


def test_colours_by_number_in_png(tmp_path: Path) -> None:
    """The chunk cICP: Display P3 with the curve of sRGB."""
    codes = np.rint(codes_of(Said(transfer=13, primaries=12)) * 255)
    Image.fromarray(spread(codes, 96, 160).astype(np.uint8)).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(data[:33] + _chunk(b"cICP", bytes([12, 13, 0, 1])) + data[33:])
    assert np.abs(read_patches(load_image(tmp_path / "a.png")) - PATCHES).max() <= 4


needs_heif = pytest.mark.skipif(images.pi_heif is None, reason="pi-heif is not installed")


@needs_heif
@pytest.mark.parametrize("name", ["a.heic", "a.jpg", "a.png", "a"])
def test_heic_is_read_under_any_name(tmp_path: Path, name: str) -> None:
    frame = spread(PATCHES, 96, 160).astype(np.uint8)
    assert np.abs(read_patches(load_image(make_heic(tmp_path / name, frame))) - PATCHES).max() <= 3


@needs_heif
def test_heic_with_a_profile_and_turned(tmp_path: Path) -> None:
    turned = np.ascontiguousarray(np.rot90(stored("Display P3"), -1))
    loaded = load_image(make_heic(tmp_path / "a.heic", turned, rgb_profile("Display P3"), turns=1))
    assert loaded.shape == (96, 160, 3)
    assert np.abs(read_patches(loaded) - PATCHES).max() <= 4


def test_heic_is_told_by_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_heic(tmp_path / "a.jpg", spread(PATCHES, 96, 160).astype(np.uint8)).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(data[:300])
    with pytest.raises(
        InputError, match=r"it is a HEIC picture by its content, damaged or cut off\. Convert HEIC to JPEG"
    ):
        load_image(tmp_path / "cut.jpg")
    monkeypatch.setattr(images, "FORMATS", [name for name in images.FORMATS if name != "HEIF"])
    with pytest.raises(
        InputError, match=r"it is a HEIC picture by its content\. Install a reader .*, or convert HEIC to JPEG"
    ):
        load_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("orientation", [1, 6, 7])
def test_avif_is_read_under_any_name(tmp_path: Path, orientation: int) -> None:
    shown = spread(PATCHES, 96, 160).astype(np.uint8)
    lying = {1: shown, 6: np.rot90(shown), 7: shown[::-1, ::-1].transpose(1, 0, 2)}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(lying)).save(data, "AVIF", quality=98, subsampling="4:4:4", exif=exif)
    (tmp_path / "a.png").write_bytes(data.getvalue())
    assert np.abs(read_patches(load_image(tmp_path / "a.png")) - PATCHES).max() <= 4


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"\0\0\0\x18ftypisom" + bytes(40), "a video"),
        (b"%PDF-1.7\n" + bytes(40), "a PDF document"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40), "a JPEG XL picture"),
        (b"8BPS" + bytes(40), "a Photoshop document"),
    ],
)
def test_other_files_are_called_what_they_are(tmp_path: Path, start: bytes, kind: str) -> None:
    (tmp_path / "a.jpg").write_bytes(start)
    with pytest.raises(InputError, match=f"not a picture that can be read: it is {kind} by its content"):
        load_image(tmp_path / "a.jpg")


def test_values_that_do_not_end_at_255(tmp_path: Path) -> None:
    """PPM with any greatest value, which Pillow reads one number at a time."""
    codes = spread(PATCHES, 96, 160)
    for most, kind in ((65535, ">u2"), (1023, ">u2"), (100, "u1")):
        values = np.rint(codes / 255 * most).astype(kind)
        (tmp_path / "a.ppm").write_bytes(b"P6\n160 96\n%d\n" % most + values.tobytes())
        assert np.abs(load_image(tmp_path / "a.ppm").astype(int) - codes).max() <= (2 if most == 100 else 0)
        (tmp_path / "cut.ppm").write_bytes((tmp_path / "a.ppm").read_bytes()[:-9])
        with pytest.raises(InputError, match="cut off"):
            load_image(tmp_path / "cut.ppm")


def test_a_large_jpeg_2000_is_read_at_half_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = spread(PATCHES, 192, 320).astype(np.uint8)
    Image.fromarray(frame).save(tmp_path / "a.jp2")
    assert load_image(tmp_path / "a.jp2").shape == (192, 320, 3)
    monkeypatch.setattr("wanimate.media.deep._JPEG2000_BYTES", 192 * 320 * 6)
    told: list[str] = []
    loaded = load_image(tmp_path / "a.jp2", notices=told)
    assert loaded.shape == (96, 160, 3)
    assert np.abs(read_patches(loaded) - PATCHES).max() <= 3
    assert told == ["a.jp2 is read at a part of its size, since JPEG 2000 takes much memory"]
