"""The anchor changes what follows the first segment, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from resumed_jobs import LOSSLESS, SETTINGS

from wanimate.api import Animator
from wanimate.media.video import VideoFrames
from wanimate.types import Frames


@pytest.fixture
def made(animator: Animator, guides: Callable[..., Path], tmp_path: Path) -> Callable[..., Frames]:
    def frames(count: int, **more: bool) -> Frames:
        out = tmp_path / f"{count}{''.join(f'{name}{value}' for name, value in more.items())}.mkv"
        list(animator.generate(guides(count), out, SETTINGS.model_copy(update=more), LOSSLESS))
        return VideoFrames(out).take(range(count))

    return frames


def test_one_segment_is_as_it_is_without(made: Callable[..., Frames]) -> None:
    assert (made(9, anchor=True) == made(9, anchor=False)).all()


def test_the_published_way_has_none(made: Callable[..., Frames]) -> None:
    assert (made(21, anchor=True, compat=True) == made(21, anchor=False, compat=True)).all()


def test_later_segments_are_held(made: Callable[..., Frames]) -> None:
    held, free = made(21, anchor=True), made(21, anchor=False)
    assert (held[:9] == free[:9]).all()
    assert (held[9:] != free[9:]).any()
