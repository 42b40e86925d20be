"""Options of the command line, made from the fields of settings classes."""

from __future__ import annotations

import argparse
from dataclasses import MISSING, Field, field, fields
from types import UnionType
from typing import Any, TypeVar, get_args, get_type_hints

Settings = TypeVar("Settings")
REQUIRED: Any = MISSING
"""As a default: the option has to be given."""


def option(default: Any, text: str) -> Any:
    """A field that is an option; `text` explains it in --help. Fields of other kinds are none."""
    return field(default=default, metadata={"help": text})


def add_options(parser: argparse.ArgumentParser, *classes: type) -> None:
    """An option for every field made by `option`. A name that several classes have is one option, with the first's default."""
    known: set[str] = set()
    for settings in classes:
        types = get_type_hints(settings)
        for item in _options(settings):
            if item.name not in known:
                known.add(item.name)
                _add(parser, item, types[item.name])


def _add(parser: argparse.ArgumentParser, item: Field[Any], kind: Any) -> None:
    flag, text = "--" + item.name.replace("_", "-"), item.metadata["help"]
    if kind is bool:
        parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=item.default, help=text)
        return
    if isinstance(kind, UnionType):
        kind = next(k for k in get_args(kind) if k is not type(None))
    shown = text if item.default in (None, MISSING) else f"{text} (default: %(default)s)"
    needed = item.default is MISSING
    parser.add_argument(flag, type=kind, default=None if needed else item.default, required=needed, help=shown)


def read(settings: type[Settings], given: argparse.Namespace) -> Settings:
    """The settings with what the command line said."""
    return settings(**{item.name: getattr(given, item.name) for item in _options(settings)})


def _options(settings: type) -> list[Field[Any]]:
    return [item for item in fields(settings) if "help" in item.metadata]
