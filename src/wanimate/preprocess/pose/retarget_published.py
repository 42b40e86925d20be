"""Retargeting exactly as published (preprocess spec, section 13): golden-exact, defects included.

One length ratio a bone comes from the first frame and the reference; every frame keeps its bone angles and is rebuilt
from the neck. It is fragile (section 13, "fails or degrades"); `retarget.auto` is the default for that reason.
Points are pixels of their own picture; a missing joint is NaN.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from wanimate.preprocess.pose.keypoints import LIMBS, Parts, Points, split
from wanimate.types import Keypoints

Class = Literal["full_body", "three_quarter_body", "half_body"]
_CLASSES: tuple[Class, ...] = ("half_body", "three_quarter_body", "full_body")
_Ratios = npt.NDArray[np.float64]
_Size = tuple[int, int]

_CHAINS = ((2, 3, 4), (5, 6, 7), (11, 12, 13, 18), (8, 9, 10, 19))
_ONE_SIDE = ((2, 3), (3, 4), (11, 12), (12, 13), (13, 18))
_OTHER_SIDE = ((5, 6), (6, 7), (8, 9), (9, 10), (10, 19))
_HEAD = (0, 14, 15, 16, 17)


@dataclass(frozen=True)
class Fit:
    """What retargeting found: ratio a bone [19], the scale s, the body class both pictures allow, the translation."""

    ratios: _Ratios
    scale: float
    body_class: Class
    offset: tuple[float, float]


def retarget(
    template: Keypoints,
    template_size: _Size,
    reference: Keypoints,
    reference_size: _Size,
    edits: tuple[Keypoints, Keypoints] | None = None,
    first: int = 0,
) -> tuple[Parts, Fit]:
    """Template points [n, 133, 3] in pixels of `template_size` to pixels of `reference_size`.

    Args:
        reference: the character's points [133, 3].
        first: the frame the ratios come from; published is 0, which has to show the person.
        edits: points of an edited first frame and an edited reference (same sizes); they then give the ratios.

    Returns:
        Parts with body [n, 20, 3] and hands [n, 21, 3] (dropped points are NaN, NaN, 0); the face is passed unchanged.
        The left and right hand hold the hand drawn at the subject's left and right wrist.
    """
    parts, ref = split(template), split(reference).body
    start = parts.body[first]
    fit = _fit(start, template_size, ref, reference_size, edits)
    body = np.stack([_frame(b, fit) for b in parts.body])
    missing = np.isnan(start[:, 0]) | np.isnan(ref[:, 0])
    body[:, missing] = (np.nan, np.nan, 0.0)
    pairs = [
        _hands(parts.at(i), new, template_size, max(fit.ratios[0], fit.ratios[1]) / fit.scale)
        for i, new in enumerate(body)
    ]
    left, right = (np.stack([pair[k] for pair in pairs]) for k in (0, 1))
    return Parts(body, left, right, parts.face), fit


def _fit(first: Points, size: _Size, ref: Points, ref_size: _Size, edits: tuple[Keypoints, Keypoints] | None) -> Fit:
    scale, _ = _scale(first, size, ref, ref_size)
    scaled_size = (int(ref_size[0] * scale), int(ref_size[1] * scale))
    scaled_ref = _resized(ref, ref_size, scaled_size)
    body_class = _CLASSES[min(_CLASSES.index(classify(b, s[1])) for b, s in ((ref, ref_size), (first, size)))]
    if edits is None:
        ratios = bone_ratios(fill_missing(first), fill_missing(scaled_ref))
    else:
        edited, edited_ref = (split(e).body for e in edits)
        edit_scale, by_canvas = _scale(edited, size, edited_ref, ref_size)
        edit_size = (int(ref_size[0] * edit_scale), int(ref_size[1] * edit_scale))
        gain = 1.0
        if by_canvas:
            gain = _compensation(ref, edited_ref, ref_size) / _compensation(first, edited, size)
        measured = bone_ratios(fill_missing(edited), fill_missing(_resized(edited_ref, ref_size, edit_size)))
        ratios = np.where(measured >= 0, measured * gain, measured)
    ratios = symmetric(ratios)
    chained = chain(first, ratios)
    if body_class == "full_body":
        feet = [(scaled_ref[a, 1] + scaled_ref[t, 1]) / 2 for a, t in ((13, 18), (10, 19))]
        if np.isnan(feet).any():
            feet = [scaled_ref[10, 1], scaled_ref[13, 1]]
        dx = (chained[8, 0] + chained[11, 0]) / 2 - (scaled_ref[8, 0] + scaled_ref[11, 0]) / 2
        dy = max(chained[10, 1], chained[13, 1]) - max(feet)
    else:
        dx, dy = chained[1, :2] - scaled_ref[1, :2]
    return Fit(ratios, scale, body_class, (float(dx), float(dy)))


def _scale(first: Points, size: _Size, ref: Points, ref_size: _Size) -> tuple[float, bool]:
    """Size of the template's person over the reference's (step 1), and whether only the canvases could tell."""
    for low, high in ((10, 13), (8, 11)):
        if all(p[j, 2] > 0.5 for p in (first, ref) for j in (0, low, high)):
            tall, tall_ref = (abs((p[low, 1] + p[high, 1]) / 2 - p[0, 1]) for p in (first, ref))
            return float(tall / tall_ref), False
    return float(np.sqrt(size[0] * size[1]) / np.sqrt(ref_size[0] * ref_size[1])), True


def _resized(body: Points, size: _Size, new: _Size) -> Points:
    out = body.copy()
    out[:, :2] *= (new[0] / size[0], new[1] / size[1])
    return out


def classify(body: Points, height: int) -> Class:
    """How much of a body a picture shows (step 3): confidence from 0.4 on, and not below the lower edge."""

    def seen(joint: int) -> bool:
        return bool(body[joint, 2] >= 0.4 and body[joint, 1] / height <= 1)

    if not (seen(8) and seen(11)):
        return "half_body"
    return "full_body" if seen(10) and seen(13) else "three_quarter_body"


def fill_missing(body: Points) -> Points:
    """Missing joints (NaN) of arms and legs, hung straight down from their parents (step 4); those have no confidence.

    What lies beyond a missing joint counts as missing; a limb whose root is missing stays so.
    """
    out = body.copy()
    for links in _CHAINS:
        gone = False
        for joint in links:
            gone = gone or bool(np.isnan(out[joint, 0]))
            if gone:
                out[joint] = np.nan

    def length(i: int, j: int) -> float:
        return float(np.hypot(*(out[i, :2] - out[j, :2])))

    for bones, mirrors in ((_ONE_SIDE, _OTHER_SIDE), (_OTHER_SIDE, _ONE_SIDE)):
        for (parent, child), mirror in zip(bones, mirrors, strict=True):
            if np.isnan(out[parent, 0]) or not np.isnan(out[child, 0]):
                continue
            drop = length(*mirror)
            if np.isnan(drop):
                arm, foot = parent in (2, 3, 5, 6), child in (18, 19)
                right, left = length(1, 8), length(1, 11)
                drop = float(np.fmax(right / (2 if arm else 1), left / (2 if arm else 5 if foot else 1)))
            if not np.isnan(drop):
                out[child] = (out[parent, 0], out[parent, 1] + drop, np.nan)
    return out


def bone_ratios(first: Points, ref: Points) -> _Ratios:
    """Reference length over template length of each limb (step 5); -1 where a joint is missing and cannot be guessed.

    Limbs with a missing end take the mean of both shoulder ratios when those exist.
    """
    a, b = np.array(LIMBS).T
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios: _Ratios = np.hypot(*(ref[a, :2] - ref[b, :2]).T) / np.hypot(*(first[a, :2] - first[b, :2]).T)
    lost = np.isnan(ratios)
    ratios[lost] = -1.0
    if not (lost[0] or lost[1]):
        ratios[lost] = (ratios[0] + ratios[1]) / 2
    return ratios


def symmetric(ratios: _Ratios) -> _Ratios:
    """Left and right made equal: the larger one for torso and limbs, the mean for the head (step 6)."""
    out = ratios.copy()
    for i, j in ((0, 1), (2, 4), (3, 5), (6, 9), (7, 10), (8, 11), (17, 18)):
        out[i] = out[j] = max(ratios[i], ratios[j])
    for i, j in ((13, 15), (14, 16)):
        out[i] = out[j] = (ratios[i] + ratios[j]) / 2
    return out


def _compensation(body: Points, edited: Points, size: _Size) -> float:
    """How much larger the person is than in the edited picture, by head and by shoulders (step 1)."""

    def head(b: Points) -> float:
        return float(np.ptp(b[list(_HEAD), 0]) / size[0])

    def shoulders(b: Points) -> float:
        return float(np.hypot(*(b[5, :2] - b[2, :2])))

    return max(head(body) / head(edited), shoulders(body) / shoulders(edited))


def chain(body: Points, ratios: _Ratios) -> Points:
    """The body rebuilt from the neck: directions kept, lengths times `ratios` (step 7). [20, 3] -> [20, 3]."""
    out = body.copy()
    for (parent, child), ratio in zip(LIMBS, ratios, strict=True):
        out[child, :2] = out[parent, :2] + ratio * (body[child, :2] - body[parent, :2])
    return out


def _frame(body: Points, fit: Fit) -> Points:
    """One frame in reference pixels (step 9); a foot is never longer than half of its shin."""
    ratios = fit.ratios.copy()
    for foot, shin in ((18, 8), (17, 11)):
        (ankle, toe), (knee, _) = LIMBS[foot], LIMBS[shin]
        length = np.hypot(*(body[toe, :2] - body[ankle, :2]))
        limit = 0.5 * ratios[shin] * np.hypot(*(body[ankle, :2] - body[knee, :2]))
        if length * ratios[foot] > limit:
            ratios[foot] = limit / length
    out = chain(body, ratios)
    out[:, :2] = (out[:, :2] - fit.offset) / fit.scale
    return out


def _hands(frame: Parts, body: Points, size: _Size, ratio: float) -> tuple[Points, Points]:
    """(left, right) hand [21, 3] of one frame, in whole reference pixels (step 10)."""
    right, right_root = _scaled_hand(frame.right_hand, ratio, size)
    left, left_root = _scaled_hand(frame.left_hand, ratio, size)
    old_right, old_left = frame.body[4, :2], frame.body[7, :2]
    offset_right = body[4, :2] - (old_right if right_root is None else right_root)
    offset_left = body[7, :2] - (old_left if left_root is None else left_root)
    root = np.array([-size[0], -size[1]], dtype=np.float64) if right_root is None else right_root
    if np.hypot(*(old_right - root)) > np.hypot(*(old_left - root)):
        left, right = right, left  # the offsets stay: a published defect (section 15, number 17)
    for hand, offset in ((left, offset_left), (right, offset_right)):
        hand[:, :2] = np.trunc(hand[:, :2] + offset)
    return left, right


def _scaled_hand(hand: Points, ratio: float, size: _Size) -> tuple[Points, npt.NDArray[np.float64] | None]:
    """The hand scaled about its wrist, unsure points dropped; and the wrist, if it is sure."""
    out, wrist = hand.copy(), hand[0, :2].copy()
    out[:, :2] = wrist + ratio * (hand[:, :2] - wrist)
    out[hand[:, 2] < 0.4] = (np.nan, np.nan, 0.0)
    return out, None if hand[0, 2] < 0.4 else wrist
