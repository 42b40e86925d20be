"""Moments as texts: ISO 8601 with a zone; and days, which are those of UTC."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Annotated

from pydantic import AfterValidator

FIRST, LAST = date(1900, 1, 1), date(9000, 12, 31)


def instant(text: str) -> datetime:
    """Raises ValueError: it is no date and time, or has no zone."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("it is no date and time as 2026-11-30T12:00:00Z") from None
    if found.tzinfo is None or len(text) <= len("2026-11-30"):
        raise ValueError("it has no time zone: write it as 2026-11-30T12:00:00Z")
    _check_year(found)
    return found.astimezone(UTC)


def span(text: str) -> tuple[datetime, datetime]:
    """The first moment of a date or a moment, and the first one behind it. Of a moment both are the moment itself.

    Raises:
        ValueError: it is neither.
    """
    try:
        day = date.fromisoformat(text)
    except ValueError:
        found = instant(text)
        return found, found
    _check_year(day)
    begin = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return begin, begin + timedelta(days=1)


def _check_year(given: date) -> None:
    """Raises ValueError: nobody can reckon with days so near the ends of the calendar."""
    if not FIRST.year <= given.year <= LAST.year:
        raise ValueError(f"the year is not within {FIRST.year} and {LAST.year}")


def _moment(text: str) -> str:
    instant(text)
    return text


Moment = Annotated[str, AfterValidator(_moment)]
