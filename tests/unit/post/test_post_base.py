from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from wanimate.errors import InputError
from wanimate.post.base import Chunks, VideoSpec, result_of, run_stages, single_frames

SPEC = VideoSpec((4, 2), Fraction(25), 3)


class Doubled:
    """Every frame twice, at twice the rate."""

    def result(self, spec: VideoSpec) -> VideoSpec:
        return replace(spec, fps=2 * spec.fps, count=2 * spec.count)

    def run(self, spec: VideoSpec, chunks: Iterable[Tensor]) -> Chunks:
        return (frame.repeat(2, 1, 1, 1) for frame in single_frames(spec, chunks))

    def close(self) -> None:
        pass


def test_stages_follow_each_other() -> None:
    frames = torch.rand(3, 3, 2, 4)
    stages = [Doubled(), Doubled()]
    assert result_of(stages, SPEC) == VideoSpec((4, 2), Fraction(100), 12)
    made = torch.cat(list(run_stages(stages, SPEC, frames.split(2))))
    assert torch.equal(made, frames.repeat_interleave(4, 0))
    assert torch.equal(torch.cat(list(run_stages([], SPEC, frames.split(2)))), frames)


@pytest.mark.parametrize(
    ("shape", "rule"),
    [
        ((2, 3, 2, 4), "holds 2 frames, and 3"),
        ((4, 3, 2, 4), "holds 4 frames, and 3"),
        ((3, 3, 4, 2), "is 2x4x3, and 4x2x3"),
    ],
)
def test_frames_are_held_against_what_was_said(shape: tuple[int, ...], rule: str) -> None:
    with pytest.raises(InputError, match=rule):
        list(single_frames(SPEC, torch.zeros(shape).split(2)))


@pytest.mark.parametrize("cuts", [(0,), (3,), (2, 1), (1, 1)])
def test_cuts_lie_within(cuts: tuple[int, ...]) -> None:
    with pytest.raises(AssertionError):
        replace(SPEC, cuts=cuts)
