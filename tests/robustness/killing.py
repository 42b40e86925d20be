"""Kills jobs at random moments, lets them go on, and compares what they end with.

Every job is a process of its own that runs the command line; a fork server has imported the package before, so that a trial
takes as long as its work. `benchmarks/kills.py` prints what `Trial` finds, `test_kills.py` holds it.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from tiny_checkpoints import own_checkpoint, write_guides

from wanimate.media.files import sha256
from wanimate.media.video import VideoFrames
from wanimate.preprocess.folder import MANIFEST
from wanimate.preprocess.shot.stored import hash_without_record
from wanimate.weights.locate import embedded_path

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["wanimate.api", "wanimate.cli.main", "wanimate.train.own", "wanimate.weights.tools.convert"]
)
ENDINGS = (signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGHUP)
"""How trials end, in turn."""
PATIENCE = 240.0


def run_command(words: list[str], log: str) -> None:
    """In a process of its own: the command line, with stdout in a file."""
    import torch

    from wanimate.__main__ import main

    torch.set_num_threads(1)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also where the tests run under nohup
    with open(log, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = ["wanimate", *words, "--json"]
    main()


@dataclass(frozen=True)
class Run:
    """One process: its exit code (negative: a signal), its seconds, and the events it told."""

    code: int
    seconds: float
    events: list[dict[str, Any]] = field(repr=False)

    def stages(self) -> list[str]:
        """Stages that were begun, in order."""
        return [event["stage"] for event in self.events if event["event"] == "stage_started"]

    @property
    def steps(self) -> int:
        return sum(event["event"] == "step" for event in self.events)

    @property
    def last(self) -> dict[str, Any]:
        return self.events[-1] if self.events else {}


@dataclass(frozen=True)
class Job:
    """A kind of job. `words`: its command line in a folder. `made`: what it has made, to be compared. `result`: the name of
    what it makes. `most`: steps that a kill may cost. `again`: what goes on from a state."""

    name: str
    words: Callable[[Path], list[str]]
    made: Callable[[Path], Any]
    result: str
    most: int | None = None
    again: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trial:
    """A job that was ended after `moment` seconds by `number`, and went on. `lost`: seconds of work done twice, at least 0."""

    job: str
    number: str
    moment: float
    ended: Run
    resumed: Run
    lost: float
    wrong: list[str]

    @property
    def over(self) -> bool:
        """Whether the job was done before it was ended."""
        return self.resumed is self.ended


class Harness:
    """Inputs for all jobs in one folder, and the straight runs that trials are compared with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        assets = embedded_path().parent / "demo"
        self.clip, self.image = assets / "performer.mp4", assets / "character-1.png"
        self.checkpoint = own_checkpoint(folder / "checkpoint")
        self.guides = write_guides(folder / "guides", 33)
        self.data = folder / "data"
        self.data.mkdir()
        (self.data / "clip.mp4").write_bytes(self.clip.read_bytes())
        self._straight: dict[str, tuple[Run, Any]] = {}
        self._count = 0

    def jobs(self) -> list[tuple[Job, int]]:
        """Every kind of job, and how many kills it gets of a round of 64."""
        small = ["--checkpoint", str(self.checkpoint), "--seed", "3", "--codec", "ffv1", "--clip-length", "9"]
        inputs = ["--image", str(self.image), "--video", str(self.clip)]
        rate = ["--fps", "5", "--area", "96x96"]

        def result(folder: Path) -> list[str]:
            return ["--out", str(folder / "a.mkv")]

        def generated(*more: str) -> Callable[[Path], list[str]]:
            return lambda at: ["generate", str(self.guides), *small, "--steps", "30", *more, *result(at)]

        def whole(command: str) -> Callable[[Path], list[str]]:
            return lambda at: [command, *inputs, *small, *rate, "--steps", "20", *result(at)]

        def preprocess(at: Path) -> list[str]:
            return ["preprocess", *inputs, *rate, "--checkpoint", str(self.checkpoint), "--out", str(at / "guides")]

        def train(at: Path) -> list[str]:
            size = ["--area", "64x64", "--fps", "5", "--clip-length", "5"]
            steps = ["--steps", "12", "--save-every", "2", "--sample-every", "100", "--rank", "2"]
            where = ["--data", str(self.data), "--checkpoint", str(self.checkpoint), "--out", str(at / "l.safetensors")]
            return ["train", "lora", *where, *size, *steps]

        def convert(at: Path) -> list[str]:
            return ["weights", "convert", str(embedded_path()), str(at / "out"), "--shard-size", "0.004"]

        return [
            (Job("animate", whole("animate"), _frames, "a.mkv", 20), 12),
            (Job("replace", whole("replace"), _frames, "a.mkv", 20), 10),
            (Job("generate", generated(), _frames, "a.mkv", 30), 10),
            (Job("generate, turbo", generated("--cache", "taylor"), _frames, "a.mkv", 30), 4),
            (Job("generate, two ranks", generated("--gpus", "2"), _frames, "a.mkv", 30), 6),
            (Job("preprocess", preprocess, _guides, "guides"), 8),
            (Job("train", train, _lora, "l.safetensors", 2, ("--resume",)), 7),
            (Job("convert", convert, _files, "out"), 7),
        ]

    def straight(self, job: Job) -> tuple[Run, Any]:
        """A run that nothing happens to, and what it makes."""
        if job.name not in self._straight:
            place = self._place()
            run = self._run(job.words(place))
            assert run.code == 0, f"{job.name}: {run.last}"
            self._straight[job.name] = run, job.made(place)
        return self._straight[job.name]

    def trials(self, job: Job, count: int, seed: int) -> Iterator[Trial]:
        """`count` runs of a job that are ended at random moments and begun again."""
        for i in range(count):
            chance = random.Random(f"{job.name} {seed} {i}")
            straight, made = self.straight(job)
            number, moment = ENDINGS[i % len(ENDINGS)], chance.uniform(0.02, 0.9) * straight.seconds
            place = self._place()
            ended = self._run(job.words(place), number, moment)
            wrong = list(_left_wrong(place, ended))
            if ended.code == 0 or (place / job.result).exists():  # it was quicker than the signal
                wrong += [] if job.made(place) == made else ["another result"]
                yield Trial(job.name, number.name, moment, ended, ended, 0.0, wrong)
                continue
            resumed = self._run([*job.words(place), *(job.again if _has_state(place) else ())])
            wrong += _differences(job, straight, made, ended, resumed, place)
            lost = max(0.0, ended.seconds + resumed.seconds - straight.seconds)
            yield Trial(job.name, number.name, moment, ended, resumed, lost, wrong)

    def _place(self) -> Path:
        self._count += 1
        place = self.folder / f"run-{self._count}"
        place.mkdir()
        return place

    def _run(self, words: list[str], number: signal.Signals | None = None, moment: float = 0.0) -> Run:
        log = self.folder / f"log-{self._count}.jsonl"
        process = _CONTEXT.Process(target=run_command, args=(words, str(log)))
        began = time.monotonic()
        process.start()
        if number is not None:
            process.join(moment)
            if process.exitcode is None and process.pid is not None:
                os.kill(process.pid, number)
        process.join(PATIENCE)
        assert process.exitcode is not None, f"it does not end: {words}"
        return Run(process.exitcode, time.monotonic() - began, _events(log))


