"""The records of a review: a shot with its versions, comments and decisions.

Frames count from 0. Places are shares of the picture, (0, 0) its upper left corner. Times are milliseconds since 1970.
"""

from __future__ import annotations

import unicodedata
from enum import StrEnum
from fractions import Fraction
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

LONGEST_TEXT, LONGEST_NAME = 5000, 80
STROKES, POINTS = 64, 8000
"""Strokes of one comment, and points of all of them together."""

_TURNS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class State(StrEnum):
    """How a version stands. A new one needs review."""

    NEEDS_REVIEW = "needs_review"
    CHANGES_ASKED = "changes_asked"
    APPROVED = "approved"


def _clean(text: str) -> str:
    """A text without what is around it. Raises ValueError where it has control characters or nothing is left."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").strip()
    if any(unicodedata.category(letter) in ("Cc", "Cs") and letter not in "\n\t" for letter in text):
        raise ValueError("it has control characters")
    return text


def _said(text: str) -> str:
    text = _clean(text)
    if not text:
        raise ValueError("it is empty")
    return text


def _one_line(text: str) -> str:
    text = _said(text)
    if "\n" in text or "\t" in text:
        raise ValueError("it has more than one line")
    if _TURNS & set(text):
        raise ValueError("it has signs that turn the direction of text")
    return text


Text = Annotated[str, Field(max_length=LONGEST_TEXT), AfterValidator(_said)]
Reason = Annotated[str, Field(max_length=LONGEST_TEXT), AfterValidator(_clean)]
Name = Annotated[str, Field(max_length=LONGEST_NAME), AfterValidator(_one_line)]
Project = Annotated[str, Field(max_length=LONGEST_NAME), AfterValidator(lambda text: text and _one_line(text))]
"""What a shot is part of; "" is nothing."""
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Colour = Annotated[str, Field(pattern=r"^#[0-9a-f]{6}$", examples=["#ff3b30"])]


class Form(BaseModel):
    """A value that cannot change and has no other fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Signature(Form):
    """What somebody calls themselves."""

    name: Name


class Member(Form):
    """What a shot is part of."""

    project: Project


class Stroke(Form):
    """A line that somebody has drawn. `width`: a share of the picture's width."""

    points: Annotated[tuple[tuple[Share, Share], ...], Field(min_length=1, max_length=2000)]
    colour: Colour = "#ff3b30"
    width: Annotated[float, Field(ge=0.001, le=0.05, allow_inf_nan=False)] = 0.006


class Remark(Form):
    """What somebody says of a version: at a frame, for `duration` frames, at a place if `x` and `y` are given."""

    text: Text
    frame: Annotated[int, Field(ge=0, le=10**8)]
    duration: Annotated[int, Field(ge=1, le=10**8)] = 1
    x: Share | None = None
    y: Share | None = None
    marks: Annotated[tuple[Stroke, ...], Field(max_length=STROKES)] = ()

    @model_validator(mode="after")
    def _whole(self) -> Remark:
        if (self.x is None) != (self.y is None):
            raise ValueError("a place has both x and y")
        if sum(len(stroke.points) for stroke in self.marks) > POINTS:
            raise ValueError(f"marks have at most {POINTS} points together")
        return self


class Reply(Form):
    """An answer to a comment. `role`: owner, admin, guest or operator (of the command line)."""

    id: str
    author: str
    role: str
    at: int
    text: str


class Comment(Remark):
    """A remark that is kept. `job`: the version it is about. `resolved`: when, None while it is open."""

    id: str
    job: str
    author: str
    role: str
    at: int
    resolved: int | None = None
    resolved_by: str | None = None
    replies: tuple[Reply, ...] = ()


class Progress(Form):
    """How far a version is approved. held: it may not leave before. given, needed: approvals by different people. missing: what
    is missing, as sentences without their stop. expires: when the approval ends, in milliseconds since 1970."""

    held: bool
    given: int
    needed: int
    missing: tuple[str, ...]
    expires: int | None = None


class Version(Form):
    """A result in the stack of a shot.

    rate: frames a second as a fraction ("30000/1001"). sha256: of the file, as its maker told or as it was first decided on.
    kept: whether the file is still there. approval: None where nobody has asked the policy.
    """

    job: str
    number: int
    name: str
    state: State
    added: int
    mode: str
    seed: int | None = None
    frames: int | None = None
    rate: str | None = None
    size: tuple[int, int] | None = None
    sha256: str | None = None
    kept: bool = True
    approval: Progress | None = None

    @property
    def exact_rate(self) -> Fraction | None:
        return None if self.rate is None else Fraction(self.rate)


class Decided(Form):
    """A decision as people read it; `record` is what the chain holds (empty for guests), `digest` its SHA-256."""

    seq: int
    job: str
    state: State
    name: str
    role: str
    at: int
    reason: str
    output_sha256: str
    digest: str
    record: dict[str, Any]


class Shot(Form):
    """A stack of versions, oldest first, with all that was said of them and decided. `intact`: whether the chain of decisions
    is as it was written."""

    id: str
    owner: str
    name: str
    project: str = ""
    state: State
    created: int
    changed: int
    versions: tuple[Version, ...]
    comments: tuple[Comment, ...]
    decisions: tuple[Decided, ...]
    intact: bool

    def version(self, job: str) -> Version | None:
        return next((one for one in self.versions if one.job == job), None)
