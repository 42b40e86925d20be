"""The performer's movement on the character's proportions, robustly (preprocess spec, section 18.8).

As published, every limb keeps its direction and gets the character's length, and the body is rebuilt from the neck.
Unlike there, lengths are high percentiles over all frames, only limbs seen with confidence count, left and right are
averaged instead of maximised, and no limb differs from the whole body's scale by more than a factor of two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from wanimate.media.resize import letterbox_placement
from wanimate.preprocess.pose.keypoints import LIMBS, Parts, Points, move, split
from wanimate.preprocess.pose.retarget_published import chain
from wanimate.types import Keypoints

_SURE = 0.5
_PERCENTILE = 90
_LIMIT = 2.0
_HAND_LIMIT = 1.6
_GROUND_SHARE = 0.8
_PAIRS = ((0, 1), (2, 4), (3, 5), (6, 9), (7, 10), (8, 11), (13, 15), (14, 16), (17, 18))
_TORSO = (0, 1, 6, 9, 12)
_FEET = ((13, 18), (10, 19))

Size = tuple[int, int]
_Lengths = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Fit:
    """What `auto` found. All factors are character pixels over performer pixels.

    ratios [19] a limb; `scale` of the torso; `hands` of both hands; `anchor` is placed on the
    character: the ground under the feet, or the neck. "middle" is that of the body, placed on that of the canvas.
    """

    ratios: _Lengths
    scale: float
    hands: float
    anchor: Literal["ground", "neck", "middle"]


def auto(
    template: Keypoints, valid: npt.NDArray[np.bool_], template_size: Size, reference: Keypoints, reference_size: Size
) -> tuple[Parts, Fit]:
    """Performer points [n, 133, 3] in pixels of their frames to points on the character's canvas.

    Args:
        valid: frames that show somebody [n]; at least one.
        reference: the character's points [133, 3] in pixels of `reference_size`, which is the canvas.

    At the median over all frames the neck lies where the character's is, and it moves by the torso's scale. Where both show
    their feet, the ground under them decides the height instead. Where the performer is not upright for most of the time
    (lies, stands on their hands, turns over), the middle of the body lies at the median in the middle of the canvas: a body
    that hangs up or sideways from a standing character's neck would leave the picture. Confidences are the performer's.
    """
    parts, character = split(template), split(reference)
    scale, ratios = _ratios(parts.body[valid], template_size, character.body, reference_size)
    hands = _hand_ratio(parts, valid, character, scale)
    body = np.stack([chain(b, _with_short_feet(b, ratios)) for b in parts.body])
    neck = parts.body[:, 1, :2]
    upright = _is_upright(parts.body[valid])
    at = character.body[1, :2] if upright else np.array(reference_size) / 2 - _middle(body[valid])
    new_neck = at + scale * (neck - np.median(neck[valid], axis=0))
    body[..., :2] += (new_neck - body[:, 1, :2])[:, None]
    feet = _shows_feet(parts.body[valid], template_size) and _shows_feet(character.body[None], reference_size)
    grounded = upright and feet
    if grounded:
        old = _ground(parts.body)
        drop = _ground(character.body[None])[0] + scale * (old - np.percentile(old[valid], _PERCENTILE))
        body[..., 1] += (drop - _ground(body))[:, None]
    left, right = _nearest_wrist(parts)
    placed = [_at_wrist(hand, body[:, joint], hands) for hand, joint in ((left, 7), (right, 4))]
    fit = Fit(ratios, scale, hands, "ground" if grounded else "neck" if upright else "middle")
    return Parts(body, placed[0], placed[1], parts.face), fit


def mismatch(
    template: Keypoints, valid: npt.NDArray[np.bool_], template_size: Size, reference: Keypoints, reference_size: Size
) -> float:
    """How much two people's proportions differ: the largest factor by which a limb departs from the whole body, >= 1.

    Arguments as of `auto`. Limbs that one of the two does not show with confidence count as equal.
    """
    scale, ratios = _ratios(split(template).body[valid], template_size, split(reference).body, reference_size)
    return float(np.exp(np.abs(np.log(ratios / scale)).max()))


def off(template: Keypoints, template_size: Size, size: Size) -> Parts:
    """The performer's own proportions: its frame fitted into the canvas, as a letterboxed video would be."""
    place = letterbox_placement(*template_size, *size)
    return split(move(template, (place.scale_x, place.scale_y), (place.offset_x, place.offset_y)))


def _sure(body: Points, size: Size) -> npt.NDArray[np.bool_]:
    """Joints [..., 20] that are confident and inside."""
    x, y, confidence = np.moveaxis(body, -1, 0)
    return np.asarray((confidence >= _SURE) & (x >= 0) & (x <= size[0]) & (y >= 0) & (y <= size[1]))


