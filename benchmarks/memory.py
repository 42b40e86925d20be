"""How much memory a character's picture takes, by form: at the most, while it is read and while it is brought to a job's size.

python benchmarks/memory.py --megapixels 100
"""

from __future__ import annotations

import argparse
import json
import os
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

OUTPUT = (848, 480)
Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]


def noise(side: int, channels: int, dtype: type[np.uint8] | type[np.uint16]) -> Pixels:
    """[side, side, channels], a tenth of it random and repeated, so that files of it are written in seconds."""
    part = -(-side // 10)
    random = np.random.default_rng(0)
    tile = random.integers(0, np.iinfo(dtype).max, (part, part, channels), dtype=dtype)
    return np.tile(tile, (10, 10, 1))[:side, :side].squeeze()


def _pillow(mode: str, **options: object) -> Callable[[Path, int], None]:
    def write(path: Path, side: int) -> None:
        pixels = noise(side, len(Image.new(mode, (1, 1)).getbands()), np.uint8)
        Image.fromarray(pixels, mode).save(path, **options)

    return write


def _palette(path: Path, side: int) -> None:
    picture = Image.fromarray(noise(side, 1, np.uint8), "P")
    picture.putpalette(list(range(256)) * 3)
    picture.save(path, compress_level=1, transparency=3)


def _opencv(channels: int, *options: int) -> Callable[[Path, int], None]:
    return lambda path, side: cv2.imwrite(str(path), noise(side, channels, np.uint16), options) and None


def _flat(channels: int) -> Callable[[Path, int], None]:
    """One colour: an encoder that takes minutes for noise takes seconds, and its decoder as much memory."""
    return lambda path, side: cv2.imwrite(str(path), np.zeros((side, side, channels), np.uint16)) and None


def _jpeg(path: Path, side: int) -> None:
    cv2.imwrite(str(path), noise(side, 3, np.uint8), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])


def _grey_and_alpha(path: Path, side: int) -> None:
    """16 bits each, which no library at hand writes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = noise(side, 2, np.uint16).astype(">u2").reshape(side, -1).view(np.uint8)
    data = zlib.compress(np.pad(rows, ((0, 0), (1, 0))).tobytes(), 1)
    header = struct.pack(">IIBBBBB", side, side, 16, 4, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b""))


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


DEFLATE = (cv2.IMWRITE_TIFF_COMPRESSION, 8)
FORMS: dict[str, tuple[str, Callable[[Path, int], None]]] = {
    "RGB, 8 bits": ("png", _pillow("RGB", compress_level=1)),
    "RGBA, 8 bits": ("png", _pillow("RGBA", compress_level=1)),
    "grey, 8 bits": ("png", _pillow("L", compress_level=1)),
    "grey and alpha, 8 bits": ("png", _pillow("LA", compress_level=1)),
    "palette with transparency": ("png", _palette),
    "RGB, 16 bits": ("png", _opencv(3, cv2.IMWRITE_PNG_COMPRESSION, 1)),
    "RGBA, 16 bits": ("png", _opencv(4, cv2.IMWRITE_PNG_COMPRESSION, 1)),
    "grey, 16 bits": ("png", _opencv(1, cv2.IMWRITE_PNG_COMPRESSION, 1)),
    "grey and alpha, 16 bits": ("png", _grey_and_alpha),
    "RGBA, 8 bits, TIFF": ("tiff", _pillow("RGBA")),
    "CMYK, TIFF": ("tiff", _pillow("CMYK")),
    "RGBA, 16 bits, TIFF deflate": ("tiff", _opencv(4, *DEFLATE)),
    "grey, 16 bits, TIFF": ("tiff", _opencv(1, *DEFLATE)),
    "RGB, JPEG progressive": ("jpg", _jpeg),
    "RGB, JPEG, rotated": ("jpg", _pillow("RGB", quality=80, exif=_turned())),
    "RGB, 16 bits, JPEG 2000": ("jp2", _flat(3)),
    "RGBA, 16 bits, JPEG 2000": ("jp2", _flat(4)),
    "RGB, 16 bits, PPM": ("ppm", _opencv(3)),
    "RGB, AVIF": ("avif", lambda path, side: Image.new("RGB", (side, side)).save(path, speed=10)),
    "RGBA, WebP": ("webp", _pillow("RGBA", quality=60, method=0)),
}
"""Name -> (ending, writer of a square picture of that side)."""


def resident(name: str) -> int:
    """Bytes of this process in memory: "VmRSS" now, "VmHWM" at the most so far (Linux; getrusage counts the parent's, too)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)


def use(path: Path) -> None:
    """Everything a job does with a picture of full size, in a process of its own; prints the bytes it took at the most."""
    from wanimate.media.image import load_image
    from wanimate.media.resize import cover, published_resize
    from wanimate.preprocess.detect.litert import Picture
    from wanimate.preprocess.detect.yolo_vitpose import Box, detector_input, pose_input
    from wanimate.preprocess.guides import write_png
    from wanimate.preprocess.modes import small

    before = resident("VmRSS")
    image = load_image(path)
    read = resident("VmHWM") - before
    cover(image, *OUTPUT), published_resize(image, OUTPUT[0] * OUTPUT[1]), small(image, OUTPUT)
    picture = Picture(image)
    picture.crop(picture.whole(), 192, 0.0)
    height, width = image.shape[:2]
    detector_input(image), pose_input(image, Box(0, 0, width, height, 1.0))
    write_png(path.with_name("written.png"), image)
    print(json.dumps({"read": read, "used": resident("VmHWM") - before}))


def measure(form: str, megapixels: float) -> tuple[int, int]:
    """Bytes at the most: until a picture of that form was read, and until it was used."""
    ending, write = FORMS[form]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"picture.{ending}"
        write(path, round((megapixels * 1e6) ** 0.5))
        own = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}  # as users have it
        words = [sys.executable, __file__, "--use", str(path)]
        done = subprocess.run(words, capture_output=True, text=True, check=True, env=own)
    found = json.loads(done.stdout)
    return found["read"], found["used"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megapixels", type=float, default=100)
    parser.add_argument("--use", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.use is not None:
        use(args.use)
        return
    print(f"| form of {args.megapixels:g} megapixels | GiB to read it | GiB to use it |\n|---|---|---|")
    for form in FORMS:
        read, used = measure(form, args.megapixels)
        print(f"| {form} | {read / 2**30:.2f} | {used / 2**30:.2f} |", flush=True)


if __name__ == "__main__":
    main()
