"""Names of results: templates such as `{shot}_{take}_v{version:03}.mov`, and versions that are never written over."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from wanimate.config import OutputSettings
from wanimate.errors import InputError, OutputError, setting

_FIELD = re.compile(r"\{(shot|take|version)(?::0?(\d{1,2}))?\}")
_UNFIT = re.compile(r'[\s<>:"|?*]+')
_QUARANTINED = "quarantined"


@dataclass(frozen=True)
class Named:
    """Where a result goes, and its version where the name has one."""

    out: Path
    version: int | None = None


def filled(text: str, shot: str, take: int, version: int | None, field: str) -> str:
    """A text with the shot, take and version that are known filled in.

    Raises:
        InputError: the text has {version}, and there is none; or {shot}, and its name is empty.
    """
    values: dict[str, str | int] = {"shot": _UNFIT.sub("_", shot), "take": take}
    values |= {} if version is None else {"version": version}
    for found in _FIELD.finditer(text):
        if not str(values.get(found[1], "")):
            rule = f"the name has {{{found[1]}}}, and the result's record tells none"
            raise InputError(field, text, rule, f"Write the {found[1]} itself.")
    return _FIELD.sub(lambda found: _filled(found, values), text)


def named(out: Path, output: OutputSettings, skip: int = 0) -> Named:
    """The name that a template stands for; other names are themselves. {shot}, {take} and {version} are filled in, with a
    width where one is given ({version:03}). A version is the one after the highest that is there, under whatever ending, and
    `skip` more.

    Raises:
        InputError: the name has {shot}, and no shot is given. OutputError: the version does not stand in the last part of the
            name, or stands there twice.
    """
    text = str(out)
    if not _FIELD.search(text):
        return Named(out)
    if not output.shot and any(found[1] == "shot" for found in _FIELD.finditer(text)):
        raise InputError("output.shot", None, "the result's name has {shot}", f"Give {setting('output.shot')}.")
    values: dict[str, str | int] = {"shot": _UNFIT.sub("_", output.shot), "take": output.take}
    known = Path(_FIELD.sub(lambda found: _filled(found, values), text))
    fields = [found for found in _FIELD.finditer(str(known)) if found[1] == "version"]
    if not fields:
        return Named(known)
    if len(fields) > 1 or not _FIELD.search(known.name):
        rule = "{version} has to stand once, in the last part of the name"
        raise OutputError("out", out, rule, "Write the name as {shot}_v{version:03}.mov, for instance.")
    version = _highest(known) + 1 + skip
    return Named(Path(_FIELD.sub(lambda found: _filled(found, {"version": version}), str(known))), version)


def _filled(found: re.Match[str], values: dict[str, str | int]) -> str:
    value = values.get(found[1])
    if value is None:
        return found[0]
    width = int(found[2] or 0)
    return f"{value:0{width}}" if isinstance(value, int) else f"{value:{width}}"


def _highest(template: Path) -> int:
    """The highest version of this name that is there, 0 where there is none. Hidden names are work that is not finished."""
    stem = template.name.removesuffix(template.suffix)
    before, after = _FIELD.split(stem)[0], _FIELD.split(stem)[-1]
    pattern = re.compile(rf"{re.escape(before)}(\d+){re.escape(after)}(\..*)?", re.DOTALL)
    try:
        names = [path.name for path in template.parent.iterdir()]
    except OSError:
        return 0
    return max((int(found[1]) for name in names if (found := pattern.fullmatch(name))), default=0)


def quarantined(out: Path) -> Path:
    """The name of a result that may not leave yet: hero.mp4 -> hero.quarantined.mp4, frames -> frames-quarantined."""
    if is_quarantined(out):
        return out
    return out.with_name(f"{out.stem}.{_QUARANTINED}{out.suffix}" if out.suffix else f"{out.name}-{_QUARANTINED}")


def is_quarantined(out: Path) -> bool:
    return out.stem.endswith(f".{_QUARANTINED}" if out.suffix else f"-{_QUARANTINED}")


def freed(out: Path) -> Path:
    """The reverse of `quarantined`."""
    return out.with_name(f"{out.stem[: -len(_QUARANTINED) - 1]}{out.suffix}") if is_quarantined(out) else out
