"""A worker as a process of its own: `wanimate serve` starts some, `wanimate worker` is one.

Its settings come over stdin, since some are secrets. The end of stdin is the end of whoever started it: the worker then gives
its job back and ends.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Sequence

from wanimate.serve.database import Database, patiently
from wanimate.serve.ops import telemetry
from wanimate.serve.ops.logs import set_up
from wanimate.serve.service import shared_secret
from wanimate.serve.settings import ServeSettings
from wanimate.serve.storage import Storage
from wanimate.serve.tables import Stage
from wanimate.serve.worker.loop import WorkerLoop, worker_name
from wanimate.serve.worker.wan import WanRunner

_NICE = 10
"""Workers that compute on the processor leave it to the API, which needs little and at once."""


def work(settings: ServeSettings, stages: Sequence[Stage], device: str | None, name: str | None = None) -> WorkerLoop:
    """A worker for these queues, ready to `run`. A process that only prepares limits its own memory."""
    if tuple(stages) == (Stage.PREPARE,) and settings.prepare_memory is not None:
        most = int(settings.prepare_memory * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    if settings.telemetry:
        telemetry.set_up("worker")
    database = Database(settings.database_url)
    patiently(database.migrate)  # it may be here before the API
    secret = patiently(lambda: shared_secret(database))
    runner = WanRunner(settings, device)
    storage = Storage(settings.storage_url, secret)
    return WorkerLoop(
        settings, database, storage, runner, name or worker_name(socket.gethostname()), stages, device or ""
    )


def main() -> None:
    """Run the worker that stdin describes until SIGTERM, SIGINT or the end of stdin."""
    told = json.loads(sys.stdin.readline())
    settings = ServeSettings.model_validate(told["settings"])
    set_up(settings.log_json)
    if told.get("device") == "cpu":
        os.nice(_NICE)
    loop = work(settings, [Stage(stage) for stage in told["stages"]], told.get("device"), told.get("name"))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: loop.stop())

    def watch_parent() -> None:
        os.read(0, 1)
        loop.stop()

    threading.Thread(target=watch_parent, name="parent", daemon=True).start()
    loop.run()


if __name__ == "__main__":
    main()
