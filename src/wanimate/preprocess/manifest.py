"""The manifest of a guides folder, which may be a stranger's: what it must hold, and the clip that it names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from wanimate.config import PreprocessSettings
from wanimate.errors import InputError
from wanimate.events import Notice
from wanimate.media.files import sha256
from wanimate.media.json_file import read_json
from wanimate.media.probe import probe
from wanimate.preprocess.folder import FORMAT
from wanimate.types import Clip, Mode

VERSION = 1
AGAIN = "Run `wanimate preprocess` again"
PARTS: dict[Mode, tuple[str, ...]] = {
    "animation": ("pose", "face"),
    "replacement": ("pose", "face", "background", "mask"),
}
FACE_SIDES = (2, 4096)
MAX_RATE, MAX_TERM = 1000, 2**31 - 1
"""The container counts time in milliseconds, and a rate is a ratio of two 32-bit numbers."""
_MAX_COUNT, _MAX_SIDE = 2**31 - 1, 2**16
_MAX_TEXT = 10_000
_NOT_FILES = tuple(map(Path, ("/dev", "/proc", "/sys", "/net")))
"""Where opening or even looking can wait for ever, reach another machine, or tell what no file holds."""

Name = Annotated[str, StringConstraints(pattern=r"^[^/\\\x00-\x1f\x7f]{1,255}$")]
Side = Annotated[int, Field(ge=1, le=_MAX_SIDE)]
Index = Annotated[int, Field(ge=0, le=_MAX_COUNT)]
Text = Annotated[str, StringConstraints(max_length=_MAX_TEXT)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="allow", allow_inf_nan=False)


class Source(_Strict):
    """The clip. `frames`: its frame of every job frame."""

    path: Annotated[str, StringConstraints(min_length=1, max_length=4096, pattern=r"^[^\x00]*$")]
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    frames: Annotated[list[Index], Field(min_length=1)]


class Manifest(_Strict):
    """`manifest.json` of a guides folder (docs/files.md). Keys that are not named here are kept as they are."""

    mode: Mode
    fps: Annotated[str, StringConstraints(pattern=r"^[0-9]{1,10}(/[0-9]{1,10})?$")]
    count: Annotated[int, Field(ge=1, le=_MAX_COUNT)]
    size: Annotated[list[Side], Field(min_length=2, max_length=2)]
    face_size: Annotated[int, Field(ge=FACE_SIDES[0], le=FACE_SIDES[1])]
    files: dict[str, Name]
    reference: Name
    no_person: list[Annotated[list[Index], Field(min_length=2, max_length=2)]] = []
    warnings: list[Text] = []
    source: Source | None = None
    settings: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Manifest:
        if any(name in (".", "..") for name in (self.reference, *self.files.values())):
            raise ValueError("a name has to be that of a file in the folder")
        if missing := [part for part in PARTS[self.mode] if part not in self.files]:
            raise ValueError(f"files has to name the {missing[0]} video")
        rate = [int(term) for term in self.fps.split("/")]
        if rate[-1] == 0 or max(rate) > MAX_TERM or not 0 < self.rate <= MAX_RATE:
            raise ValueError(f"fps has to be above 0 and at most {MAX_RATE}")
        before = 0
        for start, stop in self.no_person:
            if not before <= start < stop <= self.count:
                raise ValueError("no_person has to be stretches of frames one after the other, as [first, end)")
            before = stop
        if self.source is not None and len(self.source.frames) != self.count:
            raise ValueError("source.frames has to name one frame of the clip for each frame")
        return self

    @property
    def rate(self) -> Fraction:
        """Frames a second."""
        return Fraction(self.fps)


def read_manifest(path: Path) -> tuple[Manifest, dict[str, Any]]:
    """The manifest of a guides folder, and all that the file says.

    Raises:
        InputError: it cannot be read, is of another form or version, or breaks a rule of `Manifest`.
    """
    try:
        found = read_json(path)
        if not isinstance(found, dict):
            raise ValueError("it is not a table of keys")
        if (found.get("format"), found.get("version")) != (FORMAT, VERSION):
            kind, version = (repr(found.get(key))[:80] for key in ("format", "version"))
            rule = f"is {kind} version {version}, not {FORMAT!r} version {VERSION}"
            raise InputError("guides", path, rule, AGAIN)
        return Manifest.model_validate(found), found
    except ValidationError as error:
        raise InputError("guides", path, f"damaged ({_first(error)})", AGAIN) from error
    except OSError as error:
        raise InputError("guides", path, f"cannot be read ({error.strerror})", AGAIN) from error
    except ValueError as error:
        raise InputError("guides", path, f"damaged ({error})", AGAIN) from error


def _first(error: ValidationError) -> str:
    """The first broken rule, as a phrase."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"]))
    rule = (
        first["msg"]
        .removeprefix("Value error, ")
        .replace("Input should", "it has to")
        .replace("String should", "it has to")
    )
    if first["type"] == "missing":
        rule = "it is missing"
    return f"{where}: {rule}" if where else rule


