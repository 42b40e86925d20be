"""What the user sees of a running job: progress with remaining time, or one JSON object a line.

The event types are imported where they are used: they bring torch, for which `--help` shall not wait.
"""

from __future__ import annotations

import json
import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import typer
from rich.console import Console
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

from wanimate.errors import Cancelled, InputError, OutOfMemory, WanimateError
from wanimate.log import shown

if TYPE_CHECKING:
    from wanimate.events import Event, Stage


def spelled(field: str) -> str:
    """How the command line calls a settings field: "preprocess.person" -> "--person"."""
    return "guides" if field == "guides" else "--" + field.rpartition(".")[2].replace("_", "-")


class Reporter(Protocol):
    """Told of everything that happens, in order."""

    def event(self, event: Event) -> None: ...

    def done(self, what: dict[str, Any], sentence: str) -> None:
        """The command's own result: as data, and in words."""
        ...

    def failed(self, error: WanimateError) -> None: ...

    def hand_over(self) -> None:
        """Another process tells of this job from now on, on the same terminal."""
        ...


class JsonReporter:
    """One JSON object a line on stdout. The last has "event": "result" or "error"."""

    def event(self, event: Event) -> None:
        from wanimate.events import Finished, Notice, to_dict

        if isinstance(event, Finished):
            return  # the command's own result says it
        fields = to_dict(event)
        if isinstance(event, Notice):
            fields["message"] = event.spelled(spelled)
            del fields["text"]
        self._line(**fields)

    def done(self, what: dict[str, Any], sentence: str) -> None:
        self._line("result", **what)

    def failed(self, error: WanimateError) -> None:
        fields = {"field": error.field, "parameter": spelled(error.field)} if isinstance(error, InputError) else {}
        message = error.spelled(spelled)
        self._line("error", kind=type(error).__name__, message=message, exit_code=error.exit_code, **fields)

    def hand_over(self) -> None:
        pass

    def _line(self, event: str, **fields: Any) -> None:
        print(json.dumps({"event": event, **fields}, default=_plain, ensure_ascii=False), flush=True)


class RichReporter:
    """Bars with remaining time on a terminal, one line a stage elsewhere; all on stderr, the result on stdout."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
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

        if isinstance(event, StageStarted):
            self._stage = event.stage
            self._task(event.stage, event.total)
        elif isinstance(event, StageProgress):
            self._progress.update(self._task(event.stage, event.total), completed=event.done)
        elif isinstance(event, StepDone):
            task = self._task(Stage.DENOISE, event.segments * event.steps)
            self._progress.update(task, total=event.segments * event.steps)
            self._progress.advance(task)
        elif isinstance(event, StageFinished):
            task = self._task(event.stage, 0)
            self._progress.update(task, total=max(self._progress.tasks[task].completed, 1))
            self._progress.update(task, completed=self._progress.tasks[task].total)
            if not self._live:
                self.console.print(f"{escape(event.stage.words)}: {event.seconds:.1f} s")
        elif isinstance(event, Notice):
            mark = "[yellow]warning[/yellow] " if event.level == "warning" else ""
            self.console.print(mark + escape(event.spelled(spelled)))

    def done(self, what: dict[str, Any], sentence: str) -> None:
        self._progress.stop()
        print(sentence)

    def failed(self, error: WanimateError) -> None:
        self._progress.stop()
        word = "cancelled" if isinstance(error, Cancelled) else "error"
        self.console.print(f"[red]{word}[/red] {escape(error.spelled(spelled))}")

    def hand_over(self) -> None:
        self._progress.stop()

    def _task(self, stage: Stage, total: int) -> TaskID:
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage.words, total=total or None)
        return self._tasks[stage]


@contextmanager
def reporting(as_json: bool, debug: bool) -> Iterator[Reporter]:
    """Runs a command: gives it a reporter, and turns every way it can end badly into one sentence and an exit code.

    0 done, 2 bad input, 3 not enough memory, 130 cancelled (Ctrl-C or SIGTERM), 1 a defect of this program.
    """
    with ExitStack() as stack:
        if debug:
            stack.enter_context(shown(logging.DEBUG))
        reporter: Reporter = JsonReporter() if as_json else stack.enter_context(RichReporter())
        stack.enter_context(_terminated_like_interrupted())
        try:
            yield reporter
        except (Exception, KeyboardInterrupt) as e:
            if isinstance(e, (typer.Exit, typer.Abort)):
                raise
            error = _as_ours(e)
            if debug:
                stack.close()
                Console(stderr=True).print_exception()
            reporter.failed(error)
            raise typer.Exit(error.exit_code) from e


def _as_ours(error: BaseException) -> WanimateError:
    if isinstance(error, WanimateError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return Cancelled("stopped; nothing half-written was left")
    text = str(error).lower()
    starved = "out of memory" in text or "can't allocate memory" in text or "not enough memory" in text
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and starved):
        return OutOfMemory("this machine has not enough memory for the job: take a smaller --area or --clip-length")
    return WanimateError(f"a defect of this program, {type(error).__name__}: {error} (--debug shows where)")


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """While the block runs, SIGTERM cancels as Ctrl-C does, so that everything is tidied up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    interrupted = False

    def interrupt(*_: object) -> None:
        # An impatient second Ctrl-C must not break off the tidying up, nor the end of the process after it.
        nonlocal interrupted
        interrupted = True
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt), signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        if not interrupted:
            signal.signal(signal.SIGTERM, before[0])
            signal.signal(signal.SIGINT, before[1])


def _plain(value: object) -> Any:
    if isinstance(value, (Path, Fraction)):
        return str(value)
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)
