"""Rendered faces as photographs would show them."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mannequin.training import motion, photographs
from mannequin.training.photographs import photographed
from mannequin.world.assets import load
from mannequin.world.augment import disturb_faces, loosen_boxes
from mannequin.world.dice import Dice
from mannequin.world.world import LOWER, World, job_boxes
from wanimate.preprocess.pose.face import steady_squares

DATA = Path(__file__).parent / "data" / "mannequins.npz"
SIDE = 32


@pytest.fixture(scope="module")
def faces() -> motion.Faces:
    """Pictures of 20 faces whose points lie as those of a face seen from the front."""
    generator = torch.Generator().manual_seed(3)
    pictures = torch.randint(60, 200, (20, SIDE, SIDE, 3), generator=generator, dtype=torch.uint8)
    points = torch.zeros(68, 2)
    points[:17] = torch.stack((torch.linspace(-0.8, 0.8, 17), 0.9 - torch.linspace(-1, 1, 17).square()), -1)
    points[33] = torch.tensor([0.0, 0.15])
    for first, x in ((36, -0.35), (42, 0.35)):
        points[first : first + 6] = torch.tensor([x, -0.3])
    angle = torch.arange(12) / 12 * 2 * torch.pi
    points[48:60] = torch.stack((-0.3 * torch.cos(angle), 0.45 - 0.1 * torch.sin(angle)), -1)
    told = torch.rand(20, len(motion.TOLD), generator=generator)
    return motion.Faces(pictures, told, points.expand(20, 68, 2))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shown(faces: motion.Faces, share: float = 1.0, seed: int = 0) -> Tensor:
    return photographed(motion.to_network(faces.pictures), faces.points, share, seeded(seed))


def test_pictures_stay_in_range_and_a_seed_decides_them(faces: motion.Faces) -> None:
    photos = shown(faces)
    assert photos.shape == (20, 3, SIDE, SIDE)
    assert photos.isfinite().all()
    assert photos.abs().max() <= 1
    assert torch.equal(photos, shown(faces))
    assert not torch.equal(photos, shown(faces, seed=1))


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.5, 10), (1.0, 20)])
def test_the_share_says_how_many_faces_change(faces: motion.Faces, share: float, count: int) -> None:
    changed = (shown(faces, share) != motion.to_network(faces.pictures)).flatten(1).any(1)
    assert changed.sum() == count


def test_faces_draw_their_own_effects() -> None:
    alike = torch.zeros(12, 3, SIDE, SIDE)
    photos = photographed(alike, None, 1.0, seeded())
    assert len(torch.unique(photos.flatten(1), dim=0)) == 12


@pytest.mark.parametrize("count", [1, 3, 9])
@pytest.mark.parametrize("side", [16, 40])
def test_any_number_of_faces_of_any_size(count: int, side: int) -> None:
    assert photographed(torch.zeros(count, 3, side, side), None, 1.0, seeded()).shape == (count, 3, side, side)


def strand(dice: Dice, photo: Tensor) -> Tensor:
    return photographs.thing(dice, photo, 0.02)


def blob(dice: Dice, photo: Tensor) -> Tensor:
    return photographs.thing(dice, photo, 0.25)


EFFECTS = (
    photographs.skin, photographs.light, photographs.shine, strand, blob, photographs.framing, photographs.tones,
    photographs.lens, photographs.camera,
)  # fmt: skip


@pytest.mark.parametrize("effect", EFFECTS)
def test_an_effect_changes_pictures(faces: motion.Faces, effect: photographs.Effect) -> None:
    photo = motion.to_network(faces.pictures) / 2 + 0.5
    after = effect(Dice(20, seeded()), photo)
    assert (after - photo).abs().mean() > 0.002
    assert after.min() >= 0
    assert after.max() <= 1


def worn(wear: photographs.Effect, points: Tensor, side: int = SIDE) -> Tensor:
    """How much of a plain face it covers, mean over 200 draws: [3, S, S]."""
    photo = torch.full((200, 3, side, side), 0.7)
    return (wear(Dice(200, seeded()), photo, points.expand(200, 68, 2)) - photo).abs().mean(0)


def test_beards_and_glasses_lie_on_the_points_of_faces_seen_from_the_front(faces: motion.Faces) -> None:
    assert faces.points is not None
    points = faces.points[:1]
    for wear in (photographs.beard, photographs.glasses):
        rows = worn(wear, points).mean((0, 2))
        upper, lower = rows[: SIDE // 2].sum(), rows[SIDE // 2 :].sum()
        assert (lower > 4 * upper) if wear is photographs.beard else (upper > 4 * lower)
        assert not worn(wear, points * torch.tensor([-1.0, 1.0])).any(), "seen from behind"


def test_a_beard_leaves_the_lips_bare(faces: motion.Faces) -> None:
    assert faces.points is not None
    cover = worn(photographs.beard, faces.points[:1], 64).mean(0)
    assert cover[46, 32] < 0.2 * cover[56, 32]


def test_compression_rounds_blocks_and_keeps_plain_ones() -> None:
    plain = torch.full((2, 3, 32, 32), 0.5)
    assert torch.allclose(photographs.compressed(plain, torch.tensor([0.1, 1.0])), plain, atol=0.05)
    picture = torch.rand(1, 1, 32, 32, generator=seeded()).expand(2, 3, 32, 32)
    little, much = (photographs.compressed(picture, torch.tensor([0.05, 2.0])) - picture).abs().mean((1, 2, 3))
    assert 0 < 4 * little < much


def test_labels_stay_and_without_photographs_batches_are_as_they_were(faces: motion.Faces) -> None:
    config = motion.MotionTraining(batch=16, photographs=1.0)
    batch = motion._draw([faces, faces], config, seeded(), seeded())
    plain = motion._draw([faces, faces], motion.MotionTraining(batch=16, photographs=0.0), seeded(), seeded())
    assert torch.equal(batch.told, plain.told)
    assert (batch.pictures != plain.pictures).flatten(1).any(1).all()
    given = {tuple(row) for row in faces.told.tolist()}
    assert all(tuple(row) in given for row in batch.told.tolist())


def test_the_world_tells_where_a_crop_shows_the_points() -> None:
    batch = World(load(DATA), motion.FACES).sample_batch(6, 1, 16, 16, 1)
    extent = batch.face_points.amax(2) - batch.face_points.amin(2)
    assert batch.face_points.abs().max() < 1.6
    assert extent.min() > 0.8


def test_only_trained_people_are_shown_in_loose_crops() -> None:
    world = World(load(DATA), motion.FACES)
    render = motion.renderer(world)
    for held_out in (True, False):
        faces, own = render(2, 1, held_out), world.sample_batch(2, 2, motion.SIDE, motion.SIDE, 1, held_out)
        assert torch.equal(faces.pictures, own.face.flatten(0, 1)) is held_out
        assert faces.points is not None
        assert faces.points.shape == (4, 68, 2)


def test_faces_are_cut_out_as_a_job_does() -> None:
    """The detector's points lie elsewhere (`world.LOWER`), so that is added to the job's square."""
    people = World(load(DATA), replace(motion.FACES, disturb=False)).sample_batch(6, 1, 256, 256, 3)
    points = torch.cat((people.keypoints[:, 0, 23:91, :2], torch.ones(6, 68, 1)), -1)
    for one, box in zip(points, job_boxes(people.face_box)[:, 0], strict=True):
        body = torch.zeros(133, 3)
        body[23:91], body[0] = one, torch.cat((one[30, :2], torch.ones(1)))
        x, y, side = steady_squares(body[None].numpy(), np.ones(1, bool), Fraction(30))[0]
        left, top, right, low = box.tolist()
        assert [right - left, low - top] == pytest.approx([side, side], rel=1e-4)
        assert [(left + right) / 2, (top + low) / 2 - LOWER * side] == pytest.approx([x, y], abs=0.01)


def test_loose_boxes_lie_about_the_face() -> None:
    box = torch.tensor([10.0, 20.0, 60.0, 70.0]).expand(400, 1, 4)
    loose = loosen_boxes(Dice(400, seeded()), box)
    size = loose[..., 2:] - loose[..., :2]
    middle = (loose[..., :2] + loose[..., 2:]) / 2 - torch.tensor([35.0, 45.0])
    assert size.mean((0, 1)).tolist() == pytest.approx([47.5, 50], abs=2)
    assert middle.mean((0, 1)).tolist() == pytest.approx([0, 0.025 * 50], abs=0.5)


def test_points_move_with_a_disturbed_crop() -> None:
    n, side, column, row = 24, 64, 40, 20
    face = torch.zeros(n, 1, side, side, 3)
    face[:, :, row : row + 6, column : column + 6] = 1.0
    place = (torch.tensor([column + 3.0, row + 3.0]) / side * 2 - 1).expand(n, 1, 1, 2)
    seen, points = disturb_faces(Dice(n, seeded()), face, place)
    bright = (seen.mean((1, -1)) - 0.4).clamp_min(0)
    at = (torch.arange(side) * 2 + 1) / side - 1
    total = bright.sum((1, 2))
    middle = torch.stack(((bright.sum(1) * at).sum(1), (bright.sum(2) * at).sum(1)), -1) / total[:, None]
    assert (points - place).abs().amax() > 0.08
    assert (middle - points[:, 0, 0]).abs().max() < 0.03
