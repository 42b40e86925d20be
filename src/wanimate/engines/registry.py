"""Which engine serves a checkpoint with which settings."""

from __future__ import annotations

from pathlib import Path

from wanimate.config import ParallelSettings, RuntimeSettings, check_spread
from wanimate.engines.wan_animate import WanAnimate
from wanimate.errors import InputError
from wanimate.runtime.parallel.networks import TeamNetworks
from wanimate.runtime.parallel.ranks import join, launched, leave
from wanimate.runtime.parallel.team import follow
from wanimate.runtime.placement import PlacedNetworks
from wanimate.weights.checkpoint import best_device
from wanimate.weights.locate import read_checkpoint_config


def engine_for(
    checkpoint: Path | str | None = None, runtime: RuntimeSettings = RuntimeSettings(),
    parallel: ParallelSettings = ParallelSettings(), text_on_cpu: bool = False,
) -> WanAnimate:  # fmt: skip
    """A closed engine for a checkpoint, a folder or the file of its transformer; None is the one in the package.

    Raises:
        CheckpointError: there is no such folder or file, or its `wanimate.json` is not valid.
        InputError: settings that do not go together, or a device that is not there.
    """
    if not isinstance(checkpoint, str | Path | None):
        raise InputError("checkpoint", checkpoint, "it is no path", "Give a folder or a file, or leave it out.")
    folder, config = read_checkpoint_config(None if checkpoint is None else Path(checkpoint))
    if parallel.gpus > 1 or launched() > 1:
        return WanAnimate(TeamNetworks(folder, config, runtime, parallel), text_on_cpu)
    check_spread(runtime, parallel, 1)
    return WanAnimate(PlacedNetworks(folder, config, best_device(runtime.device), runtime), text_on_cpu)


def follow_launcher() -> bool:
    """Under a launcher such as torchrun, in every process but the first: serve the first one's jobs until it is done. False,
    at once, in any other process."""
    import os

    if launched() == 1 or os.environ.get("RANK") == "0":
        return False
    follow(join())
    leave()
    return True
