"""People seen from near: framing, gestures, speech, blinks."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mannequin.training.vae_report import detail_masks, psnr
from mannequin.world import closeups
from mannequin.world.assets import Mannequins, load
from mannequin.world.body import AT, DOF, Rig, skin
from mannequin.world.closeups import eye_opening, near_cameras, perform_near, speak
from mannequin.world.dice import Dice
from mannequin.world.layout import EXPRESSIONS
from mannequin.world.motion import ARM_DOF, sample_motion
from mannequin.world.world import World, WorldSettings, face_boxes

DATA = Path(__file__).parent / "data" / "mannequins.npz"
NAMES = list(EXPRESSIONS)


@pytest.fixture(scope="module")
def people() -> Mannequins:
    return load(DATA)


def keypoints(people: Mannequins, expression: dict[str, float], angles: dict[str, float]) -> Tensor:
    pose, weights = torch.zeros(1, len(DOF)), torch.zeros(1, len(NAMES))
    for name, degrees in angles.items():
        pose[0, AT[name]] = math.radians(degrees)
    for name, value in expression.items():
        weights[0, NAMES.index(name)] = value
    return skin(Rig(people), torch.tensor([0]), pose, weights).keypoints[0]


def test_eyes_open_and_shut(people: Mannequins) -> None:
    def opening(**expression: float) -> float:
        return float(eye_opening(keypoints(people, expression, {"turn": 20}), people.key_rest[0]))

    assert opening() == pytest.approx(1, abs=0.02)
    assert opening(blink_left=1, blink_right=1) < 0.25
    assert opening(blink_left=1) == pytest.approx(0.5, abs=0.15)
    assert opening() < opening(wide=1)
    half = opening(blink_left=0.5, blink_right=0.5)
    assert 0.1 < half < 0.7


@pytest.mark.parametrize("size", [(256, 256), (192, 336), (336, 192)])
def test_faces_have_the_size_that_is_promised(people: Mannequins, size: tuple[int, int]) -> None:
    width, height = size
    points = keypoints(people, {}, {}).expand(64, -1, -1)
    camera = near_cameras(Dice(64, torch.Generator().manual_seed(1)), points[:, 0], height, width)
    flat = camera.project(points)[..., :2]
    box = face_boxes(flat[:, None, 23:91])[:, 0]
    tall = (box[:, 3] - box[:, 1]) * 256 / math.sqrt(width * height)
    assert tall.min() > closeups.SMALLEST * 0.8
    assert tall.max() < closeups.LARGEST * 1.2
    assert tall.max() / tall.min() > 1.5
    nose = flat[:, 0] / torch.tensor([width, height])
    assert ((nose > 0.15) & (nose < 0.85)).all()


def test_gestures_bring_hands_where_they_say(people: Mannequins) -> None:
    def pose(row: int) -> Tensor:
        angles = dict(zip((f"{name}_L" for name in ARM_DOF), closeups._GESTURES[row][2], strict=True))
        return keypoints(people, {}, angles)

    camera, mouth, temple = pose(3), pose(8), pose(10)
    assert camera[91, 1] < camera[5, 1] - 0.3, "a hand towards the camera"
    assert camera[91 + 12, 2] > camera[91, 2] + 0.1, "its fingers upright"
    lips = mouth[23 + 62]
    assert (mouth[91:112] - lips).norm(dim=1).min() < 0.07
    assert (temple[91 + 8] - temple[23 + 45]).norm() < 0.08


def test_only_the_chosen_clips_change(people: Mannequins) -> None:
    dice = Dice(6, torch.Generator().manual_seed(3))
    times = torch.arange(24)[None].expand(6, -1) / 12
    pose, face = sample_motion(dice, times)
    near = torch.tensor([True, False] * 3)
    moved, spoken = perform_near(dice, times, pose, near), speak(dice, times, face, near)
    assert torch.equal(moved[~near], pose[~near])
    assert torch.equal(spoken[~near], face[~near])
    assert (moved[near][..., AT["yaw"]].abs() <= 0.6).all()
    assert not torch.equal(moved[near], pose[near])
    assert ((spoken >= 0) & (spoken <= 1)).all()


def test_faces_speak_and_blink() -> None:
    dice = Dice(64, torch.Generator().manual_seed(4))
    times = torch.arange(64)[None].expand(64, -1) / 16
    face = speak(dice, times, torch.zeros(64, 64, len(NAMES)), torch.ones(64, dtype=torch.bool))

    def moving(name: str) -> float:
        return float((face[..., NAMES.index(name)].std(1) > 0.05).float().mean())

    assert moving("jaw") > 0.6
    assert min(moving("pucker"), moving("stretch"), moving("funnel")) > 0.4
    assert min(moving("blink_left"), moving("blink_right"), moving("brow_inner")) > 0.4
    shut = face[..., NAMES.index("blink_left")] > 0.8
    assert 0.05 < float(shut.float().mean()) < 0.35


@pytest.mark.slow
def test_a_seed_shows_the_same_common_clips_whether_there_are_close_ones_or_not(people: Mannequins) -> None:
    """Bodies, clothes and lights are drawn first; the clips of closeups come on top."""
    plain, near = (
        World(people, WorldSettings(near=share, face_size=16)).sample_batch(2, 1, 32, 32, seed=9)
        for share in (0.0, 1.0)
    )
    for name in ("body", "appearance", "light", "rate"):
        assert torch.equal(getattr(plain, name), getattr(near, name))
    assert (near.face_box[..., 3] - near.face_box[..., 1]).min() > 4
    assert plain.eyes.shape == near.eyes.shape == (2, 1)


@pytest.mark.parametrize("near", [0.0, 1.0])
def test_a_picture_is_the_part_of_a_larger_view_around_the_face(people: Mannequins, near: float) -> None:
    whole, part = (
        World(people, WorldSettings(near=near, face_size=16, replacement=0.0, view=view)).sample_batch(
            4, 1, side, side, seed=7
        )
        for view, side in ((1.0, 64), (2.0, 32))
    )
    sizes = [batch.face_box[..., 2:] - batch.face_box[..., :2] for batch in (whole, part)]
    torch.testing.assert_close(sizes[1], sizes[0], rtol=1e-3, atol=1e-3)
    nose = part.keypoints[:, 0, 0, :2]
    assert ((nose > 0.39 * 32) & (nose < 0.61 * 32)).all()
    assert torch.equal(part.expression, whole.expression)


@pytest.mark.slow
def test_what_the_vae_report_measures(people: Mannequins) -> None:
    world = World(people, WorldSettings(near=1.0, face_size=16, replacement=0.0))
    batch = world.sample_batch(2, 1, 48, 48, seed=2)
    masks = detail_masks(batch)
    x0, y0, x1, y1 = batch.face_box[0, 0].tolist()
    middle = masks["face"][0, 0, 0, int((y0 + y1) / 2), int((x0 + x1) / 2)]
    assert middle
    assert float(masks["face"][0].sum()) == pytest.approx((x1 - x0) * (y1 - y0), rel=0.3)
    true = torch.zeros(2, 3, 1, 48, 48)
    worse = true + 0.2 * masks["face"]
    assert psnr(worse, true, masks["face"]) == pytest.approx(20.0, abs=1e-3)
    assert psnr(worse, true, ~masks["face"]) > 90
    assert psnr(worse, true, masks["all"]) > 20
