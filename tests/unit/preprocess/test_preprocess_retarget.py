from __future__ import annotations

import numpy as np
import pytest

from wanimate.preprocess.pose import retarget
from wanimate.preprocess.pose.keypoints import LEFT_HAND, RIGHT_HAND, split

SIZE, CANVAS = (640, 480), (320, 480)


def _case(golden_npz, name):
    data = golden_npz("retarget.npz")
    return data[f"{name}_tpl"], data[f"{name}_ref"]


def _auto(template, reference, size=(640, 360), canvas=(360, 640)):
    return retarget.auto(template, np.ones(len(template), bool), size, reference, canvas)


def _limbs(body):
    a, b = np.array(retarget.LIMBS).T
    return np.hypot(*np.moveaxis(body[..., a, :2] - body[..., b, :2], -1, 0))


def test_directions_are_kept_and_lengths_are_the_characters(golden_npz):
    template, reference = _case(golden_npz, "full_to_tall")
    parts, fit = _auto(template, reference)
    old, new = split(template).body, parts.body
    for i, j in retarget.LIMBS[:12]:
        a, b = old[:, j, :2] - old[:, i, :2], new[:, j, :2] - new[:, i, :2]
        cosine = (a * b).sum(axis=1) / np.hypot(*a.T) / np.hypot(*b.T)
        np.testing.assert_allclose(cosine, 1, atol=1e-9)
    longest = _limbs(new).max(axis=0)
    np.testing.assert_allclose(longest[[2, 3, 7, 8]], _limbs(split(reference).body)[[2, 3, 7, 8]], rtol=0.15)
    assert fit.anchor == "ground"
    np.testing.assert_array_equal(parts.body[..., 2], old[..., 2])


def test_the_same_person_in_the_same_frame_is_left_alone(golden_npz):
    template, _ = _case(golden_npz, "same_person")
    parts, fit = _auto(template[:1], template[0], (640, 360), (640, 360))
    assert fit.scale == pytest.approx(1)
    np.testing.assert_allclose(parts.body[0, :14, :2], split(template[0]).body[:14, :2], atol=4)


def test_one_foreshortened_limb_does_not_explode(golden_npz):
    template, reference = _case(golden_npz, "foreshortened_forearm")
    _, fit = _auto(template, reference)
    assert fit.ratios.max() <= 2 * fit.scale + 1e-9
    assert fit.ratios[3] == fit.ratios[5] == pytest.approx(fit.scale, rel=0.35)


def test_unsure_legs_of_the_character_take_the_scale_of_the_trunk(golden_npz):
    template, reference = _case(golden_npz, "ref_noise_legs")
    _, fit = _auto(template, reference)
    for bone in (7, 8, 10, 11, 17, 18):
        assert fit.ratios[bone] == fit.scale
    assert fit.anchor == "neck"


def test_the_feet_stand_on_the_characters_ground(golden_npz):
    template, reference = _case(golden_npz, "full_to_chibi")
    template = np.repeat(template[:1], 10, axis=0)
    template[5, :, 1] -= 30  # a jump
    parts, fit = retarget.auto(template, np.ones(10, bool), (360, 640), reference, (640, 360))
    ground = retarget._ground(parts.body)
    want = retarget._ground(split(reference).body[None])[0]
    np.testing.assert_allclose(np.delete(ground, 5), want, atol=1e-6)
    assert ground[5] == pytest.approx(want - 30 * fit.scale)


def test_hands_hang_at_their_own_wrists_even_if_the_detector_exchanged_them(golden_npz):
    template, reference = _case(golden_npz, "hands_swapped")
    parts, fit = _auto(template, reference)
    np.testing.assert_allclose(parts.left_hand[:, 0, :2], parts.body[:, 7, :2])
    np.testing.assert_allclose(parts.right_hand[:, 0, :2], parts.body[:, 4, :2])
    old = split(template).right_hand  # lies at the left wrist
    np.testing.assert_allclose(
        parts.left_hand[:, 9, :2] - parts.left_hand[:, 0, :2], fit.hands * (old[:, 9, :2] - old[:, 0, :2])
    )


def test_absent_hands_stay_absent_and_invalid_frames_do_not_count(golden_npz):
    template, reference = _case(golden_npz, "full_to_tall")
    template = template.copy()
    template[1, LEFT_HAND] = 0
    template[2] = 0
    valid = np.array([True, True, False, True, True])
    parts, fit = retarget.auto(template, valid, (640, 360), reference, (360, 640))
    assert not parts.left_hand[1].any()
    assert not parts.body[2, :, 2].any()
    _, without = retarget.auto(template[valid], np.ones(4, bool), (640, 360), reference, (360, 640))
    assert fit.scale == without.scale


def test_nothing_in_common_falls_back_to_the_canvas():
    template, reference = np.zeros((3, 133, 3)), np.zeros((133, 3))
    template[:, :17] = (10, 10, 1)
    template[:, RIGHT_HAND] = 0
    _, fit = retarget.auto(template, np.ones(3, bool), SIZE, reference, CANVAS)
    assert fit.scale == 0.5
    assert (fit.ratios == 0.5).all()
    assert fit.anchor == "neck"


def test_off_fits_the_frame_into_the_canvas():
    template = np.zeros((1, 133, 3))
    template[0, 0] = (640, 480, 0.9)
    parts = retarget.off(template, SIZE, CANVAS)
    assert parts.body[0, 0].tolist() == [320, 360, 0.9]  # 320 x 240 in the middle of 320 x 480


@pytest.mark.parametrize("degrees", [90, 180, -90])
def test_a_body_that_is_not_upright_stays_in_the_picture(degrees):
    """Hung from the neck of a standing character, legs would leave the picture at the top or at a side."""
    standing = _person()
    angle, middle = np.radians(degrees), np.array([320.0, 240.0])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turned = standing.copy()
    turned[:, :2] = (standing[:, :2] - middle) @ turn.T + middle
    parts, fit = _auto(np.stack([turned] * 5), standing, (640, 480), (480, 480))
    assert fit.anchor == "middle"
    shown = parts.body[0, :14, :2]
    assert shown.min() > 0
    assert shown.max() < 480
    _, fit = _auto(np.stack([standing] * 3 + [turned] * 2), standing, (640, 480), (480, 480))
    assert fit.anchor != "middle"


def _person():
    """Somebody who stands in the middle of 640 x 480, 400 pixels high."""
    points = np.ones((133, 3))
    spots = {0: (0, -0.43), 1: (0.03, -0.45), 2: (-0.03, -0.45), 3: (0.06, -0.44), 4: (-0.06, -0.44), 5: (0.1, -0.3)}
    spots |= {
        6: (-0.1, -0.3),
        7: (0.13, -0.12),
        8: (-0.13, -0.12),
        9: (0.15, 0.04),
        10: (-0.15, 0.04),
        11: (0.07, 0.02),
    }
    spots |= {12: (-0.07, 0.02), 13: (0.08, 0.25), 14: (-0.08, 0.25), 15: (0.08, 0.46), 16: (-0.08, 0.46)}
    spots |= dict.fromkeys((17, 18, 19), (0.1, 0.5)) | dict.fromkeys((20, 21, 22), (-0.1, 0.5))
    for i in range(133):
        points[i, :2] = np.multiply(spots.get(i, (0, -0.4)), 400) + (320, 240)
    points[LEFT_HAND.start :, 2] = 0
    return points
