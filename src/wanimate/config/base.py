"""What all settings have in common: they refuse a wrong value with an `InputError`, and each field says how it is given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo

from wanimate.errors import InputError, plainly, setting, spell

FILES, MOTION, MASK, DIFFUSION = "Files", "Motion", "Inpaint mask", "Diffusion"
RESULT, FINISHING, GPUS, MACHINE, RUN = "Result", "Finishing", "Several GPUs", "Machine", "This run"
"""Headings of `--help`."""
OWN = "the checkpoint's own"

_Some = TypeVar("_Some", bound="Settings")


@dataclass(frozen=True)
class Option:
    """How people give a field. Texts may hold marks of other settings (`errors.setting`).

    Args:
        panel: heading of `--help` under which it stands.
        help: what it does. `more` is added on the page of settings.
        shown: what the default means, where its value does not say that.
        flag: None is the name with dashes; "" is none: Python and JSON only.
        metavar: form of the value; "" is told by the type.
        example: an allowed value, which errors name.
        lifts: the flag takes no value and sets the field to None.
    """

    panel: str
    help: str
    more: str = ""
    shown: str = ""
    flag: str | None = None
    metavar: str = ""
    example: str = ""
    lifts: bool = False

    def __get_pydantic_json_schema__(self, schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "description": spell(self.help)}


@dataclass(frozen=True)
class Setting:
    """One field of the settings, as front ends see it. `path`: its name in errors ("preprocess.person")."""

    path: str
    info: FieldInfo
    option: Option

    @property
    def name(self) -> str:
        return plainly(self.path)

    @property
    def choices(self) -> tuple[Any, ...]:
        """The values of a Literal, else ()."""
        return _choices(self.info)


class Settings(BaseModel):
    """A group of settings. Numbers have to be finite. However it is made, a wrong value is an InputError."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    part: ClassVar[str] = ""
    """Where the group lies in a job; fields are called by it in errors ("preprocess.person")."""

    @model_validator(mode="wrap")
    @classmethod
    def _refuse(cls, value: Any, handler: ModelWrapValidatorHandler[_Some]) -> _Some:
        try:
            return handler(value)
        except ValidationError as error:
            raise cls._refusal(error) from error

    @classmethod
    def model_validate_json(cls, *args: Any, **more: Any) -> Self:
        """Settings from a text. Raises InputError, also where the text is no JSON."""
        try:
            return super().model_validate_json(*args, **more)
        except ValidationError as error:
            raise cls._refusal(error) from error

    @classmethod
    def checked(cls, name: str, value: Any) -> Any:
        """The value of one field that is no group, as the whole would hold it. Raises InputError if it breaks the field's
        rule."""
        info = cls.model_fields[name]
        try:
            return TypeAdapter(_annotated(info), config=ConfigDict(allow_inf_nan=False)).validate_python(value)
        except ValidationError as error:
            raise cls._refusal(error, (name,)) from error

    @classmethod
    def split(cls, settings: dict[str, Any]) -> tuple[Self, dict[str, Any]]:
        """These settings out of a mixture of names, and the others. Raises InputError where a value breaks its rule."""
        own = {name: value for name, value in settings.items() if name in cls.model_fields}
        return cls(**own), {name: value for name, value in settings.items() if name not in own}

    @classmethod
    def named(cls, name: str) -> str:
        """What errors call the field `name`."""
        return f"{cls.part}.{name}" if cls.part else name

    @classmethod
    def nested(cls, name: str) -> type[Settings] | None:
        """The class of the group that lies in the field `name`; None if it is a single value."""
        kind = cls.model_fields[name].annotation
        return kind if isinstance(kind, type) and issubclass(kind, Settings) else None

    @classmethod
    def settings(cls) -> Iterator[Setting]:
        """The fields that people can give, those of nested groups in their place."""
        for name, info in cls.model_fields.items():
            inner = cls.nested(name)
            option = next((mark for mark in info.metadata if isinstance(mark, Option)), None)
            if inner is not None:
                yield from inner.settings()
            elif option is not None:
                yield Setting(cls.named(name), info, option)

    @classmethod
    def _refusal(cls, error: ValidationError, above: tuple[str, ...] = ()) -> InputError:
        first = error.errors(include_url=False)[0]
        where = (*above, *first["loc"])
        name = str(where[0]) if where else ""
        field = cls.named(name) if name else cls.part or "job"
        if first["type"] == "missing":
            return InputError(field, None, "it is needed", "Give it.")
        if first["type"] == "extra_forbidden":
            return unknown(cls, name, first["input"], [cls])
        if first["type"] == "literal_error":
            return InputError(field, first["input"], "there is no such choice", f"Give {first['ctx']['expected']}.")
        rule = first["msg"].removeprefix("Value error, ").replace("Input should", "it has to", 1)
        rule = _RULES.get(first["type"], rule)
        return InputError(field, first["input"], rule, _remedy(cls.model_fields.get(name)))


_WHOLE, _NUMBER, _SWITCH = "it has to be a whole number", "it has to be a number", "it has to be true or false"
_RULES = {
    "int_parsing": _WHOLE, "int_type": _WHOLE, "int_from_float": _WHOLE, "float_parsing": _NUMBER, "float_type": _NUMBER,
    "bool_parsing": _SWITCH, "bool_type": _SWITCH, "path_type": "it has to be a path", "string_type": "it has to be a text",
    "string_pattern_mismatch": "it is written otherwise", "tuple_type": "it has to be a list",
    "model_type": "it has to be a group of settings",
}  # fmt: skip
"""pydantic's kinds of error, in our words."""


def unknown(group: type[Settings], name: str, value: object, among: Sequence[type[Settings]]) -> InputError:
    """The error for a name that `group` does not know. The nearest name of `among` is proposed."""
    names = {field: part.named(field) for part in among for field in part.model_fields}
    near = get_close_matches(name, names, 1)
    remedy = f"Is {setting(names[near[0]])} meant?" if near else "docs/settings.md lists them all."
    return InputError(group.named(name), value, "there is no such setting", remedy)


def _annotated(info: FieldInfo) -> Any:
    """The type of a field with its constraints."""
    kind: Any = info.annotation
    for mark in info.metadata:
        kind = Annotated[kind, mark]
    return kind


def _choices(info: FieldInfo) -> tuple[Any, ...]:
    kinds = (info.annotation, *get_args(info.annotation))
    return next((get_args(kind) for kind in kinds if get_origin(kind) is Literal), ())


def _remedy(info: FieldInfo | None) -> str:
    option = next((mark for mark in info.metadata if isinstance(mark, Option)), None) if info else None
    if info is None or option is None:
        return "Give another value."
    if option.example:
        return f"Give {option.example}, for instance."
    return "Give true or false." if info.annotation is bool else "Give another value."
