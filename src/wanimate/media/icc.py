"""Colours of pictures that are not sRGB: ICC profiles, and the numbers of ITU-T H.273 in PNG, AVIF and HEIC files."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

from wanimate.media.colour import RGB, conversion_of, known
from wanimate.types import Frame

ToSrgb = Callable[[npt.NDArray[np.uint8]], Frame]
"""uint8 [rows, W, C] of the picture's own colours -> uint8 sRGB [rows, W, 3]."""
_MODES = {"RGB": "RGB", "CMYK": "CMYK", "GRAY": "L"}
_GREY = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "I;16N", "F")
_SAME = 1
"""Levels of 255 by which a profile may differ from sRGB and still be sRGB."""
_HEAD = 1 << 18


class ProfileError(ValueError):
    """A profile that cannot be read or does not fit its picture."""


def to_srgb(image: Any, path: Path) -> ToSrgb | None:
    """What makes sRGB out of the colours of an open picture; None where they are sRGB already.

    ICC profiles are followed with perceptual intent and black point compensation.

    Raises:
        ProfileError: its profile cannot be used.
    """
    data = image.info.get("icc_profile")
    if image.mode == "LAB":
        return _transform(ImageCms.createProfile("LAB"), "LAB")
    return _by_profile(image.mode, data) if data else _by_numbers(path)


def _by_profile(mode: str, data: bytes) -> ToSrgb | None:
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
        space = profile.profile.xcolor_space.strip()
        wanted = "CMYK" if mode == "CMYK" else "GRAY" if space == "GRAY" and mode in _GREY else "RGB"
        if space != wanted:
            raise ProfileError(f"it is of {space} and the picture of {wanted}")
        made = _transform(profile, _MODES[space])
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        raise ProfileError(str(error)) from error
    return None if space == "RGB" and _is_srgb(made) else made


def _transform(profile: Any, mode: str) -> ToSrgb:
    intent, flags = ImageCms.Intent.PERCEPTUAL, ImageCms.Flags.BLACKPOINTCOMPENSATION
    made = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), mode, "RGB", intent, flags)

    def convert(pixels: npt.NDArray[np.uint8]) -> Frame:
        colours = pixels[..., 0] if mode == "L" else pixels[..., : 4 if mode == "CMYK" else 3]
        shaped = Image.frombytes(mode, colours.shape[1::-1], np.ascontiguousarray(colours).tobytes())
        return np.asarray(made.apply(shaped))

    return convert


def _is_srgb(convert: ToSrgb) -> bool:
    levels = np.linspace(0, 255, 9).astype(np.uint8)
    grid = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(27, 27, 3)
    return int(np.abs(convert(grid).astype(int) - grid).max()) <= _SAME


def _by_numbers(path: Path) -> ToSrgb | None:
    """By the chunk cICP of PNG, or the box colr of AVIF and HEIC."""
    with open(path, "rb") as file:
        head = file.read(_HEAD)
    if head.startswith(b"\x89PNG") and (at := head.find(b"\0\0\0\x04cICP")) > 0:
        primaries, transfer = head[at + 8 : at + 10]
    elif head[4:8] == b"ftyp" and (at := head.find(b"colrnclx")) > 0:
        primaries, transfer = struct.unpack(">2H", head[at + 8 : at + 12])
    else:
        return None
    colours = known(RGB, transfer, primaries)
    if not colours.converted:
        return None
    return lambda pixels: conversion_of(colours)(pixels[..., :3].astype(np.uint16) * 257)
