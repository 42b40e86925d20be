"""What is asked of the gate: a file is about to leave the house, by release, hand-off or upload."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

Way = Literal["release", "handoff", "frameio", "descript", "archive", "download"]


@dataclass(frozen=True)
class Leaving:
    """A result that is about to leave.

    output_sha256: of the very bytes that were approved, 64 hexadecimal digits. way: how it leaves. place: where to, a folder
    or "frameio:PROJECT/FOLDER". regions: where it will be shown; empty is where the policy says. derived: (name, sha256) of
    what was made of it on the way, a review copy for instance.
    """

    output_sha256: str
    way: Way
    place: str
    regions: Sequence[str] = ()
    derived: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Passed:
    """What the gate has found: ids of the decisions that allow it, empty where none is needed, and when they expire (UTC)."""

    decisions: Sequence[str]
    expires: str | None = None


class Gate(Protocol):
    """Asked before every byte that leaves. It looks into the file's record and into the chains of decisions."""

    def check(self, result: Path, leaving: Leaving) -> Passed:
        """Whether `result`, a finished file with its record beside it, may leave.

        Raises:
            InputError: it may not; the rule tells why, and the remedy what is missing.
        """
        ...

    def left(self, leaving: Leaving, passed: Passed) -> None:
        """Write down that it leaves, before its first byte does: what a revocation has to reach."""
        ...
