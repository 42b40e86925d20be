"""Workers as actors of a Ray cluster, an extra (`--ray auto`): one generator a GPU, one preparer a machine.

Ray places the same loop that `wanimate worker` runs, and starts it again elsewhere when its machine is gone. Nothing lives in
Ray alone: jobs are in the database and files in the storage, so that a job whose actor died is found by its lease.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from wanimate.errors import InputError
from wanimate.serve.settings import ServeSettings
from wanimate.serve.tables import Stage
from wanimate.serve.worker.loop import WorkerLoop

Make = Callable[[ServeSettings, Sequence[Stage], str | None], WorkerLoop]
_PAUSE = 1.0
_log = logging.getLogger(__name__)


def real_loop(settings: ServeSettings, stages: Sequence[Stage], device: str | None) -> WorkerLoop:
    """The loop of a worker with the real runner, which logs as other workers do."""
    from wanimate.serve.ops.logs import set_up
    from wanimate.serve.worker.process import work

    set_up(settings.log_json)
    return work(settings, stages, device)


class _Actor:
    """A worker on whatever machine Ray chose."""

    def __init__(self, settings: dict[str, Any], stages: Sequence[str], device: str | None, make: Make) -> None:
        self._loop = make(ServeSettings.model_validate(settings), [Stage(stage) for stage in stages], device)

    def run(self) -> None:
        self._loop.run()

    def stop(self) -> None:
        self._loop.stop()


class RayWorkers:
    """The workers of a cluster, kept alive. It has the methods of `supervisor.Workers`.

    Args:
        make: builds the loop within an actor.

    Raises:
        InputError: Ray is not installed, no cluster answers at `settings.ray`, or the cluster's machines cannot share the
        database.
    """

    def __init__(self, settings: ServeSettings, make: Make = real_loop) -> None:
        try:
            import ray
        except ModuleNotFoundError as error:
            rule = f"the package {error.name} is not installed"
            raise InputError("serve.ray", settings.ray, rule, "Install wanimate[ray].") from error
        self._ray, self._settings, self._make = ray, settings, make
        try:
            ray.init(address=settings.ray, ignore_reinit_error=True, log_to_driver=False)
        except ConnectionError as error:
            rule = "no Ray cluster answers there"
            raise InputError("serve.ray", settings.ray, rule, "Start one with `ray start --head`.") from error
        machines = {node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"]}
        if len(machines) > 1 and settings.database_url.startswith("sqlite"):
            rule = f"the cluster has {len(machines)} machines, and they cannot share SQLite"
            raise InputError("serve.database", settings.database, rule, "Give the address of a Postgres.")
        self._actors: dict[Any, tuple[Any, tuple[Stage, ...], str | None]] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="ray", daemon=True)

    def start(self) -> None:
        for stages, device in self.plan():
            self._begin(stages, device)
        self._thread.start()

    def plan(self) -> list[tuple[tuple[Stage, ...], str | None]]:
        """What is started: stages and device of each actor."""
        nodes = sum(node["Alive"] for node in self._ray.nodes())
        gpus = int(self._ray.cluster_resources().get("GPU", 0)) if self._settings.device != "cpu" else 0
        generators = self._settings.workers if self._settings.workers is not None else (gpus or nodes)
        device = "cuda:0" if gpus else "cpu"  # Ray shows each actor its own GPU as the first one
        return [*[((Stage.PREPARE,), "cpu")] * nodes, *[((Stage.GENERATE,), device)] * generators]

    def stop(self, grace: float = 75.0) -> None:
        """End them in good order; those that take too long are killed, and their jobs wait again."""
        self._stopping.set()
        actors = [actor for actor, _, _ in self._actors.values()]
        for actor in actors:
            actor.stop.remote()
        self._ray.wait(list(self._actors), num_returns=len(self._actors), timeout=grace) if self._actors else None
        for actor in actors:
            self._ray.kill(actor)
        self._thread.join(10)

    def _begin(self, stages: tuple[Stage, ...], device: str | None) -> None:
        on_gpu = device is not None and device.startswith("cuda")
        place = self._ray.remote(
            num_cpus=0 if on_gpu else 1, num_gpus=1 if on_gpu else 0, max_restarts=-1, max_task_retries=-1, max_concurrency=2,
            scheduling_strategy="SPREAD",
        )  # fmt: skip
        told = self._settings.model_dump(mode="json")
        actor = place(_Actor).remote(told, [stage.value for stage in stages], device, self._make)
        self._actors[actor.run.remote()] = (actor, stages, device)

    def _keep(self) -> None:
        """Start again what ended by itself; what lost its machine is started again by Ray."""
        while not self._stopping.wait(_PAUSE):
            ended, _ = self._ray.wait(list(self._actors), num_returns=1, timeout=_PAUSE)
            for run in ended:
                if self._stopping.is_set():
                    return
                actor, stages, device = self._actors.pop(run)
                try:
                    self._ray.get(run)
                    _log.warning("a worker of the cluster ended")
                except Exception as error:
                    _log.warning("a worker of the cluster ended: %s", str(error).strip().rpartition("\n")[2])
                self._ray.kill(actor)
                time.sleep(_PAUSE)
                self._begin(stages, device)
