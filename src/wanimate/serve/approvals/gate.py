"""The gate: whether a result may leave the house. It hashes the very bytes, and asks database, chains and policy."""

from __future__ import annotations

from pathlib import Path

from wanimate.approval.leaving import Leaving, Passed
from wanimate.errors import InputError
from wanimate.serve.approvals import origin as origins
from wanimate.serve.approvals import releases
from wanimate.serve.approvals.hashes import hash_of
from wanimate.serve.approvals.house import Approvals, Stand
from wanimate.serve.approvals.judging import Found
from wanimate.serve.approvals.origin import Origin
from wanimate.serve.database import Database

APPROVE = "`wanimate review add FILE` brings it into review, and `wanimate review approve SHOT` approves it."


class HouseGate:
    """`approval.leaving.Gate` over the service's database.

    Args:
        by: identity of who takes results out.
    """

    def __init__(self, database: Database, approvals: Approvals, by: str) -> None:
        self._database, self._approvals, self._by = database, approvals, by
        self._checked: dict[str, tuple[Origin, Found]] = {}

    def check(self, result: Path, leaving: Leaving) -> Passed:
        """Raises InputError: it may not leave."""
        found = hash_of(result)
        if found != leaving.output_sha256:
            rule = "it is another file than was asked about"
            raise InputError("result", result, rule, "Ask again; its bytes have changed meanwhile.")
        with self._database.read() as session:
            origin = origins.known(session, found) or origins.beside(session, result, found)
            judged = self._approvals.judged(origin, leaving, result)
            stand = self._approvals.stand(session, found, origin, judged, leaving.regions)
        if stand.missing:
            raise _refusal(result, origin, stand)
        self._checked[found] = origin, judged
        return Passed(tuple(one.id for one in stand.standing.counted) if stand.held else (), stand.expires)

    def left(self, leaving: Leaving, passed: Passed) -> None:
        """Raises InputError: it was not checked, or may not leave any more."""
        checked = self._checked.get(leaving.output_sha256)
        if checked is None:
            rule = "nobody has checked it"
            raise InputError("result", leaving.output_sha256, rule, "Ask the gate about the file first.")
        origin, judged = checked
        self._approvals.used(judged, leaving)
        with self._database.write() as session:
            stand = self._approvals.stand(session, leaving.output_sha256, origin, judged, leaving.regions)
            if stand.missing:
                raise _refusal(leaving.output_sha256, origin, stand)
            releases.write(session, leaving, passed.decisions, self._by, self._approvals.clock())


def _refusal(result: object, origin: Origin, stand: Stand) -> InputError:
    rule, remedy = stand.missing, "Clear that first."
    if stand.held and not stand.standing.approved:
        what = " and ".join(sorted(origin.modes)) or "a result of no known mode"
        rule = (f"{what} needs an approval", *([] if origin.why is None else [origin.why]), *rule)
        remedy = APPROVE
    return InputError("result", result, f"it may not leave: {'; '.join(rule)}", remedy)
