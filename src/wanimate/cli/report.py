"""What the user sees of a running job: progress with remaining time, or one JSON object a line.

The event types are imported where they are used: they bring torch, for which `--help` shall not wait.
"""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import typer
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from wanimate.__main__ import stops
from wanimate.cli.names import command_line, field_of
from wanimate.errors import (
    Cancelled,
    CheckpointError,
    InputError,
    Spelling,
    WanimateError,
    as_ours,
    spell,
)
from wanimate.log import shown

if TYPE_CHECKING:
    from wanimate.events import Event, Stage


_Value = TypeVar("_Value")
CLOSED = 141
"""Exit code where the reader of stdout is gone: 128 + SIGPIPE, as the shell knows it."""


class OutputClosed(Exception):
    """stdout takes no more: nobody reads it, or the disk behind it is full. `exit_code` is the command's then."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.exit_code = CLOSED if isinstance(error, BrokenPipeError) else 2
        self.reason = None if isinstance(error, BrokenPipeError) else error.strerror


class Reporter(Protocol):
    """Told of everything that happens, in order. `spelling`: how the command calls settings."""

    spelling: Spelling

    def event(self, event: Event) -> None: ...

    def note(self, text: str) -> None:
        """Something to read that is no event of a job."""
        ...

    def part(self, kind: str, what: dict[str, Any], words: str) -> None:
        """One of several findings, before the result: as data, an event called `kind`, and in words."""
        ...

    def done(self, what: Mapping[str, Any], words: str | Sequence[RenderableType]) -> None:
        """The command's own result: as data, and in words or tables."""
        ...

    def failed(self, error: WanimateError) -> None: ...


class JsonReporter:
    """One JSON object a line on stdout. The last has "event": "result" or "error"."""

    def __init__(self, spelling: Spelling = command_line, interrupted: threading.Event | None = None) -> None:
        self.spelling, self._interrupted = spelling, interrupted

    def event(self, event: Event) -> None:
        from wanimate.events import Finished, Notice, to_dict

        _stop_if(self._interrupted)
        if isinstance(event, Finished):
            return  # the command's own result says it
        fields = to_dict(event)
        if isinstance(event, Notice):
            fields["message"] = event.spelled(self.spelling)
            del fields["text"]
        self._line(**fields)

    def note(self, text: str) -> None:
        self._line("notice", level="info", message=spell(text, self.spelling))

    def part(self, kind: str, what: dict[str, Any], words: str) -> None:
        self._line(kind, **what)

    def done(self, what: Mapping[str, Any], words: str | Sequence[RenderableType]) -> None:
        self._line("result", **what)

    def failed(self, error: WanimateError) -> None:
        fields: dict[str, Any] = {}
        if isinstance(error, InputError):
            fields |= {"field": error.field, "parameter": self.spelling(error.field)}
        if isinstance(error, CheckpointError) and error.problems:
            fields["problems"] = error.problems
        message = error.spelled(self.spelling)
        self._line("error", kind=type(error).__name__, message=message, exit_code=error.exit_code, **fields)

    def misused(self, message: str, flag: str | None) -> None:
        """A command line that was refused before its command began."""
        named = {} if flag is None else {"field": field_of(flag), "parameter": flag}
        self._line("error", kind="UsageError", message=message, exit_code=2, **named)

    def _line(self, event: str, **fields: Any) -> None:
        line = {"event": event, **fields}
        text = json.dumps(line, default=_plain, ensure_ascii=False)
        _say(text if _can_say(text) else json.dumps(line, default=_plain))


class RichReporter:
    """Bars with remaining time on a terminal, one line a stage elsewhere; all on stderr, the result on stdout."""

    def __init__(self, spelling: Spelling = command_line, interrupted: threading.Event | None = None) -> None:
        self.spelling, self._interrupted = spelling, interrupted
        self.console = stderr_console()
        self._live = self.console.is_terminal
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓"), TextColumn("{task.description}"), BarColumn(bar_width=30),
            MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
            console=self.console, disable=not self._live,
        )  # fmt: skip
        self._tasks: dict[Stage, TaskID] = {}
        self._stage: Stage | None = None

    def __enter__(self) -> RichReporter:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def event(self, event: Event) -> None:
        from wanimate.events import Notice, Stage, StageFinished, StageProgress, StageStarted, StepDone

        _stop_if(self._interrupted)
        if isinstance(event, StageStarted):
            self._stage = event.stage
            self._task(event.stage, event.total)
        elif isinstance(event, StageProgress):
            self._progress.update(self._task(event.stage, event.total), completed=event.done)
        elif isinstance(event, StepDone):
            task = self._task(Stage.DENOISE, event.segments * event.steps)
            done = event.segment * event.steps + event.step
            self._progress.update(task, total=event.segments * event.steps, completed=done)
        elif isinstance(event, StageFinished):
            task = self._task(event.stage, 0)
            self._progress.update(task, total=max(self._progress.tasks[task].completed, 1))
            self._progress.update(task, completed=self._progress.tasks[task].total)
            if not self._live:
                self.console.print(f"{escape(event.stage.words)}: {event.seconds:.1f} s")
        elif isinstance(event, Notice):
            mark = "[yellow]warning[/yellow] " if event.level == "warning" else ""
            self.console.print(mark + escape(event.spelled(self.spelling)))

    def note(self, text: str) -> None:
        self._progress.stop()
        self.console.print(escape(spell(text, self.spelling)))

    def part(self, kind: str, what: dict[str, Any], words: str) -> None:
        self._progress.stop()
        _say(words)

    def done(self, what: Mapping[str, Any], words: str | Sequence[RenderableType]) -> None:
        self._progress.stop()
        if isinstance(words, str):
            _say(words)
            return
        shape, text = Console(), io.StringIO()
        tables = Console(
            file=text, width=shape.width, force_terminal=shape.is_terminal, highlight=False, soft_wrap=True, emoji=False
        )
        for table in words:
            tables.print(table)
        _say(text.getvalue().removesuffix("\n"))

    def failed(self, error: WanimateError) -> None:
        self._progress.stop()
        word = "cancelled" if isinstance(error, Cancelled) else "error"
        self.console.print(f"[red]{word}[/red] {escape(error.spelled(self.spelling))}")

    def _task(self, stage: Stage, total: int) -> TaskID:
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage.words, total=total or None)
        return self._tasks[stage]


