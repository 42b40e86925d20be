"""The words of shot records: names of fields, and which values each may have (production spec, section 3).

Fields of XMP dynamic media, IPTC and EXIF have the standards' names and words. Fields without a prefix are our own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from wanimate.errors import InputError

MOVES = (
    "Aerial", "Boom Down", "Boom Up", "Crane Down", "Crane Up", "Dolly In", "Dolly Out", "Pan Left", "Pan Right",
    "Pedestal Down", "Pedestal Up", "Tilt Down", "Tilt Up", "Tracking", "Truck Left", "Truck Right", "Zoom In", "Zoom Out",
    "Roll Left", "Roll Right", "Handheld", "Static",
)  # fmt: skip
"""The last four stand in no standard."""
ANGLES = (
    "Low Angle", "Eye Level", "High Angle", "Overhead Shot", "Birds Eye Shot", "Dutch Angle", "POV", "Over the Shoulder",
    "Reaction Shot",
)  # fmt: skip
SIZES = ("ECU", "CU", "MCU", "MS", "MWS", "WS", "EWS")
PLACES = ("INT", "EXT", "INT/EXT")
TIMES = ("DAY", "NIGHT", "DAWN", "DUSK")
SCENES = {"NIGHT": "011400", "EXT": "011600", "INT": "011700"}
"""IPTC Scene codes of words of the slug line."""
LIGHT_SOURCES = (0, 1, 2, 3, 4, 9, 10, 11, 12, 13, 14, 15, 17, 18, 19, 20, 21, 22, 23, 24, 255)
"""Numbers of EXIF's LightSource; 1 daylight, 2 fluorescent, 3 tungsten, 10 cloudy, 11 shade."""
_LONGEST = 500

SHOT = (
    "xmpDM:cameraMove", "xmpDM:cameraAngle", "xmpDM:shotSize", "luma", "black", "white", "temperature", "drift",
    "temperatureDrift", "mixed", "timeOfDay", "place", "Iptc4xmpCore:Scene", "exif:LightSource",
)  # fmt: skip
"""Fields of each shot that the analysis proposes, or that only a person fills in (the angle)."""
LOGGED = tuple(
    f"xmpDM:{name}"
    for name in (
        "scene", "shotName", "shotNumber", "takeNumber", "shotLocation", "shotDay", "logComment", "good", "client",
        "projectName",
    )
)  # fmt: skip
"""Fields of each shot that only people fill in."""
FILE = (
    "xmpDM:startTimecode", "xmpDM:altTimecode", "xmpDM:tapeName", "exif:FocalLength", "exif:FNumber", "aux:Lens",
    "tiff:Make", "tiff:Model", "cuts",
)  # fmt: skip
"""Fields of the clip: from its file, and where it is cut."""


@dataclass(frozen=True)
class Guess:
    """What the analysis makes of a field; `value` None where it can tell nothing. `confidence` 0 to 1."""

    value: Any
    confidence: float


def field_name(said: str) -> str:
    """The field that somebody means, with or without the standard's prefix, in any case. Those of `FILE` are the clip's.

    Raises:
        InputError: there is none.
    """
    known = (*SHOT, *LOGGED, *FILE)
    asked = said.strip().casefold()
    exact = next((name for name in known if said.strip() in (name, name.partition(":")[2])), None)
    found = exact or next(
        (name for name in known if asked in (name.casefold(), name.partition(":")[2].casefold())), None
    )
    if found is None:
        short = ", ".join(name.partition(":")[2] or name for name in known)
        raise InputError("field", said[:80], "records have no such field", f"Give one of {short}.")
    return found


def checked(field: str, value: Any) -> Any:
    """A value that a person gives to a field, as the record keeps it. Numbers may be given as text.

    Raises:
        InputError: it breaks the field's rule.
    """
    rule: Callable[[str, Any], Any] = _RULES.get(field, _text)
    return rule(field, value)


def _choice(*known: str) -> Callable[[str, Any], Any]:
    def rule(field: str, value: Any) -> str:
        asked = str(value).strip().casefold()
        found = next((word for word in known if word.casefold() == asked), None)
        if found is None:
            raise InputError("value", str(value)[:80], f"{field} has no such value", f"Give {' or '.join(known)}.")
        return found

    return rule


def _number(low: float, high: float) -> Callable[[str, Any], Any]:
    def rule(field: str, value: Any) -> float:
        try:
            found = float("nan") if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            found = math.nan
        if not low <= found <= high:
            said = f"{field} is a number from {low:g} to {high:g}"
            raise InputError("value", str(value)[:80], said, "Give such a number.")
        return found

    return rule


def _flag(field: str, value: Any) -> bool:
    words = {"true": True, "yes": True, "false": False, "no": False}
    found = value if isinstance(value, bool) else words.get(str(value).strip().casefold())
    if found is None:
        raise InputError("value", str(value)[:80], f"{field} is true or false", "Give true or false.")
    return found


def _scenes(field: str, value: Any) -> list[str]:
    codes = [str(code).strip() for code in value] if isinstance(value, list) else str(value).replace(",", " ").split()
    if (
        not codes
        or len(codes) > 20
        or any(len(code) != 6 or not code.isascii() or not code.isdecimal() for code in codes)
    ):
        rule = f"{field} is a list of six-digit IPTC codes"
        raise InputError("value", str(value)[:80], rule, "Give codes such as 011600 or 011700.")
    return codes


def _source(field: str, value: Any) -> int:
    text = str(value).strip()
    if not text.isascii() or not text.isdecimal() or len(text) > 3 or int(text) not in LIGHT_SOURCES:
        rule = f"{field} is a number of EXIF's list"
        raise InputError(
            "value", text[:80], rule, "Give 1 for daylight, 3 for tungsten or 10 for cloudy, for instance."
        )
    return int(text)


def _cuts(field: str, value: Any) -> Any:
    rule = "the shots of this record begin where the analysis has found cuts"
    raise InputError("field", field, rule, "Split the clip, and prepare each part.")


def _text(field: str, value: Any) -> str:
    text = str(value).strip() if isinstance(value, str | int | float) else ""
    if not text or len(text) > _LONGEST or not text.isprintable():
        rule = f"{field} is a text of 1 to {_LONGEST} printable characters"
        raise InputError("value", str(value)[:80], rule, "Give such a text.")
    return text


_RULES: dict[str, Callable[[str, Any], Any]] = {
    "xmpDM:cameraMove": _choice(*MOVES), "xmpDM:cameraAngle": _choice(*ANGLES), "xmpDM:shotSize": _choice(*SIZES),
    "timeOfDay": _choice(*TIMES), "place": _choice(*PLACES), "Iptc4xmpCore:Scene": _scenes, "exif:LightSource": _source,
    "luma": _number(0, 1), "black": _number(0, 1), "white": _number(0, 1), "temperature": _number(1000, 40000),
    "drift": _number(0, 20), "temperatureDrift": _number(0, 40000), "mixed": _flag, "xmpDM:good": _flag, "cuts": _cuts,
    "exif:FocalLength": _number(0.1, 10000), "exif:FNumber": _number(0.1, 1000),
}  # fmt: skip
