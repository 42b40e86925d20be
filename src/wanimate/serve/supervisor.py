"""`wanimate serve`: the API in this process, and its workers as processes of their own.

    API process      HTTP, looking after dead workers, retention, webhooks
    preparer         opens strangers' files, finds the performer, draws the guides; limited memory, processor only
    generator        one a GPU, or one on the processor: keeps the weights, makes the frames

A worker that ends is started again; what it worked on waits in the queue at once. When this process is gone, its workers
notice by the end of their stdin, store their segment and end.
"""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import FrameType

import uvicorn

from wanimate.errors import InputError
from wanimate.serve.app import create_app
from wanimate.serve.database import is_away
from wanimate.serve.queue import Queue
from wanimate.serve.ray import RayWorkers
from wanimate.serve.service import Service
from wanimate.serve.settings import ServeSettings
from wanimate.serve.streams import Streams
from wanimate.serve.tables import Stage
from wanimate.serve.worker.loop import worker_name
from wanimate.serve.worker.wan import check_marks, check_weights

_PAUSES = (0.5, 1.0, 2.0, 5.0, 15.0)
"""Seconds before a worker that has ended is started again, the first time, the second ..."""
_HEALTHY = 60.0
GRACE = 75.0
"""Seconds that workers get to store their segment when the service stops."""
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_log = logging.getLogger(__name__)


@dataclass
class _Child:
    """A worker process, and what it is started with."""

    stages: Sequence[Stage]
    device: str | None
    name: str = ""
    process: subprocess.Popen[bytes] | None = None
    began: float = 0.0
    failures: int = 0
    due: float = field(default=0.0)


class Workers:
    """The worker processes of this machine, kept alive."""

    def __init__(
        self, settings: ServeSettings, queue: Queue, plan: Sequence[tuple[Sequence[Stage], str | None]]
    ) -> None:
        self._settings, self._queue = settings, queue
        self._children = [_Child(stages, device) for stages, device in plan]
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="workers", daemon=True)

    def start(self) -> None:
        for child in self._children:
            self._begin(child)
        self._thread.start()

    def stop(self, grace: float = GRACE) -> None:
        """End them in good order; those that take too long are killed, and their jobs wait again."""
        self._stopping.set()
        for child in self._children:
            if child.process is not None:
                with suppress(ProcessLookupError):
                    child.process.terminate()
        until = time.monotonic() + grace
        for child in self._children:
            if child.process is None:
                continue
            try:
                child.process.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()
            self._gone(child, "the service was stopped")

    def _begin(self, child: _Child) -> None:
        child.name = worker_name(socket.gethostname())
        command = [sys.executable, "-m", "wanimate.serve.worker.process"]
        child.process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
        child.began = time.monotonic()
        told = {
            "settings": self._settings.model_dump(mode="json"), "stages": [stage.value for stage in child.stages],
            "device": child.device, "name": child.name,
        }  # fmt: skip
        assert child.process.stdin is not None
        with suppress(BrokenPipeError):
            child.process.stdin.write(json.dumps(told).encode() + b"\n")
            child.process.stdin.flush()  # stays open: its end is the sign that this process is gone

    def _keep(self) -> None:
        while not self._stopping.wait(0.25):
            at = time.monotonic()
            for child in self._children:
                if child.process is None:
                    if at >= child.due:
                        self._begin(child)
                    continue
                code = child.process.poll()
                if code is None:
                    continue
                why = f"its worker process ended with {'signal' if code < 0 else 'code'} {abs(code)}"
                _log.warning("worker %s: %s", child.name, why)
                self._gone(child, why)
                child.failures = 0 if at - child.began > _HEALTHY else child.failures + 1
                child.process = None
                child.due = at + _PAUSES[min(child.failures, len(_PAUSES) - 1)]

    def _gone(self, child: _Child, why: str) -> None:
        """Its jobs wait again at once; where the database is away, they do when somebody finds them silent."""
        try:
            self._queue.worker_ended(child.name, why)
        except Exception as error:
            if not is_away(error):
                raise


