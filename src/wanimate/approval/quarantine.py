"""Which results of this machine's jobs get a quarantined name: those that the policy in force holds."""

from __future__ import annotations

from wanimate.approval.policy import House
from wanimate.config import OutputSettings


def in_house(output: OutputSettings) -> OutputSettings:
    """The settings of a result with the modes that the house's policy holds. Without a policy file nothing changes, and what
    says its modes itself stays.

    Raises:
        InputError: the policy cannot be read.
    """
    if output.quarantine is not None:
        return output
    house = House.read()
    held = house.policy.held if house.path is not None and house.policy.quarantine else ()
    return output.model_copy(update={"quarantine": held})
