"""What a web page, a broadcaster and an effects house ask of a file: rules as data, held against a `Deliverable`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from wanimate.measure.deliverable import Deliverable
from wanimate.media import timecode

Preset = Literal["any", "web", "broadcast", "vfx"]
JITTER = 0.0011
"""Seconds by which a time stamp may be off: containers that count milliseconds round."""
_LEGAL = 0.01
"""Share of luma outside of the limited range that is let pass (EBU R 103: 1 %)."""
_BROADCAST_RATES = frozenset(
    Fraction(n, d) for n, d in ((24000, 1001), (24, 1), (25, 1), (30000, 1001), (50, 1), (60000, 1001))
)


@dataclass(frozen=True)
class Rule:
    """name: of what is checked. holds: whether a file keeps the rule. found: what it has, in words. wanted: the rule."""

    name: str
    holds: Callable[[Deliverable], bool]
    found: Callable[[Deliverable], str]
    wanted: str


@dataclass(frozen=True)
class Verdict:
    """How a file stands to one rule."""

    name: str
    passed: bool
    found: str
    wanted: str


def _stretches(of: list[tuple[int, int]]) -> str:
    shown = ", ".join(f"{a}-{b - 1}" if b > a + 1 else f"{a}" for a, b in of[:5])
    return f"frames {shown}{' and more' if len(of) > 5 else ''}" if of else "none"


def _longest(of: list[tuple[int, int]]) -> int:
    return max((stop - start for start, stop in of), default=0)


def _loudness(file: Deliverable) -> float | None:
    heard = None if file.sound is None else file.sound.loudness
    return None if heard is None else heard.integrated


def _peak(file: Deliverable) -> float:
    heard = None if file.sound is None else file.sound.loudness
    return -100.0 if heard is None or heard.true_peak is None else heard.true_peak


def _told_loudness(file: Deliverable) -> str:
    loudness = _loudness(file)
    return "no sound to measure" if loudness is None else f"{loudness:.1f} LUFS"


def _is_rgb(file: Deliverable) -> bool:
    return not file.pixels.startswith("yuv")


def _codec_rule(codecs: tuple[str, ...]) -> Rule:
    return Rule("codec", lambda f: f.codec in codecs, lambda f: f.codec, f"one of {', '.join(codecs)}")


def _loudness_rule(low: float, high: float) -> Rule:
    return Rule(
        "loudness", lambda f: (found := _loudness(f)) is None or low <= found <= high, _told_loudness,
        f"{low:g} to {high:g} LUFS",
    )  # fmt: skip


_ANY = (
    Rule(
        "tags", lambda f: (f.primaries, f.transfer, f.matrix) in ((1, 1, 1), (1, 1, 0)) and (f.matrix == 1 or _is_rgb(f)),
        lambda f: f"{f.primaries}-{f.transfer}-{f.matrix}", "BT.709 (1-1-1), or 1-1-0 for RGB",
    ),
    Rule("range", lambda f: _is_rgb(f) or f.range == "limited", lambda f: f.range, "limited for Y'CbCr"),
    Rule("constant rate", lambda f: f.jitter <= JITTER, lambda f: f"{f.jitter * 1000:.1f} ms off", "1.1 ms off at most"),
    Rule(
        "frames", lambda f: abs(f.picture.frames - f.seconds * f.rate) <= 1, lambda f: f"{f.picture.frames} frames",
        "as many as length and rate tell",
    ),
    Rule(
        "sound length", lambda f: f.sound is None or abs(f.sound.longer) <= 0.1,
        lambda f: "no sound" if f.sound is None else f"{f.sound.longer:+.3f} s", "within 0.1 s of the picture",
    ),
    Rule("black", lambda f: _longest(f.picture.black) < f.picture.frames, lambda f: _stretches(f.picture.black), "not all"),
    Rule("square pixels", lambda f: f.sample_aspect == "1", lambda f: f.sample_aspect, "1"),
    Rule("fields", lambda f: f.fields == "progressive", lambda f: f.fields, "progressive"),
    Rule(
        "drop-frame", lambda f: f.timecode is None or ";" not in f.timecode or timecode.may_drop(f.rate),
        lambda f: f.timecode or "no timecode", "at 29.97 and 59.94 frames/s only",
    ),
)  # fmt: skip
_STILLS = (
    Rule("black frames", lambda f: not f.picture.black, lambda f: _stretches(f.picture.black), "none"),
    Rule(
        "frozen frames", lambda f: _longest(f.picture.frozen) < f.rate, lambda f: _stretches(f.picture.frozen),
        "less than a second",
    ),
)  # fmt: skip
RULES: Mapping[Preset, tuple[Rule, ...]] = {
    "any": _ANY,
    "web": (
        *_ANY, *_STILLS, _codec_rule(("h264", "hevc", "av1", "vp9")),
        Rule("pixels", lambda f: f.pixels in ("yuv420p", "yuv420p10le"), lambda f: f.pixels, "4:2:0, which browsers show"),
        Rule(
            "level", lambda f: f.level is None or f.level <= 5.2,
            lambda f: "untold" if f.level is None else f"{f.level:.1f}", "5.2 at most",
        ),
        Rule("streamable", lambda f: f.streamable is not False, lambda f: str(f.streamable), "the index before the frames"),
        Rule("alpha", lambda f: f.picture.least_alpha is None, lambda f: "there" if f.picture.most_alpha else "none", "none"),
        _loudness_rule(-24, -10),
        Rule("true peak", lambda f: _peak(f) <= -1, lambda f: f"{_peak(f):.1f} dBTP", "-1 dBTP at most"),
    ),
    "broadcast": (
        *_ANY, *_STILLS, _codec_rule(("prores", "dnxhd", "h264", "hevc")),
        Rule("rate", lambda f: f.rate in _BROADCAST_RATES, lambda f: str(f.rate), "23.976, 24, 25, 29.97, 50 or 59.94"),
        Rule(
            "size", lambda f: (f.width, f.height) in ((1920, 1080), (3840, 2160)), lambda f: f"{f.width}x{f.height}",
            "1920x1080 or 3840x2160",
        ),
        Rule("timecode", lambda f: f.timecode is not None, lambda f: f.timecode or "none", "there"),
        Rule(
            "legal levels", lambda f: f.picture.excursions <= _LEGAL, lambda f: f"{100 * f.picture.excursions:.2f} % outside",
            "1 % outside at most (EBU R 103)",
        ),
        Rule("alpha", lambda f: f.picture.least_alpha is None, lambda f: "there" if f.picture.most_alpha else "none", "none"),
        _loudness_rule(-24, -22),
        Rule("true peak", lambda f: _peak(f) <= -1, lambda f: f"{_peak(f):.1f} dBTP", "-1 dBTP at most (EBU R 128)"),
    ),
    "vfx": (
        *_ANY, _codec_rule(("ffv1", "prores", "dnxhd", "png", "cfhd")),
        Rule("depth", lambda f: f.depth >= 10, lambda f: f"{f.depth} bits", "10 bits or more"),
        Rule("chroma", lambda f: "420" not in f.pixels, lambda f: f.pixels, "4:2:2 or more"),
        Rule("timecode", lambda f: f.timecode is not None, lambda f: f.timecode or "none", "there"),
        Rule(
            "alpha", lambda f: f.picture.most_alpha is None or f.picture.most_alpha > 0,
            lambda f: "none" if f.picture.most_alpha is None else f"{f.picture.least_alpha:.3f} to {f.picture.most_alpha:.3f}",
            "not empty, where there is one",
        ),
    ),
}  # fmt: skip
"""Frame rates and levels of browsers; EBU R 103 and R 128; what editors and compositors take."""


def held(file: Deliverable, preset: Preset) -> list[Verdict]:
    """How a file stands to every rule of a preset."""
    return [Verdict(rule.name, rule.holds(file), rule.found(file), rule.wanted) for rule in RULES[preset]]
