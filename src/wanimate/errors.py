"""What can go wrong, as typed exceptions. Every message names the parameter, its value, the rule and the remedy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class WanimateError(Exception):
    """Base of every error this package raises on purpose. `exit_code` is what the command line returns for it."""

    exit_code = 1


class InputError(WanimateError):
    """The user gave something that cannot be used (exit 2).

    Args:
        parameter: what was wrong, as the user knows it ("--video", "steps", "checkpoint").
        value: the value given.
        rule: what the value has to satisfy, or what was found to be wrong with it.
        remedy: what to do about it.
    """

    exit_code = 2

    def __init__(self, parameter: str, value: object, rule: str, remedy: str) -> None:
        self.parameter, self.value, self.rule, self.remedy = parameter, value, rule, remedy
        super().__init__(f"{parameter} = {value}: {rule}. {remedy}")


class CheckpointError(InputError):
    """A checkpoint is missing keys, has wrong shapes, holds NaN, or is not safe to open (exit 2).

    `problems`: all keys concerned, by what is wrong with them, where the message names only some.
    """

    problems: Mapping[str, Sequence[str]] = {}


class OutputError(InputError):
    """The result cannot be written: folder not writable, disk full, name taken by a running job (exit 2)."""


class OutOfMemory(WanimateError):
    """The job does not fit the memory of this machine (exit 3)."""

    exit_code = 3


class Cancelled(WanimateError):
    """The user stopped the job; nothing half-written was left under a final name (exit 130)."""

    exit_code = 130


class RankFailed(WanimateError):
    """One of the processes that share a job ended badly; the others were ended, too. The exit code is that process's."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        self.exit_code = exit_code
        super().__init__(message)
