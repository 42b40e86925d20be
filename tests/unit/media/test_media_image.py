"""Character images: every ordinary kind becomes upright 8-bit RGB; bombs and rubbish are refused."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from wanimate.errors import InputError
from wanimate.media.image import load_image


@pytest.fixture
def picture() -> np.ndarray:
    """48 rows, 64 columns: red above, green below, a white mark in the top left corner."""
    image = np.zeros((48, 64, 3), np.uint8)
    image[:24, :, 0], image[24:, :, 1] = 200, 150
    image[:8, :8] = 255
    return image


def test_plain_png_is_exact(tmp_path: Path, picture: np.ndarray) -> None:
    Image.fromarray(picture).save(tmp_path / "a.png")
    loaded = load_image(tmp_path / "a.png")
    assert loaded.dtype == np.uint8
    assert (loaded == picture).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, picture: np.ndarray, orientation: int) -> None:
    # How a camera stores an upright picture under each tag value, from the EXIF definition of row 0 and column 0.
    stored = {
        1: picture,
        2: picture[:, ::-1],
        3: picture[::-1, ::-1],
        4: picture[::-1],
        5: picture.transpose(1, 0, 2),
        6: np.rot90(picture, 1),
        7: picture[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(picture, -1),
    }[orientation]
    image = Image.fromarray(np.ascontiguousarray(stored))
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.png", exif=exif)
    assert (load_image(tmp_path / "a.png") == picture).all()


def test_alpha_is_flattened_on_the_stated_background(tmp_path: Path, picture: np.ndarray) -> None:
    alpha = np.full((48, 64, 1), 255, np.uint8)
    alpha[:, 32:] = 0
    alpha[40:, :8] = 128
    Image.fromarray(np.concatenate([picture, alpha], 2)).save(tmp_path / "a.png")
    on_white, on_blue = load_image(tmp_path / "a.png"), load_image(tmp_path / "a.png", background=(0, 0, 255))
    assert (on_white[:40, :32] == picture[:40, :32]).all()
    assert (on_white[:, 32:] == 255).all()
    assert (on_blue[:, 32:] == (0, 0, 255)).all()
    assert on_white[44, 4] == pytest.approx([127, 150 * 128 / 255 + 127, 127], abs=1)


@pytest.mark.parametrize("kind", ["gray", "colour", "alpha", "tiff"])
def test_sixteen_bit_values_are_scaled_not_clipped(tmp_path: Path, kind: str) -> None:
    values = np.linspace(0, 65535, 64 * 48).reshape(48, 64).round().astype(np.uint16)
    stored = values if kind == "gray" else np.stack([values, values // 2, values[:, ::-1]], 2)
    if kind == "alpha":
        stored = np.concatenate([stored, np.full((48, 64, 1), 65535, np.uint16)], 2)
    path = tmp_path / ("a.tiff" if kind == "tiff" else "a.png")
    assert cv2.imwrite(str(path), stored)
    loaded = load_image(path)
    blue, green, red = [values] * 3 if kind == "gray" else (stored[..., i] for i in range(3))
    expected = np.rint(np.stack([red, green, blue], 2) / 257).astype(np.uint8)
    assert loaded.shape == (48, 64, 3)
    assert np.abs(loaded.astype(int) - expected).max() == 0


def test_grayscale_palette_and_bilevel(tmp_path: Path, picture: np.ndarray) -> None:
    Image.fromarray(picture).convert("L").save(tmp_path / "gray.png")
    Image.fromarray(picture).convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "palette.png")
    Image.fromarray(picture).convert("1").save(tmp_path / "bits.png")
    gray = load_image(tmp_path / "gray.png")
    assert (gray[..., 0] == gray[..., 2]).all()
    assert np.abs(load_image(tmp_path / "palette.png").astype(int) - picture).max() <= 2
    assert set(np.unique(load_image(tmp_path / "bits.png"))) <= {0, 255}


def test_palette_with_transparency(tmp_path: Path) -> None:
    image = Image.new("P", (40, 40), 0)
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.paste(1, (0, 0, 20, 40))
    image.save(tmp_path / "a.png", transparency=0)
    loaded = load_image(tmp_path / "a.png")
    assert (loaded[:, 30] == 255).all()
    assert (loaded[:, 5] == (0, 255, 0)).all()


def test_cmyk_jpeg(tmp_path: Path, picture: np.ndarray) -> None:
    Image.fromarray(picture).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    assert np.abs(load_image(tmp_path / "a.jpg").astype(int) - picture).mean() < 6


def test_first_picture_of_an_animation(tmp_path: Path, picture: np.ndarray) -> None:
    Image.fromarray(picture).save(
        tmp_path / "a.webp", save_all=True, append_images=[Image.fromarray(255 - picture)], lossless=True
    )
    assert np.abs(load_image(tmp_path / "a.webp").astype(int) - picture).max() <= 2


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and carries hardly any data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(10**6)))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [30000, 10500])
def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path, side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(Image.Image, "convert", decode)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decode)
    (tmp_path / "bomb.png").write_bytes(png_header(side, side))
    with pytest.raises(InputError, match="100 megapixels"):
        load_image(tmp_path / "bomb.png")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("text.png", b"this is no picture at all, only words", "not a picture"),
        ("empty.png", b"", "empty"),
        ("photo.heic", b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic", "Convert HEIC"),
        ("script.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EOF\n", "not a picture"),
    ],
)
def test_what_is_no_picture(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        load_image(tmp_path / name)
    assert caught.value.exit_code == 2
    assert caught.value.field == "image"


def test_missing_folder_tiny_and_cut_off(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_image(tmp_path / "nothing.png")
    with pytest.raises(InputError, match="not a file"):
        load_image(tmp_path)
    Image.new("RGB", (31, 200)).save(tmp_path / "tiny.png")
    with pytest.raises(InputError, match="31x200"):
        load_image(tmp_path / "tiny.png")
    noise = np.random.default_rng(0).integers(0, 255, (100, 100, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:9000])
    with pytest.raises(InputError, match="cut off"):
        load_image(tmp_path / "cut.png")


def test_whatever_a_plug_in_raises_is_a_damaged_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    for error in (RuntimeError("planes"), struct.error("short"), KeyError("x"), EOFError()):
        monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda _, error=error: (_ for _ in ()).throw(error))
        with pytest.raises(InputError, match="damaged or cut off"):
            load_image(tmp_path / "a.png")


def test_a_picture_longer_than_can_be_resampled(tmp_path: Path) -> None:
    Image.new("RGB", (32_767, 40)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="the long side must be at most 32766"):
        load_image(tmp_path / "a.png")


def test_sixteen_bit_grey_with_alpha(tmp_path: Path) -> None:
    """65535 is white and opaque; what is half transparent lies on white."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    values = np.zeros((40, 50, 2), ">u2")
    values[..., 0], values[..., 1] = 257 * 80 + 100, 65535
    values[20:, :, 1] = 257 * 51
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 50, 40, 16, 4, 0, 0, 0))
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
    loaded = load_image(tmp_path / "a.png")
    assert (loaded[:20] == 80).all()
    assert (loaded[20:] == round(80 * 0.2 + 255 * 0.8)).all()