def _events(log: Path) -> list[dict[str, Any]]:
    """Whole lines of what a process told."""
    told = log.read_text(errors="replace") if log.exists() else ""
    lines = [line for line in told.splitlines(keepends=True) if line.startswith("{") and line.endswith("}\n")]
    return [event for event in map(json.loads, lines) if "event" in event]


def _has_state(place: Path) -> bool:
    return any(place.rglob("state*"))


def _left_wrong(place: Path, ended: Run) -> Iterator[str]:
    """What a job must not leave that was ended: anything under a final name that is not whole."""
    video, record = place / "a.mkv", place / "a.json"
    if video.exists() and not record.exists():
        yield "a video without its record"
    if ended.code in (130, 0) and (parts := [path.name for path in place.rglob("*.part")]):
        yield f"{parts} are left by a job that could tidy up"
    if ended.code not in (0, 130, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGHUP):
        yield f"exit code {ended.code}: {ended.last}"


def _differences(job: Job, straight: Run, made: Any, ended: Run, resumed: Run, place: Path) -> list[str]:
    """What is wrong with a job that has gone on."""
    if resumed.code != 0:
        return [f"it does not go on: {resumed.last}"]
    wrong = [] if job.made(place) == made else ["another result"]
    if left := sorted(path.name for path in place.iterdir() if path.name.startswith(".")):
        wrong.append(f"{left} are left")
    if job.most is not None:
        twice = ended.steps + resumed.steps - straight.steps
        if twice > job.most:
            wrong.append(f"{twice} steps were made twice, not at most {job.most}")
    guided = "draw" in ended.stages() and ended.stages()[-1] not in ("detect", "draw")
    if guided and "detect" in resumed.stages() and job.name in ("animate", "replace"):
        wrong.append("guides that were done were made again")
    return wrong


def _frames(place: Path) -> Any:
    video = VideoFrames(place / "a.mkv")
    return [frame.tobytes() for frame in video.take(range(video.count))]


def _guides(place: Path) -> Any:
    """The record of the shot has the time at which it was made."""
    return {
        path.name: hash_without_record(path) if path.name == MANIFEST else sha256(path)
        for path in (place / "guides").iterdir()
    }


def _lora(place: Path) -> Any:
    return {name: tensor.tolist() for name, tensor in load_file(place / "l.safetensors").items()}


def _files(place: Path) -> Any:
    return {path.name: sha256(path) for path in (place / "out").rglob("*") if path.is_file()}
