"""Will it fit, and how long: the library's own forecast, from the headers of files.

It needs PyTorch, and on a GPU a context of its own. So a helper process does it, which ends when nobody has asked for a while.
"""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import sqlalchemy as sa
from anyio import CapacityLimiter

from wanimate.config import RuntimeSettings
from wanimate.errors import InputError, OutOfMemory
from wanimate.serve.database import Database
from wanimate.serve.errors import away, of_input
from wanimate.serve.settings import ServeSettings
from wanimate.serve.submission import ASIDE, Submission
from wanimate.serve.tables import Job, State

_IDLE, _LONGEST = 600.0, 180.0
"""Seconds after which the helper ends, and that one forecast may take."""
_KEPT, _DOCTOR_KEPT = 120.0, 600.0
_MOST_KEPT = 500
_A_FRAME = 0.07
"""Seconds for finding the performer in a frame, where no job has told yet."""
_RECENT = 20
Findings = dict[str, Any]


class Forecaster:
    """Forecasts of this machine, kept for a while. `turn`: one is made at a time; others wait in the event loop."""

    def __init__(self, settings: ServeSettings, database: Database) -> None:
        self._settings, self._database = settings, database
        self.turn = CapacityLimiter(1)
        self._helper: ProcessPoolExecutor | None = None
        self._lock = threading.Lock()
        self._used = 0.0
        self._known: dict[str, tuple[float, Findings]] = {}

    def doctor(self) -> Findings:
        """What this machine can run; as `wanimate doctor` tells it."""
        return self._kept("doctor", _DOCTOR_KEPT, lambda: self._ask(_examined, self._settings))

    def plan(self, submission: Submission, shape: tuple[int, int], count: int) -> Findings:
        """What a job of `count` frames of this shape would take here.

        Raises:
            ServiceError: 400 its settings cannot work; 503 nobody could tell.
        """
        key = f"{submission.model_dump_json(exclude={'image', 'video', 'mask', 'name', 'webhook'})} {shape} {count}"
        found = self._kept(key, _KEPT, lambda: self._ask(_planned, self._settings, submission, shape, count))
        if found["fits"]:
            prepare = self._prepare_seconds() * count
            found = found | {"prepare_seconds": prepare, "seconds": prepare + found["generate_seconds"]}
        return found

    def close(self) -> None:
        with self._lock:
            helper, self._helper = self._helper, None
        if helper is not None:
            helper.shutdown(wait=False, cancel_futures=True)

    def _kept(self, key: str, seconds: float, make: Callable[[], Findings]) -> Findings:
        known = self._known.get(key)
        if known is None or known[0] < time.monotonic():
            if len(self._known) > _MOST_KEPT:
                self._known.clear()
            known = self._known[key] = (time.monotonic() + seconds, make())
        return known[1]

    def _ask(self, work: Callable[..., Findings], *given: Any) -> Findings:
        with self._lock:
            if self._helper is None:
                self._helper = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
                self._watch()
            self._used = time.monotonic()
            future = self._helper.submit(work, *given)
        try:
            return future.result(_LONGEST)
        except InputError as error:
            raise of_input(error) from error
        except (BrokenProcessPool, TimeoutError) as error:
            self.close()
            raise away("The forecast could not be made.", 30) from error

    def _watch(self) -> None:
        def later() -> None:
            if time.monotonic() - self._used > _IDLE:
                self.close()
            elif self._helper is not None:
                self._watch()

        timer = threading.Timer(_IDLE / 2, later)
        timer.daemon = True
        timer.start()

    def _prepare_seconds(self) -> float:
        """Seconds a frame, as recent jobs took them."""
        whole = Job.state == State.SUCCEEDED, Job.kind.not_in(ASIDE)
        wanted = sa.select(Job.facts).where(*whole).order_by(Job.created.desc()).limit(_RECENT)
        with self._database.read() as session:
            facts = session.scalars(wanted).all()
        took = sorted(
            one["prepare_seconds"] / one["frames"] for one in facts if one.get("frames") and "prepare_seconds" in one
        )
        return float(took[len(took) // 2]) if took else _A_FRAME


def _examined(settings: ServeSettings) -> Findings:
    from wanimate.measure.doctor import examine

    runtime = RuntimeSettings(speed=settings.speed, device=settings.device)
    return examine(None, runtime=runtime)


def _planned(settings: ServeSettings, submission: Submission, shape: tuple[int, int], count: int) -> Findings:
    import torch

    from wanimate.engines.resolved import ResolvedJob
    from wanimate.media.resize import exact_size
    from wanimate.runtime.planning.fit import plan_for
    from wanimate.runtime.planning.plan import ResidentBytes
    from wanimate.weights.checkpoint import best_device
    from wanimate.weights.locate import read_checkpoint_config

    known = settings.known_checkpoints
    folder, card = read_checkpoint_config(known[submission.checkpoint or settings.default_checkpoint])
    runtime = RuntimeSettings(speed=submission.speed_of(settings), device=settings.device)  # type: ignore[arg-type]
    order = ResolvedJob.of(submission.generate_settings(settings), submission.mode, folder, card, runtime.speed)
    size = exact_size(*shape, submission.preprocess_settings(settings).area or order.settings.area)
    work = order.work(size, count, new_prompt=True)
    told: Findings = {
        "frames": count, "size": list(size), "segments": len(work.segments), "steps": order.settings.steps,
        "warning": order.warning,
    }  # fmt: skip
    device, held = best_device(runtime.device), 0
    if device.type == "cuda":  # what workers hold there is theirs to use for this job
        free, total = torch.cuda.mem_get_info(device)
        held = total - free
    try:
        plan = plan_for(folder, card, work, runtime, device, ResidentBytes(held), order.lora_sizes)
    except OutOfMemory as error:
        return told | {"fits": False, "message": str(error)}
    return told | {
        "fits": True, "message": None, "device": plan.device, "weights": plan.weights, "placement": str(plan.placement),
        "gpu_bytes": plan.gpu, "gpu_room_bytes": plan.room, "host_bytes": plan.host, "step_seconds": plan.step_seconds,
        "generate_seconds": plan.clip_seconds,
    }  # fmt: skip
