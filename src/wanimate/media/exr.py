"""OpenEXR pictures of 16-bit floats, through the `OpenEXR` package: light of BT.709's primaries, opacity premultiplied."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wanimate.errors import Fault, InputError, OutputError

CHROMATICITIES = (0.640, 0.330, 0.300, 0.600, 0.150, 0.060, 0.3127, 0.3290)
"""x and y of red, green, blue and white: ITU-R BT.709."""
CURVE = "ITU-R BT.709 camera curve undone"
"""What was done to gamma-coded values, as the header says it."""
_FAILURES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS, errno.EIO)


def opened() -> Any:
    """The package. Raises ImportError where it is not installed."""
    import OpenEXR

    return OpenEXR


def check_installed(field: str) -> None:
    """Raises OutputError where the package is missing."""
    try:
        opened()
    except ImportError as error:
        remedy = "Install it with `pip install 'wanimate[exr]'`, or choose another codec."
        raise OutputError(field, "exr", "the OpenEXR package is not installed", remedy) from error


def header_of(fps: Fraction, label: str | None = None, reel: str = "") -> dict[str, Any]:
    """The header of a picture. label: its timecode, HH:MM:SS:FF; a ";" before the frames says that labels are dropped."""
    library = opened()
    found: dict[str, Any] = {
        "compression": library.ZIP_COMPRESSION, "type": library.scanlineimage, "chromaticities": CHROMATICITIES,
        "framesPerSecond": (fps.numerator, fps.denominator), "transferFunction": CURVE,
    }  # fmt: skip
    if label is not None:
        parts = [int(part) for part in re.split("[:;]", label)]
        found["timeCode"] = library.TimeCode(*parts, int(";" in label), *[0] * 13)
    return found | ({"reelName": reel} if reel else {})


def label_of(header: Mapping[str, Any]) -> str:
    """The timecode that a header tells, as `header_of` takes it; "" where it tells none."""
    told = header.get("timeCode")
    if told is None:
        return ""
    sign = ";" if told.dropFrame else ":"
    return f"{told.hours:02}:{told.minutes:02}:{told.seconds:02}{sign}{told.frame:02}"


def write_exr(path: Path, picture: npt.NDArray[np.float16], header: Mapping[str, Any]) -> None:
    """A picture [H, W, 3 or 4] as a new file.

    Raises:
        OSError: it cannot be written.
    """
    name = "RGBA" if picture.shape[2] == 4 else "RGB"
    try:
        opened().File(dict(header), {name: np.ascontiguousarray(picture)}).write(str(path))
    except RuntimeError as error:
        number = next((code for code in _FAILURES if os.strerror(code) in str(error)), 0)
        raise OSError(number, str(error)) from error


def read_exr(path: Path, field: str) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
    """A picture [H, W, 3 or 4] of light with its header.

    Raises:
        InputError: it cannot be read, has no R, G and B, or other primaries than BT.709's; it holds a part of its picture
            alone; its pixels are not square.
    """
    check_readable(path, field)
    try:
        file = opened().File(str(path), separate_channels=True)
        header, channels = file.header(), file.channels()
        planes = [channels[name].pixels for name in "RGB"] + ([channels["A"].pixels] if "A" in channels else [])
        picture = np.stack(planes, axis=-1).astype(np.float32)
    except (RuntimeError, KeyError, ValueError) as error:
        rule = f"the picture cannot be read ({error})"
        raise InputError(field, path, rule, "Export it again with R, G and B.", Fault.UNREADABLE) from error
    told = header.get("chromaticities")
    if told is not None and np.abs(np.subtract(told, CHROMATICITIES)).max() > 2e-3:
        rule = "its colours have other primaries than those of BT.709"
        raise InputError(field, path, rule, "Convert it to BT.709 (sRGB) primaries.", Fault.UNREADABLE)
    if header.get("pixelAspectRatio", 1.0) != 1:
        raise InputError(field, path, "its pixels are not square", "Export it with square pixels.", Fault.UNREADABLE)
    held, shown = (np.asarray(header[name]).tolist() for name in ("dataWindow", "displayWindow"))
    if held != shown:
        rule = "its data window is not its display window"
        raise InputError(field, path, rule, "Export the whole picture.", Fault.UNREADABLE)
    return picture, header


def check_readable(path: Path, field: str) -> None:
    """Raises InputError where the package is missing."""
    try:
        opened()
    except ImportError as error:
        remedy = "Install it with `pip install 'wanimate[exr]'`."
        rule = "reading it needs the OpenEXR package"
        raise InputError(field, path, rule, remedy, Fault.UNREADABLE) from error
