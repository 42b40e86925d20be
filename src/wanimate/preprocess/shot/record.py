"""The record of a clip's shots: what the analysis proposes, what people have said of it, and what follows from both.

A record can come from anybody, in a guides folder or over the network, so it is checked before it is believed.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from wanimate.errors import InputError
from wanimate.preprocess.shot.advice import Advice, advice_of_clip, advice_of_shot
from wanimate.preprocess.shot.terms import FILE, LOGGED, SHOT, Guess, checked, field_name

ANALYSIS, FILED = "analysis", "file"
"""Who says what no person has said."""
LONGEST_NAME = 100
_MOST = 10_000
Frames = Annotated[int, Field(ge=0, le=2**31 - 1)]
Plain = bool | int | Annotated[float, Field(allow_inf_nan=False)] | Annotated[str, Field(max_length=500)] | None


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", allow_inf_nan=False)


class Value(_Strict):
    """One value. `confidence`: 0 to 1, of people 1. `by`: analysis, file, or a person. `at`: when, ISO 8601 in UTC."""

    value: Plain | Annotated[list[Plain | list[Plain]], Field(max_length=_MOST)]
    confidence: Annotated[float, Field(ge=0, le=1)]
    by: Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)]
    at: Annotated[str, Field(max_length=40)]


class Before(Value):
    """A value that another one has taken the place of. `shot` counts from 1; null is the clip."""

    shot: Annotated[int, Field(ge=1)] | None
    field: Annotated[str, Field(max_length=60)]


class Shot(_Strict):
    """Frames [first, stop) of the job."""

    first: Frames
    stop: Frames
    values: dict[str, Value]
    advice: Advice


class ShotRecord(_Strict):
    """`clip`: values of the whole clip; `advice`: for it; `history`: what was there before, oldest first, never shortened."""

    version: Literal[1] = 1
    clip: dict[str, Value]
    shots: Annotated[list[Shot], Field(min_length=1, max_length=_MOST)]
    advice: Advice
    history: Annotated[list[Before], Field(max_length=100_000)] = []

    @model_validator(mode="after")
    def _fits_together(self) -> ShotRecord:
        before = 0
        for shot in self.shots:
            if shot.first != before or shot.stop <= shot.first:
                raise ValueError("shots have to be stretches of frames one after the other, from frame 0")
            before = shot.stop
            if unknown := set(shot.values) - {*SHOT, *LOGGED, "moves"}:
                raise ValueError(f"{sorted(unknown)[0][:60]!r} is no field of a shot")
        if unknown := set(self.clip) - set(FILE):
            raise ValueError(f"{sorted(unknown)[0][:60]!r} is no field of a clip")
        return self

    @classmethod
    def of(cls, found: Any, field: str = "guides") -> ShotRecord:
        """A record as a manifest or a database has it.

        Raises:
            InputError: it is none.
        """
        try:
            return cls.model_validate(found)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or "it"
            rule = f"its shot record is damaged ({where}: {first['msg']})"
            raise InputError(field, "shot", rule, "Run `wanimate preprocess` again.") from error

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        return self.model_dump(mode="json")

    def find(self, shot: int | None, field: str) -> tuple[int | None, str, Value | None]:
        """The shot and the name of a field, and its value.

        Args:
            shot: from 1; None is the only one. Fields of the clip belong to none.

        Raises:
            InputError: there is no such shot or field, or nobody has said which shot.
        """
        name = field_name(field)
        if name in FILE:
            return None, name, self.clip.get(name)
        count = len(self.shots)
        if shot is None and count > 1:
            raise InputError("shot", None, f"the clip has {count} shots", "Say which, counted from 1.")
        shot = shot or 1
        if not 1 <= shot <= count:
            rule = f"the clip has {count} shot{'s' if count > 1 else ''}"
            raise InputError("shot", shot, rule, "Count shots from 1.")
        return shot, name, self.shots[shot - 1].values.get(name)

    def confirmed(self, shot: int | None, field: str, by: str) -> ShotRecord:
        """The record in which a person vouches for a value.

        Raises:
            InputError: as `find`, or there is nothing to confirm.
        """
        at, name, found = self.find(shot, field)
        if found is None or found.value is None:
            raise InputError("field", name, "it has no value yet", "Give it one.")
        return self.holding(at, name, _said(found.value, by))

    def corrected(self, shot: int | None, field: str, value: Any, by: str) -> ShotRecord:
        """The record in which a person has given a value.

        Raises:
            InputError: as `find`, or the field may not have the value.
        """
        at, name, _ = self.find(shot, field)
        return self.holding(at, name, _said(checked(name, value), by))

    def holding(self, shot: int | None, name: str, new: Value) -> ShotRecord:
        """The record with a value in a field's place, which has been checked; the one before goes into the history.

        Args:
            shot: from 1; None is the clip.
        """
        values = self.clip if shot is None else self.shots[shot - 1].values
        history = [*self.history]
        if name in values:
            history.append(Before(shot=shot, field=name, **values[name].model_dump()))
        values = {**values, name: new}
        if shot is None:
            return self.model_copy(update={"clip": values, "history": history})
        shots = [*self.shots]
        shots[shot - 1] = shots[shot - 1].model_copy(update={"values": values, "advice": _advised(values)})
        return self.model_copy(update={"shots": shots, "history": history, "advice": _of_all(shots)})

    def taking_over(self, earlier: ShotRecord) -> ShotRecord:
        """This record with what people have said in an earlier one of the same frames; proposals go into the history."""
        if [(s.first, s.stop) for s in self.shots] != [(s.first, s.stop) for s in earlier.shots]:
            return self
        found = self.model_copy(update={"history": [*earlier.history]})
        said: list[tuple[int | None, str, Value]] = [(None, name, value) for name, value in earlier.clip.items()]
        said += [(i, name, value) for i, shot in enumerate(earlier.shots, 1) for name, value in shot.values.items()]
        for shot, name, value in said:
            if value.by not in (ANALYSIS, FILED):
                found = found.holding(shot, name, value)
        return found


def _said(value: Any, by: str) -> Value:
    who = by.strip()
    if not who or len(who) > LONGEST_NAME or not who.isprintable() or who in (ANALYSIS, FILED):
        rule = f"a person's name has 1 to {LONGEST_NAME} printable characters, and is not {ANALYSIS} or {FILED}"
        raise InputError("by", by[:80], rule, "Say who you are.")
    return Value(value=value, confidence=1.0, by=who, at=now())


def now() -> str:
    """ISO 8601, UTC, whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def proposed(guess: Guess, at: str, by: str = ANALYSIS) -> Value:
    """A guess as a value of the record."""
    value = guess.value
    if isinstance(value, list):
        value = [list(one) if isinstance(one, tuple) else one for one in value]
    return Value(value=value, confidence=round(min(max(guess.confidence, 0.0), 1.0), 3), by=by, at=at)


def new_record(clip: Mapping[str, Value], shots: list[tuple[int, int, dict[str, Value]]]) -> ShotRecord:
    """The record of (first, stop, values) shots."""
    made = [Shot(first=a, stop=b, values=values, advice=_advised(values)) for a, b, values in shots]
    return ShotRecord(clip=dict(clip), shots=made, advice=_of_all(made))


def _advised(values: Mapping[str, Value]) -> Advice:
    return advice_of_shot({name: value.value for name, value in values.items()})


def _of_all(shots: list[Shot]) -> Advice:
    return advice_of_clip([shot.first for shot in shots[1:]], [shot.advice for shot in shots])
