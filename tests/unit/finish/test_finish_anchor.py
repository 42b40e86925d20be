"""The anchor takes a cast out, at the join and in between, and leaves alone what has none."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from wanimate.conditions.places import PARTS, Places, places_of
from wanimate.finish.anchor import Anchor, State
from wanimate.preprocess.pose.keypoints import LIMBS
from wanimate.preprocess.pose.skeleton import LIMB_COLOURS, draw
from wanimate.types import Segment

LENGTH, OVERLAP, SIZE = 33, 5, (128, 192)
CAST = torch.tensor([0.06, -0.04, 0.02]).view(3, 1, 1, 1)
FIRST = Segment(0, 0, LENGTH, 0)
SECOND = Segment(1, LENGTH - OVERLAP, LENGTH, OVERLAP)


def skeletons(start: int) -> Tensor:
    """A torso with thighs that walks through the picture."""
    torso, thigh = (torch.tensor(LIMB_COLOURS[i]).view(3, 1, 1) / 127.5 - 1 for i in (0, 7))
    video = torch.full((3, LENGTH, *SIZE), -1.0)
    for i in range(LENGTH):
        x = 80 + round(30 * math.sin((start + i) / 9))
        video[:, i, 40:64, x : x + 3] = torso
        video[:, i, 64:88, x : x + 3] = thigh
    return video


def clip(start: int) -> Tensor:
    """A body in front of a scene, both with a pattern, [3, LENGTH, H, W] in [-1, 1]."""
    y, x = torch.meshgrid(*(torch.arange(n) for n in SIZE), indexing="ij")
    scene = torch.stack([0.3 + 0.2 * torch.sin(x / 11), -0.2 + 0.2 * torch.cos(y / 7), 0.1 * torch.sin((x + y) / 5)])
    frames = scene[:, None].repeat(1, LENGTH, 1, 1)
    for i in range(LENGTH):
        middle = 81 + round(30 * math.sin((start + i) / 9))
        frames[:, i, 38:90, middle - 6 : middle + 7] = torch.tensor([0.4, -0.3, -0.1]).view(3, 1, 1)
    return frames


def places(segment: Segment) -> Places:
    return places_of(skeletons(segment.start), None)


def first() -> State:
    watch = Anchor().begin(FIRST, None, places(FIRST), {})
    frames = clip(0)
    assert torch.equal(watch(frames), frames)
    return watch.state


def second(made: Tensor, chunk: int = 1, anchor: Anchor = Anchor()) -> Tensor:
    """The second segment's frames, after a first one without a fault."""
    correct = anchor.begin(SECOND, clip(0)[:, -OVERLAP:], places(SECOND), first())
    pieces = made.split([1] + [min(4 * chunk, LENGTH - i) for i in range(1, LENGTH, 4 * chunk)], dim=1)
    return torch.cat([correct(piece) for piece in pieces], dim=1)


def away(frames: Tensor) -> Tensor:
    """Mean distance to the true frames of each new frame, in levels."""
    return 127.5 * (frames - clip(SECOND.start))[:, OVERLAP:].mean((2, 3)).abs().amax(0)


def test_frames_without_a_cast_stay() -> None:
    """But for what pattern and pose do to the means."""
    assert (second(clip(SECOND.start)) - clip(SECOND.start)).abs().max() * 127.5 < 1


def test_a_cast_that_comes_with_the_join_is_gone_at_once() -> None:
    made = (clip(SECOND.start) + CAST).clamp(-1, 1)
    assert away(made).min() > 5
    assert away(second(made)).max() < 0.7


@pytest.mark.parametrize("where", ["body", "scene"])
def test_a_cast_that_grows_is_held(where: str) -> None:
    there = places(SECOND).cover if where == "body" else 1 - places(SECOND).cover
    there = torch.nn.functional.interpolate(there[None], scale_factor=8)[0]
    ramp = torch.linspace(0, 1, LENGTH).view(1, -1, 1, 1)
    made = clip(SECOND.start) + CAST * ramp * there
    wrong, held = (127.5 * ((v - clip(SECOND.start)) * there)[:, -4:].abs().mean() for v in (made, second(made)))
    assert held < 0.75 * wrong


def test_parts_of_the_body_are_held_apart() -> None:
    """The upper half turns red while the lower half turns green."""
    up, down = torch.zeros(2, *SIZE)
    up[30:64], down[64:98] = 1, 1
    cover = torch.nn.functional.interpolate(places(SECOND).cover[None], scale_factor=8)[0]
    cast = torch.tensor([0.12, -0.12, 0.0]).view(3, 1, 1, 1) * (up - down) * cover
    made = clip(SECOND.start) + cast * torch.linspace(0, 1, LENGTH).view(1, -1, 1, 1)
    body = (clip(SECOND.start)[0] > 0.39)[-4:]
    wrong, held = ((v - clip(SECOND.start))[:, -4:][:, body].abs().mean() for v in (made, second(made)))
    assert held < 0.8 * wrong


def test_parts_are_told_by_the_colours_of_limbs() -> None:
    found = []
    for limb in LIMBS:
        body = np.zeros((20, 3))
        body[limb[0]], body[limb[1]] = (60, 60, 1), (140, 150, 1)
        picture = torch.from_numpy(draw(body, np.zeros((21, 3)), np.zeros((21, 3)), 192, 256))
        parts = places_of(picture.permute(2, 0, 1)[:, None] / 127.5 - 1, None).parts
        found.append(PARTS[int(parts[parts > 0].mode().values) - 1])
        assert (parts > 0).sum() > 300
    arms, legs = ["upper arms", "forearms"], ["thighs", "shins"]
    assert found == ["torso"] * 2 + arms * 2 + (["torso"] + legs) * 2 + ["head"] * 5 + ["feet"] * 2


def test_the_size_of_pieces_does_not_matter() -> None:
    made = (clip(SECOND.start) + CAST).clamp(-1, 1)
    assert torch.equal(second(made, 1), second(made, 4))


def test_a_segment_can_begin_again() -> None:
    made, state = clip(SECOND.start) + CAST, first()
    known, where = clip(0)[:, -OVERLAP:], places(SECOND)
    found = []
    for _ in range(2):
        correct = Anchor().begin(SECOND, known, where, state)
        found.append(torch.cat([correct(piece) for piece in made.split([1, 4, 28], dim=1)], dim=1))
        assert all(torch.equal(correct.state[name], state[name]) for name in ("body", "scene"))
    assert torch.equal(*found)


def test_nobody_in_the_picture() -> None:
    """No skeleton, no body: the scene alone is held, and nothing is divided by nothing."""
    empty = places_of(torch.full((3, LENGTH, *SIZE), -1.0), None)
    watch = Anchor().begin(FIRST, None, empty, {})
    watch(clip(0))
    correct = Anchor().begin(SECOND, clip(0)[:, -OVERLAP:], empty, watch.state)
    result = torch.cat([correct(p) for p in (clip(SECOND.start) + CAST).split([1, 4, 28], dim=1)], dim=1)
    assert torch.isfinite(result).all()
    assert away(result).max() < 1.5
