"""What people say for the adoption sheet: a TOML or JSON file, or what an earlier sheet has kept."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from wanimate.errors import InputError
from wanimate.media.json_file import parse_json

Risk = Literal["low", "middle", "high"]
State = Literal["open", "in review", "agreed"]
Date = Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]
Text = Annotated[str, Field(min_length=1, max_length=2000)]
_LARGEST = 2**20


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Gpu(_Part):
    """price_per_hour: of the machine, in `currency`."""

    price_per_hour: Annotated[float, Field(ge=0, le=1e6)] | None = None
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] | None = None


class Preprocessing(_Part):
    """flow: who makes guides, and where. files: what they hand over."""

    flow: Text | None = None
    files: Text | None = None
    hand_made_masks: Text | None = None


class Pilot(_Part):
    """One kind of work that the studio tries, and when it is done with it."""

    asset_class: Text
    risk: Risk
    owner: Text | None = None
    date: Date | None = None
    exit_criteria: Text | None = None


class Question(_Part):
    """What was answered, and how far it is agreed. Can be written as a text."""

    answer: Text
    state: State = "open"
    by: Text | None = None
    on: Date | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return {"answer": value} if isinstance(value, str) else value


class Guideline(_Part):
    """The questions of brand and law."""

    synthetic_talent_clause: Question | None = None
    regions: Question | None = None
    visible_label: Question | None = None
    approval_roles: Question | None = None
    consent_template: Question | None = None
    retention: Question | None = None
    watermark_key_holder: Question | None = None
    signing_certificate: Question | None = None
    rules_review: Question | None = None


PILOTS = (
    Pilot(asset_class="training videos", risk="low"), Pilot(asset_class="internal communication", risk="low"),
    Pilot(asset_class="social media", risk="middle"), Pilot(asset_class="advertising", risk="high"),
)  # fmt: skip
"""What is asked about where nobody has named kinds of work."""


class Answers(_Part):
    gpu: Gpu = Gpu()
    preprocessing: Preprocessing = Preprocessing()
    pilot: Annotated[tuple[Pilot, ...], Field(max_length=100)] = ()
    guideline: Guideline = Guideline()

    def over(self, earlier: Answers) -> Answers:
        """These answers, and the earlier ones where these say nothing."""
        new, old = self.model_dump(exclude_none=True), earlier.model_dump(exclude_none=True)
        parts = {name: {**old[name], **new[name]} for name in ("gpu", "preprocessing", "guideline")}
        return Answers.model_validate(parts | {"pilot": new["pilot"] or old["pilot"]})


def read_answers(path: Path) -> Answers:
    """A file of answers.

    Raises:
        InputError: it cannot be read, is neither TOML nor JSON, or names a question that there is not.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(_LARGEST + 1)
        if len(data) > _LARGEST:
            raise InputError("answers", path, "it is larger than 1 MB", "Give a file of answers.")
        value = parse_json(data) if path.suffix.lower() == ".json" else tomllib.loads(data.decode())
    except OSError as error:
        rule = f"it cannot be read ({error.strerror})"
        raise InputError("answers", path, rule, "Give a TOML or JSON file.") from error
    except (ValueError, RecursionError) as error:
        rule = f"it is neither TOML nor JSON by its ending ({error})"
        raise InputError("answers", path, rule, "Give a .toml or .json file.") from error
    return answers_of(value)


def answers_of(value: Any) -> Answers:
    """Raises InputError with the first thing that is wrong."""
    try:
        return Answers.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "answers"
        if first["type"] == "extra_forbidden":
            known = ", ".join(_known(first["loc"]))
            raise InputError("answers", where, "there is no such question", f"Known there are {known}.") from error
        rule = f"{where}: {first['msg'].removeprefix('Value error, ')}"
        raise InputError("answers", first["input"], rule, "See docs/worksheet.md.") from error


def _known(place: tuple[int | str, ...]) -> list[str]:
    """The questions beside an unknown one."""
    parts: dict[str, type[BaseModel]] = {
        "gpu": Gpu, "preprocessing": Preprocessing, "pilot": Pilot, "guideline": Guideline,
    }  # fmt: skip
    if len(place) == 1:
        return list(parts)
    if place[0] == "guideline" and len(place) > 2:
        return list(Question.model_fields)
    return list(parts[str(place[0])].model_fields)
