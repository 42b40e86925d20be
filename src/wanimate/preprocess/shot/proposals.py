"""From what was seen of a clip to the values of its record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wanimate.media.container import open_video
from wanimate.media.probe import tag_of
from wanimate.preprocess.shot import camera, light
from wanimate.preprocess.shot.analysis import ShotWatch, Sighting
from wanimate.preprocess.shot.framing import shot_size
from wanimate.preprocess.shot.record import FILED, ShotRecord, Value, new_record, now, proposed
from wanimate.preprocess.shot.terms import SCENES, Guess
from wanimate.types import Clip

_NIGHT, _DAY = 0.13, 0.3
"""Mean luma below which it may be night, and above which it may be day."""
_MAY_BE = 0.4
"""Confidence of what nobody has measured the accuracy of."""
_TUNGSTEN, _OPEN_SKY = 3500, 0.6
_SOURCES = ((0, 3300, 3), (3600, 4500, 2), (4900, 5900, 1), (7100, 40000, 11))
"""(from, to, number) in K. Between 5900 and 7100 K the camera is balanced, and its picture tells nothing of the source."""
_TAGS = {
    "aux:Lens": ("lens", "lensmodel", "lens_model", "com.apple.quicktime.camera.lens_model"),
    "exif:FocalLength": ("focallength", "focal_length"),
    "exif:FNumber": ("fnumber", "f_number"),
    "tiff:Make": ("make", "com.apple.quicktime.make"),
    "tiff:Model": ("model", "com.apple.quicktime.model"),
}  # fmt: skip
"""What files call a field."""


def record_of(clip: Clip, watch: ShotWatch) -> ShotRecord:
    """The record of a clip that a watch has seen.

    Raises:
        InputError: the clip cannot be opened any more.
    """
    at = now()
    shots = [(shot.first, shot.stop, _values(shot, watch.fps, at)) for shot in watch.shots]
    cuts = [shot.first for shot in watch.shots[1:]]
    about = of_file(clip, at) | {"cuts": proposed(Guess(cuts, 0.95), at)}
    return new_record(about, shots)


def _values(shot: Sighting, fps: float, at: str) -> dict[str, Value]:
    seconds = (shot.stop - shot.first) / fps
    known = sum(step is not None for step in shot.steps) / max(len(shot.steps), 1)
    followed = sum(change is not None for change in shot.changes) / max(len(shot.changes), 1)
    warm = light.temperature(shot.tally)
    found: dict[str, Guess] = {
        "xmpDM:cameraMove": camera.named(shot.steps, seconds),
        "moves": Guess(camera.stretches(shot.steps, shot.at), known),
        "xmpDM:shotSize": shot_size(shot.sizes),
        **light.level(shot.tally),
        "temperature": warm,
        **light.drifts(light.changes(shot.changes), warm.value, followed),
        "mixed": light.mixed(shot.tally),
        "timeOfDay": time_of_day(shot.tally),
        "place": place(shot.tally, warm),
        "exif:LightSource": light_source(warm),
    }
    found["Iptc4xmpCore:Scene"] = scene_codes(found["timeOfDay"], found["place"])
    return {name: proposed(guess, at) for name, guess in found.items()}


def time_of_day(tally: light.Tally) -> Guess:
    """Day or night by the picture's level: a proposal, no more."""
    luma = light.level(tally)["luma"].value
    if luma is None or _NIGHT <= luma <= _DAY:
        return Guess(None, 0.0)
    return Guess("NIGHT" if luma < _NIGHT else "DAY", _MAY_BE)


def place(tally: light.Tally, warm: Guess) -> Guess:
    """Interior or exterior: an open sky, or warm light, is a proposal, no more."""
    if tally.skies and sum(tally.skies) / len(tally.skies) > _OPEN_SKY:
        return Guess("EXT", _MAY_BE)
    if warm.value is not None and warm.value < _TUNGSTEN:
        return Guess("INT", _MAY_BE * warm.confidence)
    return Guess(None, 0.0)


def light_source(warm: Guess) -> Guess:
    """EXIF's number of a light source that has the colour."""
    kind = next((number for low, high, number in _SOURCES if warm.value is not None and low <= warm.value < high), None)
    return Guess(kind, 0.0 if kind is None else _MAY_BE * warm.confidence)


def scene_codes(time: Guess, where: Guess) -> Guess:
    """IPTC's codes of what is proposed for the slug line."""
    codes = [(SCENES[guess.value], guess.confidence) for guess in (time, where) if guess.value in SCENES]
    return Guess([code for code, _ in codes] or None, min((sure for _, sure in codes), default=0.0))


def of_file(clip: Clip, at: str) -> dict[str, Value]:
    """What the file says of itself: timecode, reel, lens. Nothing is guessed.

    Raises:
        InputError: the clip cannot be opened any more.
    """
    said: dict[str, Any] = {"xmpDM:startTimecode": clip.timecode, "xmpDM:tapeName": clip.reel}
    with open_video(clip.path, "video") as container:
        said |= {field: _first(container, names) for field, names in _TAGS.items()}
    for field in ("exif:FocalLength", "exif:FNumber"):
        said[field] = _number(said[field])
    return {name: proposed(Guess(value, 1.0), at, FILED) for name, value in said.items() if value}


def _first(container: Any, names: Sequence[str]) -> str:
    return next((text[:200] for name in names if (text := tag_of(container, name))), "")


def _number(text: str) -> float:
    """Of "35.0 mm", "f/2.8" or "28/10"; 0 where it is none."""
    word = text.lower().removeprefix("f/").replace("mm", "").strip()
    over, _, under = word.partition("/")
    try:
        found = float(over) / float(under or 1)
    except (ValueError, ZeroDivisionError):
        return 0.0
    return found if 0 < found < 10_000 else 0.0
