"""Which gate is asked before a result leaves."""

from __future__ import annotations

from pathlib import Path

from wanimate.approval.leaving import Gate, Leaving, Passed
from wanimate.errors import InputError
from wanimate.handoff.source import history_of, mode_of


class HoldsReplacements:
    """The gate of a house without a policy: it knows no approvals, so that only results of animation pass."""

    def check(self, result: Path, leaving: Leaving) -> Passed:
        """As `Gate.check`."""
        mode = mode_of(history_of(result))
        if mode == "animation":
            return Passed(())
        rule = "it is a replacement, and no approval of this very file is shown"
        if mode is None:
            rule = "no record tells by which mode its frames were made, and no approval of this very file is shown"
        remedy = "Have this very file approved, and hand it off with the gate that knows the approval."
        raise InputError("result", result, rule, remedy)

    def left(self, leaving: Leaving, passed: Passed) -> None:
        """Nothing that passes here can be revoked."""


class Inside:
    """The same gate for a package that stays in the house until it is sent: nothing has left yet when it is made."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def check(self, result: Path, leaving: Leaving) -> Passed:
        """As `Gate.check`."""
        return self._gate.check(result, leaving)

    def left(self, leaving: Leaving, passed: Passed) -> None:
        """Sending writes it down."""


def gate_for() -> Gate:
    """The gate where nobody hands one in."""
    return HoldsReplacements()
