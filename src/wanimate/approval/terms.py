"""The terms of an agreement, judged: ODRL's actions and constraints against a use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import product
from re import fullmatch
from typing import Any

from wanimate.approval.regions import PATTERN, lies_in, meets
from wanimate.approval.times import span

CONTEXT = "http://www.w3.org/ns/odrl.jsonld"
NAMESPACE = "http://www.w3.org/ns/odrl/2/"
_PREFIXES = (NAMESPACE, "odrl:")
_ORDER = ("eq", "lt", "lteq", "gt", "gteq")
_CHOICE = ("eq", "neq", "isA", "isAnyOf", "isNoneOf")
OPERATORS = {
    "spatial": (*_CHOICE, "isPartOf"), "dateTime": (*_ORDER, "neq"), "purpose": _CHOICE, "media": _CHOICE,
    "count": ("eq", "lt", "lteq"),
}  # fmt: skip
"""Left operand -> operators that can be judged."""
MAKING = frozenset({"use", "derive", "modify", "transform"})
SHOWING = frozenset({"use", "distribute", "present", "display"})
"""Actions that allow to make a result of a person's likeness, and to show it."""
FORBIDS = MAKING | SHOWING | {"play", "stream", "reproduce", "synchronize"}
_OTHERS = (
    "acceptTracking aggregate annotate anonymize archive attribute compensate concurrentUse delete digitize "
    "ensureExclusivity execute extract give grantUse include index inform install move nextPolicy obtainConsent print read "
    "reviewPolicy sell textToSpeech transfer translate uninstall watermark commercialize share"
)
ACTIONS = FORBIDS | frozenset(_OTHERS.split())
"""The actions of ODRL's vocabulary."""


@dataclass(frozen=True)
class Use:
    """What a result is for. Empty: nobody has said. media: video, image, tv, web, social, cinema, print or any other word."""

    regions: Sequence[str] = ()
    purposes: Sequence[str] = ()
    media: Sequence[str] = ()


@dataclass(frozen=True)
class Operand:
    """A constraint whose words are ODRL's short ones. `right`: its values."""

    left: str
    operator: str
    right: Sequence[Any]


Terms = tuple[frozenset[str], Sequence[Operand]]
"""Actions, and the constraints under which they are permitted or prohibited."""


def short(word: str) -> str:
    """A term of ODRL without its namespace: "odrl:spatial" -> "spatial"."""
    return next((word.removeprefix(one) for one in _PREFIXES if word.startswith(one)), word)


def told_wrongly(left: str, values: Sequence[Any]) -> str | None:
    """What is wrong with the right operands of a constraint."""
    if not values:
        return "there is no rightOperand"
    if left == "count":
        return None if all(type(one) is int and one >= 0 for one in map(_number, values)) else "it is no whole number"
    if not all(isinstance(one, str) and one.strip() for one in values):
        return "it is no text"
    if left == "spatial":
        known = all(fullmatch(PATTERN, one) for one in values)
        return None if known else "places are codes as EU, DE or US-NY"
    if left == "dateTime":
        try:
            for one in values:
                span(one)
        except ValueError as error:
            return str(error)
    return None


def reasons_of(
    permissions: Sequence[Terms], prohibitions: Sequence[Terms], use: Use, at: datetime, used_before: int
) -> list[str]:
    """What speaks against a use: a prohibition that it meets, or no permission for all of it."""
    found = []
    for _, operands in prohibitions:
        if all(_touches(one, use, at, used_before) for one in operands):
            found.append(f"It is prohibited{_where(operands)}.")
    for actions, what in ((MAKING, "to make a new work of it"), (SHOWING, "to show it")):
        usable = [operands for given, operands in permissions if given & actions]
        if not usable:
            found.append(f"Nobody has permitted {what}.")
        for one in _single(use) if usable else ():
            against = [
                [why for term in operands if (why := _against(term, one, at, used_before))] for operands in usable
            ]
            found += sorted(against, key=len)[0]
    return list(dict.fromkeys(found))


