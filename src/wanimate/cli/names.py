"""How the command line calls settings: "preprocess.person" is `--person`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from wanimate.config import Job, ParallelSettings, RuntimeSettings
from wanimate.config.base import Setting
from wanimate.errors import Spelling


def declared(setting: Setting) -> str:
    """The flag of a setting, with that which turns it off, if there is one: "--smooth/--no-smooth"."""
    if setting.option.flag is not None:
        return setting.option.flag
    flag = "--" + setting.name.replace("_", "-")
    switch = "bool" in str(setting.info.annotation) and setting.info.default is not False
    return f"{flag}/--no-{flag[2:]}" if switch else flag


def flag_of(setting: Setting) -> str:
    """The flag of a setting; "" if the command line cannot give it."""
    return declared(setting).partition("/")[0]


@cache
def _flags() -> Mapping[str, str]:
    groups = (Job, RuntimeSettings, ParallelSettings)
    return {setting.path: flag for group in groups for setting in group.settings() if (flag := flag_of(setting))}


def command_line(field: str) -> str:
    """The flag of a settings field. A name that is no setting stays as it is."""
    flags = _flags()
    if field in flags or "." not in field:
        return flags.get(field, field)
    near = (flag for path, flag in flags.items() if path.startswith(f"{field}.") or field.startswith(f"{path}."))
    return next(near, field.rpartition(".")[2])


def spelling_of(names: Mapping[str, str], otherwise: Spelling) -> Spelling:
    """A command's own names for fields, and another spelling for those it has no name for."""
    return lambda field: names[field] if field in names else otherwise(field)


def field_of(flag: str) -> str:
    """The field of a flag; of a flag that is no setting's, its name."""
    fields = (field for field, known in _flags().items() if known == flag)
    return next(fields, flag.strip("-").replace("-", "_").lower())
