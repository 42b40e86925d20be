"""The training world: bodies, z-buffer, drawn skeletons, motion and whole batches."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from mannequin.world import sticks
from mannequin.world.appearance import REGIONS
from mannequin.world.assets import Mannequins, load
from mannequin.world.augment import disturb_keypoints
from mannequin.world.body import AT, DOF, Posed, Rig, rotation, skin
from mannequin.world.decimate import collapse
from mannequin.world.dice import Dice
from mannequin.world.layout import EXPRESSIONS
from mannequin.world.motion import sample_motion
from mannequin.world.raster import rasterize
from mannequin.world.scene import sample_backgrounds, sample_lights
from mannequin.world.sticks import draw_skeletons
from mannequin.world.world import World, WorldBatch, WorldSettings, face_boxes
from wanimate.errors import InputError
from wanimate.preprocess.pose.keypoints import split
from wanimate.preprocess.pose.skeleton import draw

DATA = Path(__file__).parent / "data" / "mannequins.npz"
LEFT_SHOULDER, LEFT_ELBOW, LEFT_WRIST, RIGHT_WRIST, LEFT_ANKLE, LEFT_KNEE = 5, 7, 9, 10, 15, 13
NOSE, LEFT_HIP = 0, 11


@pytest.fixture(scope="module")
def people() -> Mannequins:
    return load(DATA)


@pytest.fixture(scope="module")
def rig(people: Mannequins) -> Rig:
    return Rig(people)


@pytest.fixture(scope="module")
def batch(people: Mannequins) -> WorldBatch:
    return World(people, WorldSettings(replacement=0.5)).sample_batch(4, 5, 96, 64, seed=5)


def posed(rig: Rig, expression: dict[str, float] | None = None, **angles: float) -> Posed:
    """Body 0 with the given angles in degrees."""
    pose = torch.zeros(1, len(DOF))
    for name, degrees in angles.items():
        pose[0, AT[name]] = math.radians(degrees)
    weights = torch.zeros(1, len(EXPRESSIONS))
    for name, value in (expression or {}).items():
        weights[0, list(EXPRESSIONS).index(name)] = value
    return skin(rig, torch.tensor([0]), pose, weights)


def test_missing_file_is_explained(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="export"):
        load(tmp_path / "none.npz")


def test_rotation_is_right_handed() -> None:
    turned = rotation(torch.tensor([0.0, 0.0, math.pi / 2])) @ torch.tensor([1.0, 0.0, 0.0])
    assert torch.allclose(turned, torch.tensor([0.0, 1.0, 0.0]), atol=1e-6)


def test_zero_pose_stands_upright_with_hanging_arms(rig: Rig) -> None:
    points = posed(rig).keypoints[0]
    assert (
        points[NOSE, 2] > points[LEFT_SHOULDER, 2] > points[LEFT_HIP, 2] > points[LEFT_KNEE, 2] > points[LEFT_ANKLE, 2]
    )
    upper, lower = points[LEFT_ELBOW] - points[LEFT_SHOULDER], points[LEFT_WRIST] - points[LEFT_ELBOW]
    for part in (upper, lower):
        assert part[2] < -0.95 * part.norm()
    assert points[LEFT_WRIST, 0] > points[RIGHT_WRIST, 0]  # the body's left is +x
    mirrored = points[RIGHT_WRIST] * torch.tensor([-1.0, 1, 1])
    assert torch.allclose(points[LEFT_WRIST], mirrored, atol=0.01)


def test_lowest_point_is_on_the_floor(rig: Rig) -> None:
    for angles in ({}, {"leg_forward_L": 60.0, "leg_forward_R": 60.0, "knee_L": 100.0, "knee_R": 100.0}):
        assert abs(float(posed(rig, **angles).vertices[0, :, 2].min())) < 0.05


@pytest.mark.parametrize(
    ("angles", "point", "origin", "direction"),
    [
        ({"arm_side_L": 90.0}, LEFT_WRIST, LEFT_SHOULDER, (1.0, 0.0, 0.0)),
        ({"arm_side_R": 90.0}, RIGHT_WRIST, 6, (-1.0, 0.0, 0.0)),
        ({"arm_forward_L": 90.0}, LEFT_WRIST, LEFT_SHOULDER, (0.0, -1.0, 0.0)),
        ({"elbow_L": 90.0}, LEFT_WRIST, LEFT_ELBOW, (0.0, -1.0, 0.0)),
        ({"arm_side_L": 90.0, "arm_twist_L": -90.0, "elbow_L": 90.0}, LEFT_WRIST, LEFT_ELBOW, (0.0, 0.0, 1.0)),
        ({"knee_L": 90.0}, LEFT_ANKLE, LEFT_KNEE, (0.0, 1.0, 0.0)),
        ({"leg_forward_L": 90.0}, LEFT_KNEE, LEFT_HIP, (0.0, -1.0, 0.0)),
    ],
)
def test_angles_turn_limbs_the_right_way(
    rig: Rig, angles: dict[str, float], point: int, origin: int, direction: tuple[float, float, float]
) -> None:
    points = posed(rig, **angles).keypoints[0]
    step = torch.nn.functional.normalize(points[point] - points[origin], dim=0)
    assert float(step @ torch.tensor(direction)) > 0.9


def test_turn_left_faces_the_left(rig: Rig) -> None:
    assert float(posed(rig).head_forward[0] @ torch.tensor([0.0, -1.0, 0.0])) > 0.99
    assert float(posed(rig, yaw=90).head_forward[0] @ torch.tensor([1.0, 0.0, 0.0])) > 0.99


def test_a_fist_brings_finger_tips_to_the_palm(rig: Rig) -> None:
    curls = {f"{part}{finger}_L": 80.0 for part in ("knuckle", "finger") for finger in range(2, 6)}
    flat, fist = posed(rig).keypoints[0, 91:112], posed(rig, **curls).keypoints[0, 91:112]
    for tip in (8, 12, 16, 20):
        assert (fist[tip] - fist[0]).norm() < 0.75 * (flat[tip] - flat[0]).norm()


def test_jaw_opens_the_mouth(rig: Rig) -> None:
    gaps = []
    for weight in (0.0, 0.5, 1.0):
        face = posed(rig, {"jaw": weight}).keypoints[0, 23:91]
        gaps.append(float(face[62, 2] - face[66, 2]))
    assert gaps[0] < gaps[1] < gaps[2]
    assert gaps[2] - gaps[0] > 0.01


def brute_force(screen: torch.Tensor, triangles: torch.Tensor, height: int, width: int) -> np.ndarray:
    """The frontmost of opaque two-sided triangles, pixel by pixel."""
    result = np.full((height, width), -1)
    best = np.zeros((height, width))
    for t, corners in enumerate(triangles.tolist()):
        (x0, y0, q0), (x1, y1, q1), (x2, y2, q2) = (screen[0, c].double().tolist() for c in corners)
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        for row in range(height):
            for column in range(width):
                px, py = column + 0.5, row + 0.5
                b0 = ((x1 - px) * (y2 - py) - (x2 - px) * (y1 - py)) / area
                b1 = ((x2 - px) * (y0 - py) - (x0 - px) * (y2 - py)) / area
                depth = b0 * q0 + b1 * q1 + (1 - b0 - b1) * q2
                if min(b0, b1, 1 - b0 - b1) >= 0 and depth > best[row, column]:
                    best[row, column], result[row, column] = depth, t
    return result


def test_z_buffer_equals_brute_force() -> None:
    generator = torch.Generator().manual_seed(1)
    plane = torch.rand(1, 36, 2, generator=generator) * 40 - 6  # partly outside
    screen = torch.cat([plane, torch.rand(1, 36, 1, generator=generator) * 0.5 + 0.2], dim=-1)
    triangles = torch.arange(36).view(12, 3)
    both, shown = torch.ones(12, dtype=torch.bool), torch.ones(1, 12, dtype=torch.bool)
    found = rasterize(screen, triangles, both, shown, 24, 28)[0].numpy()
    assert (found != brute_force(screen, triangles, 24, 28)).sum() <= 2  # ties at edges
    assert len(np.unique(found)) > 6


def test_z_buffer_culls_hides_and_drops() -> None:
    square = torch.tensor([[[0.0, 0, 1], [0, 8, 1], [8, 0, 1]]])  # counter-clockwise with y up
    front, back = torch.tensor([[0, 1, 2]]), torch.tensor([[0, 2, 1]])
    one, shown = torch.zeros(1, dtype=torch.bool), torch.ones(1, 1, dtype=torch.bool)
    assert (rasterize(square, front, one, shown, 8, 8) == 0).sum() > 20
    assert (rasterize(square, back, one, shown, 8, 8) == 0).sum() == 0
    assert (rasterize(square, back, ~one, shown, 8, 8) == 0).sum() > 20
    assert (rasterize(square, front, one, ~shown, 8, 8) == 0).sum() == 0
    behind = square * torch.tensor([1.0, 1.0, -1.0])
    assert (rasterize(behind, front, one, shown, 8, 8) == 0).sum() == 0


def test_body_has_no_holes(people: Mannequins) -> None:
    batch = World(people, WorldSettings(disturb=False)).sample_batch(2, 2, 96, 96, seed=3)
    for mask in (batch.cover > 128).flatten(0, 1).numpy():
        filled = mask[1:-1, 1:-1] | (mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:])
        assert (filled & ~mask[1:-1, 1:-1]).sum() <= 2


@pytest.mark.parametrize(("low", "span", "tolerance"), [(14, 50, 0.0), (-15, 130, 0.003)])
def test_stamped_skeletons_equal_the_product(low: float, span: float, tolerance: float) -> None:
    """Exactly while nothing is cut by the border; up to OpenCV's clipping where much is."""
    generator = torch.Generator().manual_seed(2)
    points = torch.rand(30, 2, 133, 2, generator=generator) * span + low
    middle = torch.rand(30, 2, 2, 1, 2, generator=generator) * 40 + 20
    points[:, :, 91:] = (points[:, :, 91:].unflatten(2, (2, 21)) * 0.3 + middle - 0.3 * low).flatten(2, 3)
    confidence = (torch.rand(30, 2, 133, 1, generator=generator) < 0.9).float()
    keypoints = torch.cat([points, confidence], dim=-1)
    stamped = draw_skeletons(keypoints, 100, 96).flatten(0, 1).numpy()
    differing = drawn = 0
    for frame, picture in zip(keypoints.double().flatten(0, 1).numpy(), stamped, strict=True):
        parts = split(frame)
        expected = draw(parts.body, parts.left_hand, parts.right_hand, 100, 96)
        differing += int((expected != picture).any(-1).sum())
        drawn += int(expected.any(-1).sum())
    assert drawn > 20_000
    assert differing <= tolerance * drawn


