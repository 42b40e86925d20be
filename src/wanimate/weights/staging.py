"""Tensors on their way from files to a GPU: several threads read pieces into page-locked memory and copy them over, ahead of
whoever takes them.

A tensor that is copied straight from a mapped file takes its page faults in one thread, a page after the other: 5 GB/s.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from threading import local
from typing import Any

import torch
from torch import Tensor

from wanimate.weights.stored import Scaled, Value, expand, scaled, value

PIECE = 8 * 2**20
"""Bytes that one thread copies at a time, and its page-locked memory."""
THREADS = 8
AHEAD = 2**28
"""Bytes on the device, or on their way there, that have not been taken yet; one larger tensor goes alone."""


@dataclass(frozen=True)
class Wanted:
    """A value of a checkpoint; `to`: the device that its bytes go to first, None where they stay where they are."""

    key: str
    stored: Value
    to: torch.device | None


def arriving(wanted: Iterable[Wanted]) -> Generator[tuple[Wanted, Value], None, None]:
    """Each of these in order, with its values on the device it goes to: a tensor, or levels and scale of a `Scaled`.

    Raises:
        What reading them raises.
    """
    waiting: deque[tuple[Wanted, Value, list[Future[None]]]] = deque()
    threads = min(THREADS, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads, "weights") as pool:
        lane = _Lane()
        on_their_way = 0
        try:
            for one in wanted:
                while waiting and on_their_way + _bytes(one) > AHEAD:
                    on_their_way -= _bytes(waiting[0][0])
                    yield _arrived(waiting.popleft())
                waiting.append((one, *_sent(one, pool, lane)))
                on_their_way += _bytes(one)
            while waiting:
                yield _arrived(waiting.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)  # nothing writes into what is given back


def _arrived(sent: tuple[Wanted, Value, list[Future[None]]]) -> tuple[Wanted, Value]:
    one, there, pieces = sent
    for piece in pieces:
        piece.result()
    return one, there


def _bytes(one: Wanted) -> int:
    if one.to is None:
        return 0
    held = one.stored.quantized if isinstance(one.stored, Scaled) else one.stored
    return held.numel() * held.dtype.itemsize


def _sent(one: Wanted, pool: ThreadPoolExecutor, lane: _Lane) -> tuple[Value, list[Future[None]]]:
    """Room on the device, and the copies into it."""
    if one.to is None:
        return one.stored, []
    if isinstance(one.stored, Scaled):
        levels, pieces = _copies(value(one.stored.quantized), one.to, pool, lane)
        return scaled(levels, value(one.stored.scale).to(one.to)), pieces
    return _copies(value(one.stored), one.to, pool, lane)


def _copies(
    source: Tensor, device: torch.device, pool: ThreadPoolExecutor, lane: _Lane
) -> tuple[Tensor, list[Future[None]]]:
    if not source.is_contiguous() or not source.numel():
        return source.to(device), []
    there = torch.empty_like(source, device=device)
    after = torch.cuda.current_stream(device).record_event() if device.type == "cuda" else None
    here_bytes, there_bytes = (t.reshape(-1).view(torch.uint8) for t in (source, there))
    pieces = zip(here_bytes.split(PIECE), there_bytes.split(PIECE), strict=True)
    return there, [pool.submit(lane.copy, here, over, after) for here, over in pieces]


class _Lane(local):
    """What each thread has of its own: page-locked memory and a stream."""

    def __init__(self) -> None:
        self.held: dict[torch.device, tuple[Tensor, Any]] = {}

    @torch.inference_mode()
    def copy(self, here: Tensor, there: Tensor, after: Any) -> None:
        """Copy bytes to the device; `after`: what its memory waits for. Done when it returns."""
        buffer, stream = self._of(there.device)
        with nullcontext() if stream is None else torch.cuda.stream(stream):
            piece = buffer[: len(here)].copy_(here)
            if stream is not None:
                stream.wait_event(after)
            there.copy_(piece, non_blocking=True)
            if stream is not None:
                stream.synchronize()

    def _of(self, device: torch.device) -> tuple[Tensor, Any]:
        if device not in self.held:
            cuda = device.type == "cuda"
            with torch.cuda.device(device) if cuda else nullcontext():  # no other device gets a context of this process
                buffer = torch.empty(PIECE, dtype=torch.uint8, pin_memory=cuda)
                self.held[device] = buffer, torch.cuda.Stream(device) if cuda else None
        return self.held[device]


def gpu_of(device: torch.device | str) -> torch.device | None:
    """The device if it is a GPU, to which tensors are brought by several threads."""
    found = torch.device(device)
    return found if found.type == "cuda" else None


def moved(stored: Value, device: torch.device | str, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor on its device; converted and expanded there. None keeps its type."""
    if isinstance(stored, Scaled):
        made = expand(value(stored.quantized).to(device), value(stored.scale).to(device))
    else:
        made = value(stored).to(device)
    return made if dtype is None else made.to(dtype)
