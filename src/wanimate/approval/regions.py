"""Regions as codes: ISO 3166 countries and their parts ("DE", "US-NY"), and the European Union ("EU"). They nest."""

from __future__ import annotations

from re import fullmatch
from typing import Annotated

from pydantic import Field

from wanimate.errors import InputError

UNION = "EU"
MEMBERS = frozenset("AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK".split())  # noqa: SIM905
"""The 27 member states of the European Union."""
PATTERN = r"^[A-Z]{2}(-[A-Z0-9]{1,3})?$"
Region = Annotated[str, Field(pattern=PATTERN, examples=["EU", "US-NY"])]


def around(region: str) -> tuple[str, ...]:
    """The region and those that it lies in, the smallest first: "DE-BY" -> "DE-BY", "DE", "EU"."""
    country = region.partition("-")[0]
    found = (region,) if country == region else (region, country)
    return (*found, UNION) if country in MEMBERS else found


def lies_in(region: str, outer: str) -> bool:
    """Whether all of `region` is a part of `outer`."""
    return outer in around(region)


def meets(region: str, other: str) -> bool:
    """Whether one of the two lies in the other."""
    return lies_in(region, other) or lies_in(other, region)


def checked_region(text: str) -> str:
    """Raises InputError: it is no code of a region."""
    if not fullmatch(PATTERN, text):
        rule = "a region is EU, the two letters of a country (DE), or a part of one (US-NY)"
        raise InputError("region", text, rule, "Give its code.")
    return text