def test_hands_of_close_ups_are_stamped_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hand before the camera has lines of 80 pixels; one frame in eight went through the product, on the processor."""
    generator = torch.Generator().manual_seed(4)
    points = torch.rand(1, 12, 133, 2, generator=generator) * 79 + 60
    keypoints = torch.cat([points, torch.ones(1, 12, 133, 1)], dim=-1)
    expected = []
    for frame in keypoints[0].double().numpy():
        parts = split(frame)
        expected.append(draw(parts.body, parts.left_hand, parts.right_hand, 256, 256))
    monkeypatch.setattr(sticks, "_plainly", None)
    assert np.array_equal(draw_skeletons(keypoints, 256, 256)[0].numpy(), np.stack(expected))


def test_long_sticks_and_large_canvases_go_through_the_product() -> None:
    keypoints = torch.zeros(1, 1, 133, 3)
    keypoints[0, 0, [5, 6, 11, 12]] = torch.tensor([[20.0, 5, 1], [30.0, 5, 1], [22.0, 390, 1], [28.0, 390, 1]])
    for size in ((60, 396), (640, 640)):
        parts = split(keypoints[0, 0].double().numpy())
        expected = draw(parts.body, parts.left_hand, parts.right_hand, *size)
        assert np.array_equal(draw_skeletons(keypoints, *size)[0, 0].numpy(), expected)


def test_motion_is_smooth_and_independent_of_the_frame_rate() -> None:
    seconds = torch.linspace(0, 1, 31).expand(8, 31)
    slow, _ = sample_motion(Dice(8, torch.Generator().manual_seed(4)), seconds[:, ::3])
    fast, faces = sample_motion(Dice(8, torch.Generator().manual_seed(4)), seconds)
    assert torch.allclose(fast[:, ::3], slow, atol=1e-4)
    assert fast.isfinite().all()
    assert float(fast.diff(dim=1).abs().max()) < 0.8  # radians in a thirtieth of a second
    assert 0.01 < float(fast.std(dim=1).mean()) < 0.5
    assert float(faces.min()) >= 0
    assert float(faces.max()) <= 1


def test_batch_shapes(batch: WorldBatch) -> None:
    assert batch.video.shape == batch.skeleton.shape == batch.background.shape == (4, 5, 64, 96, 3)
    assert batch.face.shape == (4, 5, 64, 64, 3)
    assert batch.reference.shape == (4, 64, 96, 3)
    assert batch.region.shape == batch.cover.shape == batch.inpaint_mask.shape == (4, 5, 64, 96)
    assert batch.keypoints.shape == (4, 5, 133, 3)
    assert batch.video.dtype == batch.face.dtype == batch.reference.dtype == torch.uint8
    assert "video [4, 5, 64, 96, 3]" in str(batch)


def test_same_seed_same_batch(people: Mannequins, batch: WorldBatch) -> None:
    again = World(people, WorldSettings(replacement=0.5)).sample_batch(4, 5, 96, 64, seed=5)
    other = World(people, WorldSettings(replacement=0.5)).sample_batch(4, 5, 96, 64, seed=6)
    for name, value in vars(batch).items():
        assert torch.equal(value, getattr(again, name)), name
    assert not torch.equal(batch.video, other.video)


def test_people_are_in_the_picture_and_match_their_keypoints(batch: WorldBatch) -> None:
    share = (batch.cover > 128).float().mean((1, 2, 3))
    assert ((share > 0.02) & (share < 0.95)).all()
    shoulders = batch.keypoints[:, :, 5:7]
    hit = total = 0
    for clip in range(4):
        for frame in range(5):
            for x, y, seen in shoulders[clip, frame].tolist():
                if seen and 1 <= x < 95 and 1 <= y < 63:
                    total, hit = total + 1, hit + int(batch.cover[clip, frame, int(y), int(x)] > 128)
    assert total > 10
    assert hit >= 0.9 * total
    assert (batch.skeleton.flatten(2).amax(-1) > 0).float().mean() > 0.9


def test_background_hides_the_person_and_keeps_the_scene(batch: WorldBatch) -> None:
    assert (batch.inpaint_mask | (batch.cover < 8)).all()
    assert (batch.background[batch.inpaint_mask] == 0).all()
    assert torch.equal(batch.background[~batch.inpaint_mask], batch.video[~batch.inpaint_mask])


def test_animation_shares_the_scene_with_the_reference(people: Mannequins) -> None:
    batch = World(people, WorldSettings(replacement=0.0)).sample_batch(6, 1, 64, 64, seed=1)
    corner = (slice(None), slice(0, 3), slice(0, 3))
    same = (batch.video[:, 0][corner].float() - batch.reference[corner].float()).abs().amax((1, 2, 3)) < 2
    assert same.float().mean() > 0.6  # the others have a head or an arm in that corner
    assert torch.equal(batch.light, batch.reference_light)
    assert not batch.replacement.any()
    different = World(people, WorldSettings(replacement=1.0)).sample_batch(6, 1, 64, 64, seed=1)
    assert different.replacement.all()
    assert not torch.allclose(different.light, different.reference_light)


def test_held_out_bodies_stay_out(people: Mannequins) -> None:
    world = World(people)
    assert (world.sample_batch(8, 1, 32, 32, seed=1).body < people.trained).all()
    assert (world.sample_batch(8, 1, 32, 32, seed=1, held_out=True).body >= people.trained).all()


def test_every_region_occurs(people: Mannequins) -> None:
    regions = World(people).sample_batch(10, 1, 128, 128, seed=2).region
    assert set(regions.unique().tolist()) >= {
        REGIONS[n] for n in ("background", "skin", "face", "hair", "top", "bottom")
    }


def test_face_boxes_are_steady_and_follow_the_rule() -> None:
    points = torch.zeros(1, 5, 68, 2)
    points[..., 1, :] = torch.tensor([10.0, 20.0])
    points += torch.arange(5).view(1, 5, 1, 1) * 4.0
    box = face_boxes(points)[0]
    size = box[:, 2:] - box[:, :2]
    assert torch.allclose(size, torch.tensor([10.0, 20.0]) * math.sqrt(1.3))
    x0, y0 = 8 - 10 * (math.sqrt(1.3) - 1) / 2, 8 - 20 * (math.sqrt(1.3) - 1) * 0.75
    assert torch.allclose(box[2, :2], torch.tensor([x0, y0]), atol=1e-4)


def test_faces_show_faces(people: Mannequins) -> None:
    """The crop is mostly skin: its middle differs little from the skin colour when nothing disturbs it."""
    settings = WorldSettings(disturb=False, other_face=0.0, replacement=0.0)
    batch = World(people, settings).sample_batch(6, 1, 96, 96, seed=8)
    skin_colour = batch.appearance[:, :3]
    middle = batch.face[:, 0, 24:40, 24:40].float().mean((1, 2)) / 255
    hue = middle / middle.sum(1, keepdim=True) - skin_colour / skin_colour.sum(1, keepdim=True)
    assert (hue.abs().amax(1) < 0.15).float().mean() >= 0.8


def test_collapse_keeps_a_flat_patch_flat_and_whole() -> None:
    side = 12
    grid = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="ij"), -1).reshape(-1, 2)
    points = np.concatenate([grid, np.zeros((len(grid), 1))], axis=1).astype(float)
    at = np.arange(side * side).reshape(side, side)
    a, b, c, d = at[:-1, :-1].ravel(), at[1:, :-1].ravel(), at[1:, 1:].ravel(), at[:-1, 1:].ravel()
    triangles = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    kept = collapse(points, triangles, np.zeros(len(triangles), dtype=np.int64), np.ones(len(points)), 30)
    assert len(kept) <= 30
    p, q, r = (points[kept[:, i]] for i in range(3))
    area = np.cross(q - p, r - p)[:, 2] / 2
    assert (area > 0).all()
    assert area.sum() == pytest.approx((side - 1) ** 2)


def test_white_things_show_the_light() -> None:
    """The brightest part of a scene with something white has the light's tint, and lights reach farther when wide."""
    dice = Dice(64, torch.Generator().manual_seed(3))
    light = torch.tensor([0.0, -1.0, 0.0, 0.5, 0.3, 0.2, 0.3, 0.2, 0.1]).repeat(64, 1)
    scenes = sample_backgrounds(dice, light, 32, 32, white=1.0).flatten(1, 2)
    white = scenes[torch.arange(64), scenes.sum(-1).argmax(1)]
    ratio = (white / white[:, :1]).median(0).values
    torch.testing.assert_close(ratio, torch.tensor([1.0, 0.63, 0.38]), atol=0.06, rtol=0)
    spread = [
        sample_lights(Dice(512, torch.Generator().manual_seed(0)), wide)[:, 3:].log().std() for wide in (False, True)
    ]
    assert spread[1] > 1.2 * spread[0]


def test_detectors_errors_move_heads_and_hands_as_a_whole() -> None:
    """Where a head looks is told by a few pixels between nose, eyes and ears."""
    body = torch.rand(1, 1, 133, 2, generator=torch.Generator().manual_seed(1)) * 200
    body[:, :, 0], body[:, :, 16] = torch.tensor([100.0, 0.0]), torch.tensor([100.0, 1000.0])
    keypoints = torch.cat([body.clamp(0, 1000), torch.ones(1, 1, 133, 1)], dim=-1).expand(400, 5, -1, -1)
    moved = disturb_keypoints(Dice(400, torch.Generator().manual_seed(2)), keypoints)[..., :2] - keypoints[..., :2]
    alone = {name: (moved[:, :, part] - moved[:, :, part].mean(2, keepdim=True)).std() for name, part in PARTS.items()}
    assert alone["head"] < 0.6 * alone["limbs"]
    assert alone["hand"] < 0.6 * alone["limbs"]
    assert moved[:, :, PARTS["head"]].mean(2).std() > 2 * alone["head"] / math.sqrt(5)


PARTS = {"head": slice(0, 5), "limbs": slice(5, 11), "hand": slice(91, 112)}
