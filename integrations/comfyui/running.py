"""Jobs inside ComfyUI's process: one checkpoint that stays warm, progress with previews, interrupts."""

from __future__ import annotations

import logging
import re
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import comfy.model_management
import comfy.utils
import numpy as np
from PIL import Image

from wanimate import Animator, Event, Finished, Result, WanimateError
from wanimate.config import RuntimeSettings
from wanimate.errors import spell
from wanimate.events import Notice, StepDone

_log = logging.getLogger("wanimate.comfyui")
_TOTAL = 1000
"""Units of the progress bar."""
_PREVIEW = 512
"""Longer side of a preview in pixels."""
_DEVICES = re.compile(r"cuda(:\d{1,3})?|mps|cpu")


class NodeError(RuntimeError):
    """What ComfyUI shows where a node fails: the sentence of wanimate's error, in the names of the node's inputs."""


@dataclass
class _Warm:
    """The checkpoint that is kept, and what it was opened with."""

    key: tuple[str, RuntimeSettings]
    animator: Animator


_warm: list[_Warm] = []


def device() -> str | None:
    """ComfyUI's device, as wanimate names it; None leaves it to wanimate."""
    name = str(comfy.model_management.get_torch_device())
    return name if _DEVICES.fullmatch(name) else None


@contextmanager
def animator(checkpoint: str, runtime: RuntimeSettings, keep: bool) -> Iterator[Animator]:
    """The animator of a checkpoint: the one of the run before, if it is the same, else a new one in its place. ComfyUI's own
    models are taken off the GPU first.

    keep: it stays open for the next run.
    """
    key = (checkpoint, runtime)
    if not _warm or _warm[0].key != key:
        close()
        _warm.append(_Warm(key, Animator(checkpoint or None, runtime)))
    comfy.model_management.unload_all_models()
    comfy.model_management.soft_empty_cache()
    try:
        yield _warm[0].animator
    finally:
        if not keep:
            close()


def close() -> None:
    """Give the memory of the weights back."""
    while _warm:
        _warm.pop().animator.close()


def follow(events: Generator[Event, None, None]) -> Result:
    """Run a job to its end, or until ComfyUI's interrupt, which ends it without leaving anything behind."""
    bar = comfy.utils.ProgressBar(_TOTAL)
    try:
        for event in events:
            comfy.model_management.throw_exception_if_processing_interrupted()
            if isinstance(event, Finished):
                bar.update_absolute(_TOTAL, _TOTAL)
                return event.result
            if isinstance(event, Notice):
                _log.log(logging.WARNING if event.level == "warning" else logging.INFO, event.message)
            elif event.fraction is not None:
                bar.update_absolute(round(event.fraction * _TOTAL), _TOTAL, _preview(event))
    finally:
        events.close()
    raise AssertionError("a job ends with its result")


def _preview(event: Event) -> tuple[str, Image.Image, int] | None:
    """The picture of a step as ComfyUI's bar takes it."""
    if not isinstance(event, StepDone) or event.preview is None:
        return None
    picture = Image.fromarray(np.ascontiguousarray(event.preview.picture()))
    scale = _PREVIEW / max(picture.size)
    size = max(round(picture.width * scale), 1), max(round(picture.height * scale), 1)
    return "JPEG", picture.resize(size, Image.Resampling.BICUBIC), _PREVIEW


@contextmanager
def workplace(folder: Path) -> Iterator[Path]:
    """A folder of a run's own, hidden in the one of its result; removed in the end, with what was made on the way there."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    own = Path(tempfile.mkdtemp(prefix=".wanimate-", dir=folder))
    try:
        yield own
    finally:
        shutil.rmtree(own, ignore_errors=True)
        for one in missing:
            with suppress(OSError):
                one.rmdir()  # it stays where the result lies in it


@contextmanager
def spelled(names: Callable[[str], str], files: dict[Path, str]) -> Iterator[None]:
    """Errors of wanimate as `NodeError`, with settings as the node names them, and words for files that the node has written.

    Args:
        names: a settings field -> the node's input.
        files: what to call a file.
    """
    try:
        yield
    except WanimateError as error:
        text = spell(error.message, names)
        for path, words in files.items():
            text = text.replace(str(path), words)
        raise NodeError(text) from error