def _single(use: Use) -> list[Use]:
    """Every combination of a region, a purpose and a medium: each has to be permitted."""
    parts = product(*(_each(given) for given in (use.regions, use.purposes, use.media)))
    return [replace(use, regions=region, purposes=purpose, media=medium) for region, purpose, medium in parts]


def _each(given: Sequence[str]) -> list[tuple[str, ...]]:
    return [(one,) for one in given] or [()]


def _against(term: Operand, use: Use, at: datetime, used_before: int) -> str | None:
    """Why a constraint of a permission is not kept, as a sentence. `use`: one of each at most."""
    wanted = f"It is permitted{_where([term])} only"
    if term.left == "count":
        kept = _kept_count(term, used_before)
        return None if kept else f"{wanted}, and was used {used_before} times before."
    if term.left == "dateTime":
        return None if _kept_time(term, at) else f"{wanted}."
    given, same = _side(term.left, use)
    if not given:
        return f"{wanted}, and nobody has said the {_WHAT[term.left]}."
    if term.operator in ("neq", "isNoneOf"):
        clash: Callable[[str, str], bool] = meets if term.left == "spatial" else same
        kept = not any(clash(one, other) for one in given for other in term.right)
    else:
        kept = all(any(same(one, other) for other in term.right) for one in given)
    return None if kept else f"{wanted}, and this is {_WHAT[term.left]} {', '.join(given)}."


def _touches(term: Operand, use: Use, at: datetime, used_before: int) -> bool:
    """Whether a use may fall under a constraint of a prohibition: also where nobody has said enough to rule it out."""
    if term.left == "count":
        return _kept_count(term, used_before)
    if term.left == "dateTime":
        return _kept_time(term, at)
    given, same = _side(term.left, use)
    if not given:
        return True
    if term.operator in ("neq", "isNoneOf"):
        return any(not any(same(one, other) for other in term.right) for one in given)
    clash: Callable[[str, str], bool] = meets if term.left == "spatial" else same
    return any(clash(one, other) for one in given for other in term.right)


_WHAT = {"spatial": "region", "purpose": "purpose", "media": "medium"}


def _side(left: str, use: Use) -> tuple[Sequence[str], Callable[[str, str], bool]]:
    """What a use says of a left operand, and when that is what a right one means."""
    if left == "spatial":
        return use.regions, lies_in
    return (use.purposes if left == "purpose" else use.media), lambda one, other: one.casefold() == other.casefold()


def _kept_count(term: Operand, used_before: int) -> bool:
    """Whether one more use is within a count; `eq` says how many there are in all."""
    most = _number(term.right[0])
    return used_before + 1 < most if term.operator == "lt" else used_before + 1 <= most


def _kept_time(term: Operand, at: datetime) -> bool:
    begin, behind = span(term.right[0])
    inside = begin <= at < behind or at == begin
    return {
        "eq": inside, "neq": not inside, "lt": at < begin, "lteq": at < begin or inside, "gteq": at >= begin,
        "gt": at >= begin and not inside,
    }[term.operator]  # fmt: skip


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isascii() and value.isdecimal() else value


def said(term: Operand) -> str:
    """A constraint in words: "in DE or FR", "until 2026-12-31", "2 times at most"."""
    values = " or ".join(map(str, term.right))
    if term.left == "count":
        most = _number(term.right[0]) - (term.operator == "lt")
        return f"{most} time{'' if most == 1 else 's'} at most"
    if term.left == "dateTime":
        words = {"eq": "on", "neq": "not on", "lt": "before", "lteq": "until", "gt": "after", "gteq": "from"}
        return f"{words[term.operator]} {values}"
    word = {"spatial": "in", "purpose": "for", "media": "as"}[term.left]
    return f"not {word} {values}" if term.operator in ("neq", "isNoneOf") else f"{word} {values}"


def _where(operands: Sequence[Operand]) -> str:
    return "".join(f" {said(one)}" for one in operands)
