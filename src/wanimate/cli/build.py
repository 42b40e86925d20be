"""Commands from settings classes: a parameter that is annotated with one stands for an option for each of its fields."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from operator import itemgetter
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer
from pydantic import BeforeValidator
from typer.models import ArgumentInfo, OptionInfo

from wanimate.cli.names import command_line, declared, flag_of, spelling_of
from wanimate.cli.report import reporting
from wanimate.config.base import RUN, Setting, Settings
from wanimate.errors import Spelling, spell

Given = Mapping[str, Any]
"""Values of a command's options, by parameter."""


@dataclass(frozen=True)
class Takes:
    """Which fields of a settings class a command takes: `Annotated[GenerateSettings, Takes(only=("steps", "seed"))]`.

    only: these; () is all. without: all but these. fixed: (field, value) that the command decides.
    """

    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    fixed: tuple[tuple[str, Any], ...] = ()

    def __contains__(self, name: str) -> bool:
        left_out = (*self.without, *(field for field, _ in self.fixed))
        return (not self.only or name in self.only) and name not in left_out


@dataclass(frozen=True)
class One:
    """An argument of a command's own that follows a field's option, rule and text: `Annotated[Mode, One(Job, "mode")]`."""

    group: type[Settings]
    name: str

    @property
    def setting(self) -> Setting:
        return next(setting for setting in self.group.settings() if setting.path == self.group.named(self.name))


@dataclass(frozen=True)
class _Part:
    """One parameter of the function: the options it stands for, how its value is made of theirs, and their names."""

    options: tuple[inspect.Parameter, ...]
    value: Callable[[Given], Any]
    names: Mapping[str, str]


def command(
    names: Mapping[str, str] | None = None, otherwise: Spelling = command_line
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator: a typer command out of a function of a reporter and its settings.

    Every command gets `--json` and `--debug`, and runs inside `report.reporting`.

    Args:
        names: field -> how this command calls it, beside what its options tell.
        otherwise: spells fields that the command has no option for.
    """

    def build(function: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(function, include_extras=True)
        wanted = list(inspect.signature(function).parameters.values())[1:]
        parts = {parameter.name: _part(parameter, hints[parameter.name]) for parameter in wanted}
        own = {field: flag for part in parts.values() for field, flag in part.names.items()}
        spelling = spelling_of({**own, **(names or {})}, otherwise)

        def run(**given: Any) -> None:
            with reporting(given["as_json"], given["debug"], spelling) as report:
                function(report, **{name: part.value(given) for name, part in parts.items()})

        options: dict[str, inspect.Parameter] = {}
        for option in (option for part in parts.values() for option in part.options):
            options.setdefault(option.name, option)  # two groups can share a flag
        signature = sorted(options.values(), key=lambda option: option.default is not inspect.Parameter.empty)
        signature += _RUN
        run.__name__, run.__doc__, run.__module__ = function.__name__, function.__doc__, function.__module__
        run.__signature__ = inspect.Signature(signature)  # type: ignore[attr-defined]
        run.__annotations__ = {option.name: option.annotation for option in signature}
        return run

    return build


def _part(parameter: inspect.Parameter, hint: Any) -> _Part:
    base, *marks = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    one = next((mark for mark in marks if isinstance(mark, One)), None)
    if one is not None:
        return _single(parameter, one)
    if isinstance(base, type) and issubclass(base, Settings):
        return _group(base, next((mark for mark in marks if isinstance(mark, Takes)), Takes()))
    return _own(parameter, hint, marks)


def _own(parameter: inspect.Parameter, hint: Any, marks: list[Any]) -> _Part:
    """An argument that is no setting."""
    info = next(mark for mark in marks if isinstance(mark, (OptionInfo, ArgumentInfo)))
    flag = parameter.name.upper()
    if isinstance(info, OptionInfo):
        flags = (info.default, *(info.param_decls or ()))
        default = "--" + parameter.name.replace("_", "-")
        flag = next((f for f in flags if isinstance(f, str) and f.startswith("--")), default).partition("/")[0]
    option = parameter.replace(annotation=hint, kind=inspect.Parameter.KEYWORD_ONLY)
    return _Part((option,), itemgetter(parameter.name), {parameter.name: flag})


def _single(parameter: inspect.Parameter, one: One) -> _Part:
    option = _option(one.setting).replace(name=parameter.name)
    if parameter.default is not inspect.Parameter.empty:
        option = option.replace(default=parameter.default)

    def value(given: Given) -> Any:
        found = given[parameter.name]
        return found if found is None else one.group.checked(one.name, found)

    return _Part((option,), value, {one.setting.path: flag_of(one.setting)})


def _group(group: type[Settings], takes: Takes) -> _Part:
    settings = [setting for setting in group.settings() if setting.name in takes and flag_of(setting)]

    def value(given: Given) -> Settings:
        values: dict[str, Any] = {}
        for setting in settings:
            found = given[_name(setting)]
            if not setting.option.lifts:
                values[setting.path] = found
            elif found:
                values[setting.path] = None
        return _made(group, values, dict(takes.fixed))

    options = tuple(_option(setting) for setting in settings)
    return _Part(options, value, {setting.path: flag_of(setting) for setting in settings})


def _made(group: type[Settings], values: Mapping[str, Any], fixed: Mapping[str, Any]) -> Settings:
    """The group from values by path; those not given are left to their defaults."""
    fields = {}
    for name in group.model_fields:
        inner, path = group.nested(name), group.named(name)
        if inner is not None:
            fields[name] = _made(inner, values, fixed)
        elif path in values:
            fields[name] = values[path]
        elif name in fixed:
            fields[name] = fixed[name]
    return group(**fields)


def _name(setting: Setting) -> str:
    """The parameter of a setting's option: "--allow-any-length" -> "allow_any_length"."""
    return flag_of(setting)[2:].replace("-", "_")


def _option(setting: Setting) -> inspect.Parameter:
    info, option = setting.info, setting.option
    default: Any = inspect.Parameter.empty if info.is_required() else info.default
    if option.lifts:
        default = False
    elif isinstance(default, Fraction):
        default = str(default)
    mark = typer.Option(
        declared(setting),
        help=spell(option.help, command_line),
        rich_help_panel=option.panel,
        metavar=option.metavar or ("|".join(map(str, setting.choices)).join("[]") if setting.choices else None),
        show_default=spell(option.shown, command_line) or True,
    )
    return inspect.Parameter(
        _name(setting),
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[_typed(setting), mark],
    )


def _typed(setting: Setting) -> Any:
    """What typer reads from the command line. What settings read from texts stays a text."""
    if setting.option.lifts:
        return bool
    kind: Any = setting.info.annotation
    optional = get_origin(kind) in (Union, UnionType)
    if optional:
        kind = next(one for one in get_args(kind) if one is not NoneType)
    marks = list(setting.info.metadata)
    if get_origin(kind) is Annotated:
        kind, *inner = get_args(kind)
        marks += inner
    if any(isinstance(mark, BeforeValidator) for mark in marks):
        kind = list[str] if get_origin(kind) is tuple else str
    elif get_origin(kind) is Literal:
        kind = type(get_args(kind)[0])
    return kind | None if optional else kind


def _switch(name: str, flag: str, help: str) -> inspect.Parameter:
    mark = typer.Option(flag, help=help, rich_help_panel=RUN)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Annotated[bool, mark])


_RUN = [
    _switch(
        "as_json", "--json", "One JSON object a line on stdout, the result or the error last. This is for programs."
    ),
    _switch("debug", "--debug", "Show the log, and where an error comes from."),
]
