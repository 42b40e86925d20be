"""The formats of results as data: what settings, errors, writers and docs know of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Codec = Literal["h264", "h265", "av1", "prores-hq", "prores-4444", "dnxhr-hqx", "ffv1", "png", "exr"]
Depth = Literal[8, 10, 12, 16]
Alpha = Literal["none", "straight", "premultiplied"]
_MP4, _FOLDER = (".mp4", ".mov", ".m4v", ".mkv"), ("",)


@dataclass(frozen=True)
class Format:
    """How a codec's results are stored.

    title: what people call it. encoder: FFmpeg's name; "" for folders of pictures. endings: the usual one first; "" is a
    folder. pixels: FFmpeg's pixel formats by bits of a channel, the usual depth first. odd: those of odd sizes, where `pixels`
    cannot hold them. alpha: those with opacity. alphas: how opacity may be stored. even: how the size has to divide by 2.
    least: smallest width and height. options: of the encoder. bytes: of a pixel, which a result takes at the least.
    takes_crf: whether the quality is a CRF.
    """

    title: str
    encoder: str
    endings: tuple[str, ...]
    pixels: Mapping[int, str]
    odd: Mapping[int, str] = field(default_factory=dict)
    alpha: Mapping[int, str] = field(default_factory=dict)
    alphas: tuple[Alpha, ...] = ()
    even: tuple[int, int] = (1, 1)
    least: tuple[int, int] = (2, 2)
    options: Mapping[str, str] = field(default_factory=dict)
    bytes: float = 0.004
    takes_crf: bool = False

    @property
    def is_folder(self) -> bool:
        return self.endings == _FOLDER

    @property
    def subsampling(self) -> str:
        """Of colour, as the field writes it: "4:2:0", "RGB"."""
        name = next(iter(self.pixels.values()))
        return next((f"4:{code[1]}:{code[2]}" for code in ("420", "422", "444") if f"yuv{code}" in name), "RGB")

    def usual_depth(self) -> int:
        return next(iter(self.pixels))


FORMATS: Mapping[Codec, Format] = {
    "h264": Format(
        "H.264", "libx264", _MP4, {8: "yuv420p", 10: "yuv420p10le"}, odd={8: "yuv444p", 10: "yuv444p10le"},
        options={"preset": "medium"}, takes_crf=True,
    ),
    "h265": Format(
        "H.265", "libx265", _MP4, {8: "yuv420p", 10: "yuv420p10le", 12: "yuv420p12le"},
        odd={8: "yuv444p", 10: "yuv444p10le", 12: "yuv444p12le"},
        options={"preset": "medium", "x265-params": "log-level=error"}, bytes=0.002, takes_crf=True,
    ),
    "av1": Format(
        "AV1", "libsvtav1", (".mp4", ".mkv"), {10: "yuv420p10le", 8: "yuv420p"}, even=(2, 2), least=(64, 64),
        options={"preset": "8"}, bytes=0.001, takes_crf=True,
    ),
    "prores-hq": Format(
        "ProRes 422 HQ", "prores_ks", (".mov", ".mkv"), {10: "yuv422p10le"}, even=(2, 1),
        options={"profile": "hq", "vendor": "apl0"}, bytes=0.02,
    ),
    "prores-4444": Format(
        "ProRes 4444", "prores_ks", (".mov", ".mkv"), {10: "yuv444p10le"}, alpha={10: "yuva444p10le"},
        alphas=("straight", "premultiplied"), options={"profile": "4444", "vendor": "apl0"}, bytes=0.02,
    ),
    "dnxhr-hqx": Format(
        "DNxHR HQX", "dnxhd", (".mov",), {10: "yuv422p10le"}, even=(2, 1), least=(256, 120),
        options={"profile": "dnxhr_hqx"}, bytes=0.02,
    ),
    "ffv1": Format(
        "FFV1", "ffv1", (".mkv",), {8: "bgr0", 10: "gbrp10le", 12: "gbrp12le", 16: "gbrp16le"},
        alpha={8: "bgra", 10: "gbrap10le", 12: "gbrap12le", 16: "gbrap16le"}, alphas=("straight", "premultiplied"),
        options={"level": "3", "slices": "4", "slicecrc": "1", "g": "1"}, bytes=0.3,
    ),
    "png": Format(
        "PNG", "", _FOLDER, {8: "rgb24", 16: "rgb48"}, alpha={8: "rgba", 16: "rgba64"}, alphas=("straight",), bytes=0.3
    ),
    "exr": Format(
        "OpenEXR", "", _FOLDER, {16: "half"}, alpha={16: "half"}, alphas=("premultiplied",), bytes=0.3
    ),
}  # fmt: skip
"""PNG's alpha is straight and OpenEXR's premultiplied by their standards."""


def endings_told(codec: Codec) -> str:
    """What names a codec's results may have, in words."""
    found = FORMATS[codec]
    return "no ending, for a folder" if found.is_folder else " or ".join(found.endings)


def holding_alpha() -> str:
    """The codecs that can hold opacity, in words."""
    *most, last = (codec for codec, one in FORMATS.items() if one.alphas)
    return f"{', '.join(most)} or {last}"