def plan_of(settings: ServeSettings) -> list[tuple[Sequence[Stage], str | None]]:
    """Which workers this machine starts: queues and device of each."""
    import torch

    gpus = torch.cuda.device_count() if settings.device != "cpu" else 0
    count = settings.workers if settings.workers is not None else max(1, gpus)
    if count == 0:
        return []
    devices = [settings.device or (f"cuda:{i % gpus}" if gpus else "cpu") for i in range(count)]
    return [((Stage.PREPARE,), "cpu"), *(((Stage.GENERATE,), device) for device in devices)]


class Server(uvicorn.Server):
    """Ends event streams as soon as it is told to stop: it waits for answers that are on their way, and those never end."""

    def __init__(self, config: uvicorn.Config, streams: Streams) -> None:
        super().__init__(config)
        self._streams = streams

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._streams.close()
        super().handle_exit(sig, frame)


def serve(settings: ServeSettings, announce: Callable[[str, str | None, Service], None] | None = None) -> None:
    """Run the service until SIGTERM or SIGINT.

    Args:
        announce: called once it listens, with its address, the admin key if it is the first start, and the service. What
            None prints is for scripts.

    Raises:
        InputError: the address is taken, or is not of this machine; the database or the storage cannot be opened; a
            checkpoint or a LoRA is not there.
    """
    plan = [] if settings.ray else plan_of(settings)
    if plan:
        check_weights(settings)
        check_marks(settings)
    place = _bound(settings)
    with place:
        service = Service(settings)
        if settings.host not in _LOOPBACK and not service.keys.any:
            rule = "others can reach this address, and there is no key yet"
            remedy = "Make one with `wanimate keys create --owner NAME`, or listen at 127.0.0.1."
            raise InputError("serve.host", settings.host, rule, remedy)
        key = None if service.keys.any else service.keys.create("admin", ("submit", "read", "admin"))
        workers = RayWorkers(settings) if settings.ray else Workers(settings, service.queue, plan)
        address = _address(settings, place.getsockname()[1])
        config = uvicorn.Config(
            create_app(settings, service), log_config=None, access_log=False, server_header=False, timeout_keep_alive=75,
            timeout_graceful_shutdown=10, h11_max_incomplete_event_size=64 * 1024, proxy_headers=True,
        )  # fmt: skip
        server = Server(config, service.streams)
        workers.start()
        try:
            with suppress(KeyboardInterrupt):  # uvicorn raises the signal again when all requests are answered
                (announce or _announce)(address, key, service)
                server.run(sockets=[place])
        finally:
            workers.stop()
            service.close()


def _bound(settings: ServeSettings) -> socket.socket:
    """The listening socket, taken before anything is opened."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[
            0
        ]
        place = socket.socket(family, kind, protocol)
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        place.bind(address)
        place.listen(1024)
    except OSError as error:
        value = f"{settings.host}:{settings.port}"
        raise InputError(
            "serve.port", value, f"it cannot be listened at ({error.strerror})", "Choose another one."
        ) from error
    return place


def _address(settings: ServeSettings, port: int) -> str:
    if settings.public_url is not None:
        return settings.public_url
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{port}"


def _announce(address: str, key: str | None, _service: Service) -> None:
    """The first lines on stdout: scripts wait for them."""
    print(f"wanimate serves at {address}", flush=True)
    print(f"  studio           {address}/", flush=True)
    print(f"  hosted contract  {address}/api/v1", flush=True)
    print(f"  OpenAI's videos  {address}/v1/videos", flush=True)
    print(f"  own interface    {address}/v1, described at {address}/openapi.json", flush=True)
    if key is not None:
        print(f"  admin key        {key}", flush=True)
        print("                   It is shown only now. `wanimate keys create --owner NAME` makes more.", flush=True)
