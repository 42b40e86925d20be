"""A command on one GPU or on several: the ranks are this same command line, started again once a GPU."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from wanimate.cli.report import Reporter, reporting
from wanimate.config import ParallelSettings, RuntimeSettings
from wanimate.errors import InputError, RankFailed, setting

if TYPE_CHECKING:
    from wanimate.jobs.run import Animator

OF_ONE_GPU = ("device", "blocks", "vae_tile", "gpu_memory")
COMMAND: list[str] = []
"""This process's command line, set where it is the process's own."""


def remember_command() -> None:
    """Called by the entry points, whose command line can be started again."""
    COMMAND[:] = [sys.executable, *sys.orig_argv[1:]]


def ranks_launched() -> int:
    """How many ranks a launcher started, of which this process is one; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def check_spread(runtime: RuntimeSettings, parallel: ParallelSettings, gpus: int) -> None:
    """Refuse settings that mean nothing on so many GPUs.

    Raises:
        InputError: settings of one GPU with several, or of several with one.
    """
    for name in ("shard_weights", "split_guidance"):
        if getattr(parallel, name) and gpus == 1:
            remedy = f"Give {setting('parallel.gpus')}, or leave it out."
            raise InputError(parallel.named(name), True, "it needs several GPUs", remedy)
    alone = [name for name in OF_ONE_GPU if getattr(runtime, name) != RuntimeSettings.model_fields[name].default]
    if alone and gpus > 1:
        rule = f"{setting(runtime.named(alone[0]))} is a setting of one GPU"
        remedy = f"Leave it out; {setting('parallel.shard_weights')} saves memory here."
        raise InputError("parallel.gpus", gpus, rule, remedy)


def run(
    report: Reporter, checkpoint: Path | None, runtime: RuntimeSettings, parallel: ParallelSettings, out: Path,
    jobs: Callable[[Animator], None],
) -> None:  # fmt: skip
    """Run `jobs`, which end in `out` or beside it, with the weights: here, as a rank of a launcher's, or by starting the
    ranks."""
    launched = ranks_launched()
    check_spread(runtime, parallel, max(launched, parallel.gpus))
    if launched > 1:
        _as_rank(checkpoint, runtime, parallel.model_copy(update={"gpus": launched}), jobs)
    elif parallel.gpus == 1:
        from wanimate.jobs.run import Animator

        jobs(Animator.from_checkpoint(checkpoint, device=runtime.device, runtime=runtime))
    else:
        _start_ranks(report, parallel.gpus, out)


def _start_ranks(report: Reporter, gpus: int, out: Path) -> None:
    import torch

    from wanimate.events import Notice
    from wanimate.runtime.parallel.supervise import supervise

    if not COMMAND:
        rule = "only a command line can be started again"
        raise InputError("parallel.gpus", gpus, rule, "Use `wanimate`, or torchrun.")
    if not torch.cuda.is_available():
        report.event(Notice(f"no GPU was found: {gpus} processes share the processor", "warning"))
    elif torch.cuda.device_count() < gpus:
        rule = f"this machine has {torch.cuda.device_count()}"
        raise InputError("parallel.gpus", gpus, rule, f"Give at most {torch.cuda.device_count()}.")
    report.hand_over()
    try:
        code = supervise(COMMAND, gpus, out.absolute().parent)
    except RankFailed as error:
        if not str(error):  # the first rank has said it
            raise typer.Exit(error.exit_code) from error
        raise
    if code:
        raise typer.Exit(code)


def _as_rank(
    checkpoint: Path | None, runtime: RuntimeSettings, parallel: ParallelSettings, jobs: Callable[[Animator], None]
) -> None:
    from wanimate.jobs.run import Animator
    from wanimate.runtime.parallel.ranks import join, leave
    from wanimate.runtime.parallel.supervise import LOST, SUPERVISED, obey_supervisor

    try:
        obey_supervisor()
        ranks = join()
        animator = Animator.from_checkpoint(checkpoint, runtime=runtime, ranks=ranks, parallel=parallel)
        if not ranks.first:
            with reporting(as_json=True, debug=False):
                animator.follow()
            leave()
            return
        jobs(animator)
        animator.dismiss()
        leave()
    except RankFailed as error:
        if SUPERVISED in os.environ:  # the supervisor knows which rank it was, and why
            raise typer.Exit(LOST) from error
        raise
