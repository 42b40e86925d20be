"""A command on one GPU or on several: the ranks are this same command line, started again once a GPU."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from wanimate.cli.report import Reporter
from wanimate.config import ParallelSettings, RuntimeSettings

if TYPE_CHECKING:
    from wanimate.api import Animator
    from wanimate.events import Event


def ranks_launched() -> int:
    """How many ranks a launcher started, of which this process is one; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def run(
    report: Reporter, checkpoint: Path | None, runtime: RuntimeSettings, parallel: ParallelSettings, out: Path,
    *jobs: Callable[[Animator], Iterator[Event]],
) -> None:  # fmt: skip
    """Run jobs, one after the other with the same weights, that end in `out` or beside it: here, as a rank of a launcher's, or
    by starting the ranks."""
    from wanimate.api import Animator
    from wanimate.cli.animate import finish
    from wanimate.engines.registry import follow_launcher

    if follow_launcher():
        return
    with Animator(checkpoint, runtime, parallel) as animator:
        for job in jobs:
            finish(report, job(animator))