def inside(folder: Path, name: str) -> Path:
    """A file of the folder. Raises InputError where it is a link that leads out of it."""
    path = folder / name
    try:
        leaves = path.resolve().parent != folder.resolve()
    except (OSError, RuntimeError):  # links in a circle
        leaves = True
    if leaves:
        raise InputError("guides", path, "it is a link that leads out of the folder", "Put the file itself there.")
    return path


def source_clip(manifest: Mapping[str, Any], read: Callable[[Path], str] = sha256) -> tuple[Clip | None, Notice | None]:
    """The clip that guides were made of, for its sound and pictures, and why it is left out where it is not used.

    The path stands in a file that may be a stranger's: it is opened only if it is a plain file, and used only if its bytes
    are those that the guides were made of.

    Args:
        manifest: what `read_manifest` accepted; empty for a published set, which names no clip.
        read: path -> SHA-256 in hex.
    """
    if not manifest.get("source"):
        return None, None
    path = Path()
    try:
        source = Source.model_validate(manifest["source"])
        path = Path(source.path)
        if not _is_plain(path):
            reason = "is not there any more"
        elif read(path) != source.sha256:
            reason = "has changed since the guides were made"
        else:
            return probe(path, None, "guides"), None
    except (OSError, ValueError, InputError):
        reason = "cannot be read"
    return None, Notice(f"the clip of the guides {reason}: the result is made without its sound ({path})", "warning")


def first_seconds(clip: Clip, manifest: Mapping[str, Any]) -> float:
    """The time of the first frame that guides took of their clip, in seconds from its beginning."""
    frames = manifest.get("source", {}).get("frames") or [0]
    return clip.times[min(frames[0], clip.count - 1)]


def named_clip(manifest: Mapping[str, Any]) -> list[Path]:
    """The file that guides name as their clip, changed or not: nothing may be written over it. Empty where there is none."""
    source = manifest.get("source")
    path = Path(source.get("path", "") if isinstance(source, dict) else "")
    return [path] if _is_plain(path) else []


def _is_plain(path: Path) -> bool:
    if not path.is_absolute() or str(path).startswith("//") or any(path.is_relative_to(place) for place in _NOT_FILES):
        return False
    real = path.resolve()
    return not any(real.is_relative_to(place) for place in _NOT_FILES) and real.is_file()


def told_settings(manifest: Mapping[str, Any]) -> dict[str, Any] | None:
    """The settings the guides were made with, for a record; None where the guides do not tell, or tell what are none."""
    given: dict[str, Any] | None = manifest.get("settings")
    try:
        if given is not None:
            PreprocessSettings.model_validate(given)
    except InputError:
        return None
    return given


def stretches(manifest: Manifest) -> Iterator[slice]:
    """The frames in which nobody was found."""
    return (slice(start, stop) for start, stop in manifest.no_person)