def _lengths(body: Points, size: Size) -> _Lengths:
    """A long-but-not-longest length of each limb over frames [n, 20, 3]; NaN where it was hardly ever sure."""
    a, b = np.array(LIMBS).T
    sure = _sure(body, size)
    lengths = np.hypot(*np.moveaxis(body[:, a, :2] - body[:, b, :2], -1, 0))
    both = sure[:, a] & sure[:, b] & (lengths > 0)
    enough = max(1, min(3, len(body) // 3))
    seen = [length[k] for length, k in zip(lengths.T, both.T, strict=True)]
    return np.array([np.percentile(s, _PERCENTILE) if len(s) >= enough else np.nan for s in seen])


def _ratios(body: Points, size: Size, reference: Points, reference_size: Size) -> tuple[float, _Lengths]:
    """Scale of the torso, and the factor of each limb: equal left and right, clamped around the scale."""
    old, new = _lengths(body, size), _lengths(reference[None], reference_size)
    torso = (new / old)[list(_TORSO)]
    if np.isfinite(torso).any():
        scale = float(np.exp(np.nanmedian(np.log(torso))))
    else:
        scale = letterbox_placement(*size, *reference_size).scale_x
    for pair in _PAIRS:
        i = list(pair)
        if np.isfinite(old[i]).any():
            old[i] = np.nanmax(old[i])
        if np.isfinite(new[i]).any():
            # In one picture the shorter of two equal limbs is the one seen at an angle, so it counts less.
            seen = new[i][np.isfinite(new[i])]
            new[i] = np.average(seen, weights=seen**2)
    ratios = np.where(np.isfinite(new / old), new / old, scale)
    return scale, np.clip(ratios, scale / _LIMIT, scale * _LIMIT)


def _with_short_feet(body: Points, ratios: _Lengths) -> _Lengths:
    """As published: a foot is at most half as long as its shin."""
    out = ratios.copy()
    for foot, shin in ((18, 8), (17, 11)):
        (ankle, toe), (knee, _) = LIMBS[foot], LIMBS[shin]
        length = ratios[foot] * np.hypot(*(body[toe, :2] - body[ankle, :2]))
        limit = 0.5 * ratios[shin] * np.hypot(*(body[ankle, :2] - body[knee, :2]))
        if length > limit:
            out[foot] *= limit / length
    return out


def _is_upright(body: Points) -> bool:
    """Whether the trunk points down, within 60 degrees, in most of the frames [n, 20, 3] that show it; True if none does."""
    shown = body[body[:, [1, 8, 11], 2].min(axis=1) >= _SURE, :, :2]
    trunk = (shown[:, 8] + shown[:, 11]) / 2 - shown[:, 1]
    return bool(np.median(trunk[:, 1] - 0.5 * np.hypot(*trunk.T)) >= 0) if len(trunk) else True


def _middle(body: Points) -> _Lengths:
    """From the neck to the middle of the box around the sure joints [2], at the median over frames [n, 20, 3]."""
    places = np.where((body[..., 2] >= _SURE)[..., None], body[..., :2], body[:, 1:2, :2])
    return np.asarray(np.median((places.min(axis=1) + places.max(axis=1)) / 2 - body[:, 1, :2], axis=0))


def _shows_feet(body: Points, size: Size) -> bool:
    """Whether both ankles are seen with confidence in most frames."""
    return bool(_sure(body, size)[:, [10, 13]].all(axis=1).mean() >= _GROUND_SHARE)


def _ground(body: Points) -> _Lengths:
    """y of the lower foot in frames [n, 20, 3]: the middle of ankle and toe, on both pictures alike."""
    feet = [(body[:, ankle, 1] + body[:, toe, 1]) / 2 for ankle, toe in _FEET]
    return np.asarray(np.maximum(feet[0], feet[1]))


def _palm(hand: Points) -> _Lengths:
    """Size of hands [n, 21, 3]: wrist to the farthest of the four knuckles; NaN where the hand is not there."""
    spokes = np.hypot(*np.moveaxis(hand[:, [5, 9, 13, 17], :2] - hand[:, :1, :2], -1, 0))
    seen = hand[:, [0, 5, 9, 13, 17], 2].min(axis=1) >= _SURE
    return np.where(seen, spokes.max(axis=1), np.nan)


def _hand_ratio(parts: Parts, valid: npt.NDArray[np.bool_], character: Parts, scale: float) -> float:
    old = np.concatenate([_palm(parts.left_hand[valid]), _palm(parts.right_hand[valid])])
    new = np.concatenate([_palm(character.left_hand[None]), _palm(character.right_hand[None])])
    if not (np.isfinite(old).any() and np.isfinite(new).any()):
        return scale
    ratio = float(np.nanmax(new) / np.nanpercentile(old, _PERCENTILE))
    return min(max(ratio, scale / _HAND_LIMIT), scale * _HAND_LIMIT)


def _nearest_wrist(parts: Parts) -> tuple[Points, Points]:
    """(left, right) hands [n, 21, 3], exchanged in frames where each lies at the other wrist."""
    left, right = parts.left_hand, parts.right_hand
    wrists = {"left": parts.body[:, 7, :2], "right": parts.body[:, 4, :2]}

    def gap(hand: Points, side: str) -> _Lengths:
        return np.where(hand[:, 0, 2] > 0, np.hypot(*(hand[:, 0, :2] - wrists[side]).T), 0.0)

    kept, exchanged = gap(left, "left") + gap(right, "right"), gap(left, "right") + gap(right, "left")
    swap = (exchanged < kept)[:, None, None]
    return np.where(swap, right, left), np.where(swap, left, right)


def _at_wrist(hand: Points, wrist: Points, ratio: float) -> Points:
    """Hands [n, 21, 3] scaled and moved to the arm's new end [n, 3]; hands that are not there stay zero."""
    out = hand.copy()
    out[..., :2] = wrist[:, None, :2] + ratio * (hand[..., :2] - hand[:, :1, :2])
    out[hand[:, 0, 2] <= 0] = 0
    return out
