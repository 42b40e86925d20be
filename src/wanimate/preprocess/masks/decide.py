"""From two networks' answers and a skeleton to one person's outline.

Where both networks agree, they are believed. Where they do not, and in a narrow band around the outline, colours decide
(GrabCut; Rother et al. 2004). The piece that holds the skeleton is the person.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from wanimate.preprocess.detect.litert import Array
from wanimate.preprocess.masks.base import Mask
from wanimate.types import Frame

# Weight of U2-Net's answer near the bones and far from them, where other things stand out; in shoulder widths.
_WEIGHT, _WEIGHT_FAR, _NEAR, _FAR = 0.5, 0.3, 0.15, 0.5
_REACH, _BEYOND = 0.9, 0.4
"""How far a person with its clothes reaches from its bones, and over what length beyond that the answers fade."""
_THRESHOLD = 0.45
_BAND, _THIN = 0.03, 0.01
"""Width of the band in which colours decide, as a share of the longer side; and where both networks see nothing."""
_AGREED, _CERTAIN = (0.9, 0.8), (0.95, 0.9)
"""U2-Net's and the selfie network's answers that together make a pixel the person's: inside of the band, and even in it."""
_NOT_SALIENT, _NOTHING = 0.1, 0.1

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Evidence:
    """What is known of a small frame [h, w]: the networks' answers 0..1, the skeleton's sure pixels, and the distance to
    it in shoulder widths."""

    salient: Array
    person: Array
    core: Mask
    away: Array


@dataclass(frozen=True)
class Decision:
    """The outline [h, w], and what led to it: `mean`, the weighted answer, and the pixels `open` that colours decided."""

    mask: Flags
    mean: Array
    open: Flags


def decide(picture: Frame, seen: Evidence) -> Decision:
    """The person in a small picture [h, w, 3]."""
    mean, core = blended(seen), seen.core > 0
    probable = attached(mean > _THRESHOLD, seen.core) | core
    band, thin = (max(round(share * max(probable.shape)), 1) for share in (_BAND, _THIN))
    depth_outside = _depth(~probable)
    inner, outer = _depth(probable) > band, depth_outside > band
    agreed, certain = ((seen.salient > salient) & (seen.person > person) for salient, person in (_AGREED, _CERTAIN))
    ours = (inner & agreed) | (probable & certain) | core
    nothing = np.maximum(seen.salient, seen.person) < _NOTHING
    others = outer & ((seen.salient < _NOT_SALIENT) | (seen.away > _REACH)) | (depth_outside > thin) & nothing
    others &= ~core
    mask = attached(_by_colours(picture, ours, others, probable, 2 * band), seen.core)
    return Decision(mask, mean, ~ours & ~others)


def blended(seen: Evidence) -> Array:
    """The weighted mean of both answers [h, w]."""
    far = np.clip((seen.away - _NEAR) / (_FAR - _NEAR), 0, 1)
    weight = _WEIGHT + (_WEIGHT_FAR - _WEIGHT) * far
    within = np.clip((_REACH + _BEYOND - seen.away) / _BEYOND, 0, 1)
    return np.asarray((weight * seen.salient + (1 - weight) * seen.person) * within, dtype=np.float32)


def attached(mask: Flags, core: Mask) -> Flags:
    """The pieces of a mask [h, w] that hold something of the skeleton; the whole mask where there is no skeleton."""
    if not core.any():
        return mask
    _, pieces = cv2.connectedComponents(mask.astype(np.uint8))
    return np.asarray(mask & np.isin(pieces, np.unique(pieces[(core > 0) & mask])))


def _depth(mask: Flags) -> Array:
    """The distance of a mask's pixels to its outside."""
    return np.asarray(cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 3), dtype=np.float32)


def _by_colours(picture: Frame, ours: Flags, others: Flags, probable: Flags, room: int) -> Flags:
    """`ours` and what of the open pixels has its colours rather than those of `others`."""
    labels = np.where(probable, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[others], labels[ours] = cv2.GC_BGD, cv2.GC_FGD
    x, y, wide, high = cv2.boundingRect((~others).astype(np.uint8))
    here = np.s_[max(y - room, 0) : y + high + room, max(x - room, 0) : x + wide + room]
    cut = np.ascontiguousarray(labels[here])
    if not (cut == cv2.GC_BGD).any() or not (cut == cv2.GC_FGD).any():
        return probable  # nothing certain on one side: no colours to learn
    cv2.setRNGSeed(0)  # it groups colours from random starts
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(np.ascontiguousarray(picture[here]), cut, None, *models, 1, cv2.GC_INIT_WITH_MASK)
    out = np.zeros(probable.shape, dtype=np.bool_)
    out[here] = (cut & 1) > 0  # foreground, certain or probable, is odd
    return out
