"""Packages, gates and services for tests of the hand-off."""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from unittest.mock import patch

from standin import TestClock, serving
from standin_descript import DescriptStandIn
from standin_frameio import FrameIoStandIn

from wanimate.approval.leaving import Leaving, Passed
from wanimate.errors import InputError
from wanimate.handoff.remote.base import Options, Sent, Shipment
from wanimate.handoff.remote.limits import Clock
from wanimate.handoff.remote.send import Services, sending
from wanimate.handoff.remote.tokens import DESCRIPT_TOKEN, FRAMEIO_TOKEN


@dataclass(frozen=True)
class Item:
    name: str
    role: str
    sha256: str
    size: int
    media_type: str


@dataclass(frozen=True)
class Package:
    folder: Path
    files: tuple[Item, ...]
    output_sha256: str = "5e" * 32


@dataclass
class TestGate:
    """Lets everything through unless `no`; remembers what it was asked and told."""

    __test__ = False
    no: bool = False
    events: list[str] = field(default_factory=list)
    leaving: list[Leaving] = field(default_factory=list)

    def check(self, result: Path, leaving: Leaving) -> Passed:
        self.events.append("check")
        if self.no:
            raise InputError("shot", result, "nobody has approved it", "Have it approved.")
        return Passed(("decision_1",))

    def left(self, leaving: Leaving, passed: Passed) -> None:
        self.events.append("left")
        self.leaving.append(leaving)


Value = TypeVar("Value")
_TYPES = {".mp4": "video/mp4", ".mov": "video/quicktime", ".json": "application/json", ".png": "image/png"}


def write_package(folder: Path, files: dict[str, tuple[str, bytes]]) -> Package:
    """A package of files: name -> role and bytes."""
    items = []
    for name, (role, data) in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        kind = _TYPES.get(path.suffix, "application/octet-stream")
        items.append(Item(name, role, hashlib.sha256(data).hexdigest(), len(data), kind))
    return Package(folder, tuple(items))


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


@dataclass
class Studio:
    """A machine with one result, and where it sends things."""

    home: Path
    services: Services
    gate: TestGate = field(default_factory=TestGate)
    told: list[str] = field(default_factory=list)

    def package(self, version: str = "1", seed: int = 0, size: int = 4500) -> Package:
        """Review copy and notes of a version."""
        files = {"hero.mp4": ("review", noise(size, seed)), "hero.json": ("record", json.dumps([version]).encode())}
        return write_package(self.home / f"package-{version}", files)

    def shipment(self, version: str = "1", shot: str = "shot_1") -> Shipment:
        result = self.home / f"result-{version}.mov"
        result.write_bytes(noise(100, int(version)))
        return Shipment(result, shot, version, "Scene 12", ("EU",))

    def options(self, **more: object) -> Options:
        return Options(journals=self.home / "journals", **more)  # type: ignore[arg-type]

    def send(self, package: Package, target: str, version: str = "1", **more: object) -> Sent:
        shipment, options = self.shipment(version), self.options(**more)
        return self.run(sending(package, target, self.gate, shipment, options, self.services))

    def run(self, steps: Generator[str, None, Value]) -> Value:
        """What comes of some work; what it tells is kept."""
        while True:
            try:
                self.told.append(next(steps))
            except StopIteration as end:
                value: Value = end.value
                return value


@contextmanager
def frameio_studio(home: Path, clock: Clock | None = None) -> Iterator[tuple[FrameIoStandIn, Studio]]:
    found = clock or TestClock()
    standin = FrameIoStandIn(found.now)
    with serving(standin) as url, patch.dict(os.environ, {FRAMEIO_TOKEN: standin.token}):
        yield standin, Studio(home, Services(frameio=url, ims=url, clock=found))


@contextmanager
def descript_studio(home: Path) -> Iterator[tuple[DescriptStandIn, Studio]]:
    clock = TestClock()
    standin = DescriptStandIn(clock.now)
    with serving(standin) as url, patch.dict(os.environ, {DESCRIPT_TOKEN: standin.token}):
        yield standin, Studio(home, Services(descript=url, clock=clock))