def told(report: Reporter, events: Generator[Event, None, _Value]) -> _Value:
    """Pass all events on; returns what the generator returns. It is closed where the command ends before it."""
    with closing(events):
        while True:
            try:
                report.event(next(events))
            except StopIteration as end:
                value: _Value = end.value
                return value


def noted(report: Reporter, steps: Generator[str, None, _Value]) -> _Value:
    """Show all sentences; returns what the generator returns. It is closed where the command ends before it."""
    with closing(steps):
        while True:
            try:
                report.note(next(steps))
            except StopIteration as end:
                value: _Value = end.value
                return value


@contextmanager
def reporting(as_json: bool, debug: bool, spelling: Spelling = command_line) -> Iterator[Reporter]:
    """Runs a command: gives it a reporter, and turns every way it can end badly into one sentence and an exit code.

    0 done, 2 bad input, 3 not enough memory, 130 cancelled (Ctrl-C, SIGTERM or SIGHUP), 141 nobody reads stdout any more, 1 a
    defect of this program.
    """
    with ExitStack() as stack:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # names that are not UTF-8
        if debug:
            stack.enter_context(shown(logging.DEBUG))
        interrupted = threading.Event()
        reporter: Reporter = JsonReporter(spelling, interrupted)
        if not as_json:
            reporter = stack.enter_context(RichReporter(spelling, interrupted))
        stack.enter_context(_terminated_like_interrupted(interrupted))
        try:
            try:
                yield reporter
            except (typer.Exit, typer.Abort, OutputClosed):
                raise
            except BrokenPipeError as e:  # of a line that was written without a reporter
                raise OutputClosed(e) from e
            except (Exception, KeyboardInterrupt) as e:
                # A library can make another error of the interrupt, in the middle of an import for instance.
                error = as_ours(KeyboardInterrupt() if interrupted.is_set() else e)
                if debug:
                    stack.close()
                    Console(stderr=True).print_exception()
                reporter.failed(error)
                raise typer.Exit(error.exit_code) from e
        except OutputClosed as e:
            raise typer.Exit(lost(e)) from e


def _stop_if(interrupted: threading.Event | None) -> None:
    """Cancel a job whose interrupt was lost: some libraries drop the exception, in the middle of an import for instance."""
    if interrupted is not None and interrupted.is_set():
        raise KeyboardInterrupt


def lost(error: OutputClosed) -> int:
    """Say that stdout takes no more, unless its reader is gone; returns the exit code."""
    if error.reason is not None:
        stderr_console().print(f"[red]error[/red] stdout cannot be written ({error.reason}). Send it somewhere else.")
    forget_stdout()
    return error.exit_code


def forget_stdout() -> None:
    """What is still to be written to stdout goes nowhere, so that its end finds no closed pipe."""
    with suppress(OSError, ValueError, AttributeError):  # there is none where the process was started without
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _can_say(text: str) -> bool:
    """Whether stdout can hold the text as it is; a name that is not UTF-8 has no letters."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")  # a closed stdout is None
    except UnicodeEncodeError:
        return False
    return True


def stderr_console() -> Console:
    """Where messages go. A stderr that cannot be written stops nobody."""
    return Console(file=cast(Any, _Patient()), highlight=False, soft_wrap=True, emoji=False)


class _Patient:
    """stderr, without its errors."""

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            sys.stderr.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


def _say(text: str) -> None:
    """A line on stdout, at once: what a job has said is not lost if it is killed."""
    try:
        try:
            print(text, flush=True)
        except UnicodeEncodeError:  # names that are not UTF-8, and terminals that know few letters
            encoding = sys.stdout.encoding or "ascii"
            print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)
    except OSError as error:
        raise OutputClosed(error) from error


@contextmanager
def _terminated_like_interrupted(interrupted: threading.Event) -> Iterator[None]:
    """While the block runs, SIGTERM and SIGHUP cancel as Ctrl-C does, so that everything is tidied up. Each sets
    `interrupted`. A hangup that is ignored, as by `nohup`, stays so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    heard = stops()

    def interrupt(*_: object) -> None:
        # An impatient second Ctrl-C must not break off the tidying up, nor the end of the process after it.
        interrupted.set()
        for number in heard:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = [(number, signal.signal(number, interrupt)) for number in heard]
    try:
        yield
    finally:
        if not interrupted.is_set():
            for number, handler in before:
                signal.signal(number, handler)


def _plain(value: object) -> Any:
    if isinstance(value, (Path, Fraction)):
        return str(value)
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)
