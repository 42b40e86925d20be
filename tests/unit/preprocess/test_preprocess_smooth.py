from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from wanimate.preprocess.pose.keypoints import LEFT_HAND, RIGHT_HAND
from wanimate.preprocess.pose.smooth import smooth

FPS = Fraction(30)


def _person(n, noise=0.0, seed=0):
    """A standing person who sways; all confident."""
    random = np.random.default_rng(seed)
    base = random.uniform(100, 300, (133, 2))
    base[[5, 6]] = (250, 150), (150, 150)
    base[9], base[10] = base[LEFT_HAND][0], base[RIGHT_HAND][0]
    sway = np.stack([20 * np.sin(np.arange(n) / 8), np.zeros(n)], axis=1)
    clean = base[None] + sway[:, None]
    points = np.concatenate([clean + random.normal(0, noise, clean.shape), np.ones((n, 133, 1))], axis=2)
    return points, clean


def test_jitter_falls_and_the_movement_stays():
    points, clean = _person(90, noise=2.0)
    out = smooth(points, np.ones(90, bool), FPS)

    def jitter(xy):
        return np.abs(np.diff(xy, 2, axis=0)).mean()

    body = slice(0, 9)
    assert jitter(out[:, body, :2]) < 0.5 * jitter(points[:, body, :2])
    assert jitter(out[:, 92:111, :2]) < 0.75 * jitter(points[:, 92:111, :2])
    assert np.abs(out[..., :2] - clean).mean() < 0.8 * np.abs(points[..., :2] - clean).mean()


def test_no_delay_and_no_shrinking():
    points, clean = _person(60)
    out = smooth(points, np.ones(60, bool), FPS)
    np.testing.assert_allclose(out[..., :2], clean, atol=0.2)


def test_never_across_an_invalid_gap_or_a_cut():
    points, _ = _person(40)
    points[20:, :, 0] += 500  # a cut to another place
    out = smooth(points, np.ones(40, bool), FPS)
    assert np.abs(out[19, :, 0] - points[19, :, 0]).max() < 1
    assert np.abs(out[20, :, 0] - points[20, :, 0]).max() < 1
    valid = np.ones(40, bool)
    valid[15:25] = False
    points[15:25] = 0
    out = smooth(points, valid, FPS)
    assert np.abs(out[25:, :, :2] - points[25:, :, :2]).max() < 1
    np.testing.assert_array_equal(out[15:18], np.repeat(out[14:15], 3, axis=0))  # held for three frames
    assert not out[18:25].any()


def test_a_spike_is_removed():
    points, clean = _person(30)
    points[15, 7, :2] += 200
    out = smooth(points, np.ones(30, bool), FPS)
    assert np.abs(out[:, 7, :2] - clean[:, 7]).max() < 3


def test_short_losses_of_a_joint_are_closed_and_long_ones_are_not():
    points, _ = _person(30)
    points[5:8, 7, 2] = 0.2
    points[15:25, 8, 2] = 0.2
    out = smooth(points, np.ones(30, bool), FPS)
    assert (out[:, 7, 2] >= 0.5).all()
    assert (out[15:25, 8, 2] < 0.5).all()


@pytest.mark.parametrize(("lost", "shown"), [(6, 6), (12, 6)])
def test_a_hand_lost_is_carried_at_its_wrist(lost, shown):
    points, clean = _person(40)
    points[10 : 10 + lost, LEFT_HAND] = 0
    out = smooth(points, np.ones(40, bool), FPS)
    assert (out[10 : 10 + lost, 91, 2] > 0).sum() == shown
    there = out[:, 91, 2] > 0
    np.testing.assert_allclose(out[there][:, LEFT_HAND, :2], clean[there][:, LEFT_HAND], atol=0.5)
    np.testing.assert_array_equal(out[there, 9, :2], out[there, 91, :2])


def test_a_hand_is_not_carried_where_its_arm_is_hidden():
    points, _ = _person(40)
    points[10:20, LEFT_HAND] = 0
    points[10:20, 9, 2] = 0.1
    out = smooth(points, np.ones(40, bool), FPS)
    assert not out[10:20, 91, 2].any()


@pytest.mark.parametrize("lost", [(7, 12), (10, 14)], ids=["up to the cut", "across it"])
def test_nothing_is_bridged_held_or_smoothed_across_a_cut(lost):
    """Two shots that hardly differ in place, so that only the cut itself tells them apart."""
    points, _ = _person(24, noise=2.0)
    points[12:, :, 0] += 8
    points[10:14, 7, 2] = 0.1  # a joint, and a hand, unsure on both sides
    points[10:14, LEFT_HAND] = 0
    valid = np.ones(24, bool)
    valid[slice(*lost)] = False
    points[slice(*lost)] = 0
    alone = [smooth(points[shot].copy(), valid[shot], FPS) for shot in (slice(12), slice(12, 24))]
    np.testing.assert_array_equal(smooth(points, valid, FPS, cuts=(12,)), np.concatenate(alone))


@pytest.mark.parametrize(
    ("fps", "step", "frames"), [(30, 0, 3), (60, 0, 3), (16, 0, 2), (10, 0, 1), (30, 60, 0), (30, 5, 3)]
)
def test_a_lost_person_is_held_for_a_tenth_of_a_second_unless_they_were_moving(fps, step, frames):
    points, _ = _person(20)
    points[..., 0] += step * np.arange(20)[:, None]
    valid = np.arange(20) < 12
    points[~valid] = 0
    assert smooth(points, valid, Fraction(fps))[12:].any(axis=(1, 2)).sum() == frames
