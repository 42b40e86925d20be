"""Encoded clips through a folder: processes that render and encode on one side, processes that train on the other.

Rendering beside training keeps clips new: a pool that is drawn many times over is learnt by heart (dev/LOG.md, 2026-11-27).
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from mannequin.training.clip_latents import WorldClips
from wanimate.errors import InputError

WAITING = 64
"""Parts that may lie unread, unless told otherwise; one of 24 clips of 33 frames takes 23 MB."""


class Feed:
    """Parts of clips of one kind each in `folder`, which lies on a fast disk or in memory (/dev/shm).

    Any number of processes may put and take. A part is taken once: by whoever manages to rename it.
    """

    def __init__(self, folder: Path, waiting: int = WAITING) -> None:
        self.folder, self.waiting = folder, waiting
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def full(self) -> bool:
        """Whether so many parts lie unread that more would only take room."""
        return len(self._unread("*")) >= self.waiting

    def put(self, kind: int, clips: WorldClips) -> None:
        """Add a part."""
        name = f"{time.time_ns()}-{secrets.token_hex(3)}"
        part = self.folder / f"{name}.part"
        save_file({key: tensor.contiguous().cpu() for key, tensor in vars(clips).items()}, part)
        os.replace(part, self.folder / f"{name}-{kind}.safetensors")

    def read(self, kind: int, device: torch.device) -> Iterator[WorldClips]:
        """All unread parts of a kind, on `device`; they stay unread."""
        for path in self._unread(str(kind)):
            yield _loaded(path, device)

    def take(self, kind: int, device: torch.device) -> WorldClips | None:
        """The oldest unread part of a kind, on `device`; None where there is none."""
        for path in self._unread(str(kind)):
            mine = path.with_suffix(f".{os.getpid()}")
            with suppress(FileNotFoundError):  # another one was quicker
                os.rename(path, mine)
                clips = _loaded(mine, device)
                mine.unlink()
                return clips
        return None

    def _unread(self, kind: str) -> list[Path]:
        return sorted(self.folder.glob(f"*-{kind}.safetensors"))


def _loaded(path: Path, device: torch.device) -> WorldClips:
    """A part's clips.

    Raises:
        InputError: it has other fields.
    """
    tensors = load_file(path, str(device))
    if tensors.keys() != {field.name for field in fields(WorldClips)}:
        rule = "another version of the workshop made these clips"
        raise InputError("feed", path, rule, "Render them anew with `clips`, into an empty folder.")
    return WorldClips(**tensors)
