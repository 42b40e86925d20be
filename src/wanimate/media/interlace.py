"""Interlaced frames made whole, and telecine recognised."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import av
import numpy as np
import numpy.typing as npt

_CYCLE = 5
"""Frames in which film of 24 frames/s fills 30: two of five show fields of two pictures."""
_COMBED = 1.5
"""Factor by which combed frames have to differ from whole ones."""


def deinterlaced(frames: Iterable[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
    """(index, decoded PyAV frame) with frames that say so deinterlaced by bwdif, one for each: rate and times stay.

    Frames from the first interlaced one on come one frame late, since the filter looks at the frame after.
    """
    graph: tuple[Any, Any, Any] | None = None
    shape: tuple[Any, ...] | None = None
    waiting: deque[int] = deque()
    for index, frame in frames:
        now = frame.width, frame.height, frame.format.name
        if graph is not None and now != shape:
            yield from _rest(graph, waiting)
            graph = None
        if graph is None:
            if not frame.interlaced_frame:
                yield index, frame
                continue
            graph, shape = _graph(frame), now
        waiting.append(index)
        graph[1].push(frame)
        yield from _pulled(graph, waiting)
    if graph is not None:
        yield from _rest(graph, waiting)


def _graph(frame: Any) -> tuple[Any, Any, Any]:
    """(graph, its source, its sink) for frames like this one."""
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or 1
    )
    bwdif = graph.add("bwdif", "mode=send_frame:parity=auto:deint=interlaced")
    sink = graph.add("buffersink")
    source.link_to(bwdif)
    bwdif.link_to(sink)
    graph.configure()
    return graph, source, sink


def _pulled(graph: tuple[Any, Any, Any], waiting: deque[int]) -> Iterator[tuple[int, Any]]:
    while waiting:
        try:
            frame = graph[2].pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        yield waiting.popleft(), frame


def _rest(graph: tuple[Any, Any, Any], waiting: deque[int]) -> Iterator[tuple[int, Any]]:
    graph[1].push(None)
    yield from _pulled(graph, waiting)
    waiting.clear()


def combing(grey: npt.NDArray[np.uint8]) -> float:
    """How much the rows of a picture [H, W] differ from the mean of their neighbours, against rows of one field."""
    grey = grey.astype(np.float32)
    between = np.abs(grey[1:-3] - (grey[:-4] + grey[2:-2]) / 2).mean()
    inside = np.abs(grey[2:-2] - (grey[:-4] + grey[4:]) / 2).mean()
    return float((between + 1e-3) / (inside + 1e-3))


def is_telecined(combed: Sequence[float]) -> bool:
    """Whether frames with these `combing` are film in video: the same two of five, one after the other, are combed."""
    if len(combed) < 3 * _CYCLE:
        return False
    values = np.asarray(combed[: len(combed) // _CYCLE * _CYCLE]).reshape(-1, _CYCLE)
    for first in range(_CYCLE):
        two = [first, (first + 1) % _CYCLE]
        others = [i for i in range(_CYCLE) if i not in two]
        clear = values[:, two].min(axis=1) > _COMBED * values[:, others].max(axis=1)
        if clear.mean() >= 0.6:
            return True
    return False
