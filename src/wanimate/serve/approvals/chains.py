"""Chains of decisions that tell of a file, held against what was kept away from the database."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import Session

from wanimate.errors import InputError
from wanimate.review import chain
from wanimate.serve.tables import Release, Shot, ShotDecision, ShotVersion

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Chains:
    """Every chain that tells of a file, each oldest first, and what is wrong with them, as sentences."""

    records: tuple[tuple[chain.Record, ...], ...]
    faults: tuple[str, ...]


@dataclass(frozen=True)
class Head:
    """A line of the file of heads: a record that was added to a shot's chain."""

    at: int
    shot: str
    digest: str
    output: str


class Heads:
    """The file away from the database, if there is one: a line for each decision. Whoever can write to the database cannot
    write a chain anew without it."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def add(self, shot: str, record: chain.Record) -> None:
        """Add a decision that the database has. What cannot be written is logged: the decision stands."""
        if self._path is None:
            return
        line = f"{chain.milliseconds(record.at)} {shot} {chain.digest(record.text())} {record.output_sha256}\n"
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with open(self._path, "ab", buffering=0) as file:
                file.write(line.encode())
                os.fsync(file.fileno())
        except OSError as error:
            _log.warning("the hash of decision %s could not be added to %s: %s", record.id, self._path, error)

    def lines(self) -> Sequence[Head]:
        """Raises InputError: the file cannot be read, or has something else in it."""
        if self._path is None:
            return ()
        try:
            return tuple(self._parsed(self._path.read_text("utf-8")))
        except FileNotFoundError:
            return ()
        except (OSError, ValueError) as error:
            remedy = "Give it back as it was: no result leaves until then."
            raise InputError("serve.heads", self._path, f"it cannot be read ({error})", remedy) from error

    @staticmethod
    def _parsed(text: str) -> Iterator[Head]:
        for line in text.splitlines():
            at, shot, digest, output = line.split(" ")
            yield Head(int(at), shot, digest, output)


def about(session: Session, output: str, heads: Sequence[Head] = ()) -> Chains:
    """The chains of every shot that has a decision about a file, or the file itself."""
    # the text of a record is looked into as well: its column can be altered without its hash
    decided = sa.select(ShotDecision.shot_id).where(
        sa.or_(ShotDecision.output == output, ShotDecision.record.contains(output))
    )
    versions = sa.select(ShotVersion.shot_id).where(ShotVersion.digest == output)
    kept = {one.shot for one in heads if one.output == output}
    shots = sorted({*session.scalars(decided), *session.scalars(versions), *kept})
    records, faults = list[tuple[chain.Record, ...]](), list[str]()
    for shot_id in shots:
        ordered = sa.select(ShotDecision.record).where(ShotDecision.shot_id == shot_id).order_by(ShotDecision.seq)
        texts = session.scalars(ordered).all()
        head = session.scalar(sa.select(Shot.head).where(Shot.id == shot_id)) or chain.START
        wrong = chain.faults(texts, head, [one.digest for one in heads if one.shot == shot_id])
        faults += [f"The decisions of {shot_id} are not as they were written: {fault}" for fault in wrong]
        if not wrong:
            records.append(tuple(map(chain.read, texts)))
    return Chains(tuple(records), tuple(faults))


def newest(session: Session, heads: Sequence[Head] = ()) -> int:
    """When anything was last decided or left, in milliseconds since 1970; 0 where nothing has."""
    last = sa.select(ShotDecision.record).join(Shot, Shot.head == ShotDecision.digest)
    moments = [chain.milliseconds(record.at) for record in map(_read, session.scalars(last)) if record is not None]
    left = session.scalar(sa.select(sa.func.max(Release.at)))
    return max([*moments, left or 0, *(one.at for one in heads)])


def _read(text: str) -> chain.Record | None:
    try:
        return chain.read(text)
    except ValueError:
        return None
