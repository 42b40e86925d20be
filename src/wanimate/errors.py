"""What can go wrong, as typed exceptions. Every message names the setting, its value, the rule and the remedy.

A message names settings by field ("preprocess.person"), since each front end spells them in its own way: the command line
as `--person`, the published commands by their flags, Python by the field. `setting` marks a name inside a text, and `spell`
replaces the marks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum

_MARK = re.compile("\x02([^\x02\x03]*)\x03")
_UNSHOWN = re.compile("[\x00\x01\x04-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that break a line, steer a terminal, turn the direction of text, or are none; the marks are left out."""
_LONGEST = 2000

Spelling = Callable[[str], str]
"""A settings field ("preprocess.person") -> how a front end calls it ("--person")."""


def setting(field: str) -> str:
    """The mark of a settings field inside a message: f"Give a smaller {setting('preprocess.area')}." """
    return f"\x02{field}\x03"


def plainly(field: str) -> str:
    """The spelling of Python: the field without the part it belongs to."""
    return field.rpartition(".")[2]


def spell(text: str, spelling: Spelling = plainly) -> str:
    """`text` with every mark of `setting` replaced by the front end's name for that field."""
    return _MARK.sub(lambda mark: spelling(mark[1]), text)


def one_line(text: str) -> str:
    """A text that may hold words of a stranger's file, fit to be shown: at most 2000 characters, and nothing but letters."""
    shown = _UNSHOWN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]} (and so on)"


class WanimateError(Exception):
    """Base of every error this package raises on purpose. `exit_code` is what the command line returns for it.

    `str(error)` is in Python's spelling; `spelled` gives another front end's.
    """

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        self.message = message
        super().__init__(message)

    def spelled(self, spelling: Spelling = plainly) -> str:
        """The message in a front end's own names."""
        return spell(self.message, spelling)

    def __str__(self) -> str:
        return self.spelled()


class Fault(StrEnum):
    """What is wrong with a file that was given, for front ends whose errors have codes.

    kind: it is another kind of file. unreadable: it is missing, damaged, or may not be read. bytes, duration, size, aspect: the
    limit that it breaks. nobody: it shows no person.
    """

    KIND = "kind"
    UNREADABLE = "unreadable"
    BYTES = "bytes"
    DURATION = "duration"
    SIZE = "size"
    ASPECT = "aspect"
    NOBODY = "nobody"


class InputError(WanimateError):
    """The user gave something that cannot be used (exit 2).

    Args:
        field: the setting that was wrong ("preprocess.person", "video", "checkpoint").
        value: the value given.
        rule: what the value has to satisfy, or what was found to be wrong with it.
        remedy: what to do about it.
        fault: what is wrong with the file that was given, where it is one.
    """

    exit_code = 2

    def __init__(self, field: str, value: object, rule: str, remedy: str, fault: Fault | None = None) -> None:
        self.field, self.value, self.rule, self.remedy, self.fault = field, value, rule, remedy, fault
        super().__init__(f"{setting(field)} = {one_line(str(value))}: {one_line(rule)}. {remedy.removesuffix('.')}.")

    def __reduce__(self) -> tuple[type[InputError], tuple[str, object, str, str, Fault | None]]:
        return type(self), (self.field, self.value, self.rule, self.remedy, self.fault)


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


class NotFinite(WanimateError):
    """The network's numbers are no numbers any more; the settings or the weights are the cause (exit 2)."""

    exit_code = 2


def as_ours(error: BaseException) -> WanimateError:
    """Any error as one of ours: a machine without memory is `OutOfMemory`, whatever nobody foresaw is a defect (exit 1)."""
    if isinstance(error, WanimateError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return Cancelled("stopped; nothing half-written was left")
    if is_out_of_memory(error):
        smaller = f"a smaller {setting('preprocess.area')} or {setting('generate.clip_length')}"
        return OutOfMemory(f"this machine has not enough memory for the job: take {smaller}")
    return WanimateError(f"a defect of this program, {type(error).__name__}: {error} (--debug shows where)")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python's or PyTorch's says that memory is not enough, on a GPU or in the host."""
    text = str(error).lower()
    starved = "out of memory" in text or "can't allocate memory" in text or "not enough memory" in text
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and starved)


def is_fault(error: BaseException) -> bool:
    """Whether a library failed, and nobody stopped the program. Panics of Rust libraries are no `Exception`."""
    return not isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit))
