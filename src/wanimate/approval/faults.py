"""What pydantic finds wrong, as a phrase for people."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError


def first_fault(error: ValidationError) -> str:
    """Where the first fault is, in the file's own names and counted from 1, and what it is."""
    first: Any = error.errors(include_url=False)[0]
    where = ".".join(str(part + 1) if isinstance(part, int) else part for part in first["loc"] if "[" not in str(part))
    plain = {"extra_forbidden": "there is no such key", "missing": "it is missing"}
    rule: str = plain.get(first["type"], first["msg"].removeprefix("Value error, "))
    return f"{where}: {rule}" if where else rule
