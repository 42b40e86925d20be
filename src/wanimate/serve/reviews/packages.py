"""Packages of versions as a download: what `wanimate handoff` makes, in a zip, where that takes little."""

from __future__ import annotations

import shutil
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wanimate.errors import InputError, one_line, spell
from wanimate.handoff import copies
from wanimate.handoff.copies import Mezzanine
from wanimate.handoff.run import Order, handing_off
from wanimate.handoff.source import open_source
from wanimate.review.records import Shot, Version
from wanimate.serve.approvals.gate import APPROVE, HouseGate
from wanimate.serve.errors import ServiceError, away, wrong
from wanimate.serve.reviews.desk import Desk, Reviewer
from wanimate.serve.reviews.results import Results

LARGEST = 256 * 2**20
"""Bytes of a result that is made a download."""
MOST_ENCODED = 10**8
"""Pixels of all frames that are encoded for a download: 48 frames of 1080p, 108 of 720p. They take about a minute."""
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""Time of every file in a zip, so that the same package gives the same bytes."""
_PATIENCE = 30.0
"""Seconds that a request waits for another one's package."""


class Packages:
    """Makes one package at a time, in the process that answers."""

    def __init__(self, desk: Desk, results: Results) -> None:
        self._desk, self._results, self._turn = desk, results, threading.Lock()

    def zipped(
        self, who: Reviewer, review: tuple[Shot, Version], mezzanine: Mezzanine, regions: tuple[str, ...], folder: Path
    ) -> Path:
        """The package of a version that somebody has looked at, as a zip in `folder`, which is empty.

        Raises:
            ServiceError: 403 the right to manage is missing. 409 the file is not kept, may not leave, or takes too much
                for a download. 503 the storage is away, or another package is being made.
        """
        shot, job = review[0].id, review[1].job
        with self._desk.database.read() as session:
            self._desk.opened(session, who, shot, "manage")
        result = self._results.fetch(job, folder)
        with self._alone():
            try:
                _check_small(result, mezzanine)
                order = Order(
                    folder / "{shot}_v{version:03}",
                    mezzanine=mezzanine,
                    regions=regions,
                    place=f"download by {who.name}",
                )
                gate = HouseGate(self._desk.database, self._desk.approvals, who.identity)
                package = _drained(result, order, review, gate)
            except InputError as error:
                if error.field == "mezzanine":
                    raise wrong(error.field, str(error)) from error
                remedy = "Approve this version first." if error.remedy == APPROVE else spell(error.remedy)
                rule = one_line(error.rule)  # the value is a file of this machine
                text = f"{rule[0].upper()}{rule[1:]}. {remedy}"
                raise ServiceError(409, "InvalidParameter", text, "version") from error
        target = folder / f"{package.name}.zip"
        with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
            for path in sorted(package.iterdir()):
                with (
                    path.open("rb") as file,
                    archive.open(
                        zipfile.ZipInfo(f"{package.name}/{path.name}", _EPOCH), "w", force_zip64=True
                    ) as inside,
                ):
                    shutil.copyfileobj(file, inside, 1 << 20)
        with self._desk.database.write() as session:
            self._desk.changed(session, who, self._desk.opened(session, who, shot, "manage", lock=True), "handoff", job)
        return target

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._turn.acquire(timeout=_PATIENCE):
            raise away("Another package is being made.")
        try:
            yield
        finally:
            self._turn.release()


def _check_small(result: Path, mezzanine: Mezzanine) -> None:
    """Raises ServiceError (409)."""
    source = open_source(result)
    width, height = source.master.size
    plans = (copies.review_plan(source), copies.mezzanine_plan(source, mezzanine))
    encoded = sum(plan is not None and plan.way == "encode" for plan in plans) * width * height * source.master.count
    if result.stat().st_size > LARGEST or encoded > MOST_ENCODED:
        text = "The version is too large for a download. `wanimate handoff` makes its package beside the service."
        raise ServiceError(409, "InvalidParameter", text, "version")


def _drained(result: Path, order: Order, review: tuple[Shot, Version], gate: HouseGate) -> Path:
    events = handing_off(result, order, review, gate)
    while True:
        try:
            next(events)
        except StopIteration as end:
            return Path(end.value.folder)
