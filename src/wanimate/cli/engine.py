"""From a command to the engine: jobs run one after the other with the same weights, and their results are told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from wanimate.cli.report import Reporter
from wanimate.config import ParallelSettings, RuntimeSettings
from wanimate.finish.lock import record_path
from wanimate.finish.naming import quarantined

if TYPE_CHECKING:
    from wanimate.api import Animator
    from wanimate.events import Event
    from wanimate.types import Result


def run(
    report: Reporter, checkpoint: Path | None, runtime: RuntimeSettings, parallel: ParallelSettings,
    *jobs: tuple[Path, Callable[[Animator], Iterator[Event]]], text_on_cpu: bool = False,
) -> None:  # fmt: skip
    """Run jobs, each with its result's name, one after the other with the same weights.

    `text_on_cpu`: the text encoder stays off the GPU.

    Under a launcher such as torchrun the first process does so, and the others serve it.
    """
    from wanimate.api import Animator
    from wanimate.engines.registry import follow_launcher

    if follow_launcher():
        return
    with Animator(checkpoint, runtime, parallel, text_on_cpu) as animator:
        for out, job in jobs:
            finish(report, out, job(animator))


def finish(report: Reporter, out: Path, events: Iterator[Event]) -> None:
    """Pass the events on; a cancelled job is closed before anything is said, so that it has tidied up by then."""
    from wanimate.events import Finished

    result: Result | None = None
    try:
        with closing(cast(Any, events)):
            for event in events:
                report.event(event)
                if isinstance(event, Finished):
                    result = event.result
    except BaseException:
        from wanimate.jobs.store import kept_words

        if (words := kept_words(out) or kept_words(quarantined(out))) is not None:
            report.note(words)
        raise
    assert result is not None, "a job ends with its result"
    width, height = result.size
    record = record_path(result.out)
    data = {
        "out": result.out, "frames": result.count, "width": width, "height": height, "fps": result.fps,
        "seed": result.seed, "sheet": result.sheet, "record": record, "seconds": result.manifest.get("seconds"),
    }  # fmt: skip
    seed = "" if result.seed is None else f", seed {result.seed}"
    more = f", {result.sheet.name}" if result.sheet else ""
    if (marks := result.manifest.get("marks")) is not None:
        from wanimate.provenance.apply import marked_words

        data["marks"] = marks
        more += f"; {marked_words(marks)}"
    report.done(
        data,
        f"{result.out}: {result.count} frames of {width}x{height} at {float(result.fps):g}/s{seed} "
        f"(beside it {record.name}{more})",
    )
