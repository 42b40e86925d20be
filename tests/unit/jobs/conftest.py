"""A tiny checkpoint and small guides for the Animator."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "weights"))
from resumed_jobs import Job
from tiny_checkpoints import own_checkpoint, write_guides

from wanimate.api import Animator
from wanimate.types import Frames


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return own_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture(scope="session")
def animator(checkpoint: Path) -> Animator:
    return Animator.from_checkpoint(checkpoint, "cpu")


@pytest.fixture(scope="session")
def guides(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Guides of so many frames, written once."""
    root = tmp_path_factory.mktemp("guides")

    def of(count: int, **more: bool) -> Path:
        folder = root / f"{count}{''.join(more)}"
        return folder if folder.is_dir() else write_guides(folder, count, **more)

    return of


@pytest.fixture
def job(animator: Animator, guides: Callable[..., Path], tmp_path: Path) -> Job:
    return Job(animator, guides(21), tmp_path / "a.mkv")


@pytest.fixture(scope="module")
def straight(animator: Animator, guides: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Frames:
    """The frames of a job that nothing happened to."""
    whole = Job(animator, guides(21), tmp_path_factory.mktemp("straight") / "a.mkv")
    whole.done()
    return whole.frames
