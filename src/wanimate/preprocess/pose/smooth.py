"""Smoothing keypoints over time without delay, by a confidence-weighted local fit (preprocess spec, section 18.5).

Every coordinate becomes the value of a parabola fitted to its neighbours before and after. Jitter goes, and fast movements
keep their reach. Nothing is fitted across frames without a person or across cuts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from wanimate.preprocess.pose.keypoints import LEFT_HAND, LEFT_WRIST, RIGHT_HAND, RIGHT_WRIST, runs, split, uncut
from wanimate.types import Keypoints

Flags = npt.NDArray[np.bool_]

_HOLD, _HOLDS = 3, 10
"""Something lost is kept for at most so many frames, and for at most one of so many parts of a second."""
_STILL = 0.25
"""Who moved by more than this part of the shoulders' width in the last frame is not held where they were."""
_SEEN = 0.5
# Widths of the fit in frames at 30 a second. The body may be slower than hands and face.
_BODY_SIGMA, _FINE_SIGMA = 1.5, 1.0


def smooth(keypoints: Keypoints, valid: Flags, fps: Fraction, cuts: Sequence[int] = ()) -> Keypoints:
    """Smoothed keypoints [n, 133, 3]; `valid` [n] tells which frames show somebody, `cuts` which begin a shot.

    Short losses are closed. A joint whose confidence drops for at most 3 frames stays drawn. A hand lost for at most 6
    frames is interpolated at its wrist; one lost for longer stays for 3. A lost person stays for 3, unless they were moving
    fast. At low rates it is as many frames as a tenth of a second has.
    """
    out, hold = keypoints.copy(), held(fps)
    for start, stop in stretches(keypoints, valid, cuts):
        part = out[start:stop]
        scale = body_scale(part)
        _bridge_joints(part[:, :23], hold)
        for hand, wrist in ((LEFT_HAND, LEFT_WRIST), (RIGHT_HAND, RIGHT_WRIST)):
            _bridge_hand(part[:, hand], part[:, wrist], hold)
        weights = np.clip(part[..., 2], 0, 1)
        weights[_spikes(part[..., :2], scale)] = 0
        factor = float(fps) / 30
        part[:, :23, :2] = _fit(part[:, :23, :2], weights[:, :23], _BODY_SIGMA * factor)
        part[:, 23:, :2] = _fit(part[:, 23:, :2], weights[:, 23:], _FINE_SIGMA * factor)
        # The arm still ends where its hand begins.
        for hand, wrist in ((LEFT_HAND, LEFT_WRIST), (RIGHT_HAND, RIGHT_WRIST)):
            shown = part[:, hand.start, 2] > 0
            part[shown, wrist, :2] = part[shown, hand.start, :2]
    for start, stop in uncut(runs(~valid), cuts):
        if start > 0 and start not in cuts and not _moving(out[max(start - 2, 0) : start]):
            out[start : min(stop, start + hold)] = out[start - 1]
    return out


def held(fps: Fraction) -> int:
    """Frames for which something lost is kept before it vanishes."""
    return min(_HOLD, math.ceil(fps / _HOLDS))


def _moving(last: Keypoints) -> bool:
    """Whether the body moved fast from the first to the second of the last frames [1 or 2, 133, 3]."""
    return len(last) == 2 and _step(split(last).body)[0] > _STILL * body_scale(last)


def _step(body: Keypoints) -> npt.NDArray[np.float64]:
    """How far a typical sure joint of bodies [n, 20, 3] moves to the next frame [n - 1]."""
    sure = np.minimum(body[1:, :, 2], body[:-1, :, 2]) >= _SEEN
    step = np.hypot(*np.moveaxis(body[1:, :, :2] - body[:-1, :, :2], -1, 0))
    return np.array([np.median(s[k]) if k.any() else 0.0 for s, k in zip(step, sure, strict=True)])


def body_scale(keypoints: Keypoints) -> float:
    """A length in pixels that stands for the size of the person of frames [n, 133, 3]: about the width of the shoulders."""
    body = split(keypoints).body
    shoulders = np.hypot(*(body[:, 2, :2] - body[:, 5, :2]).T)
    head = np.hypot(*(body[:, 0, :2] - body[:, 1, :2]).T)
    return float(np.median(np.maximum(shoulders, head)))


def stretches(keypoints: Keypoints, valid: Flags, cuts: Sequence[int] = ()) -> list[tuple[int, int]]:
    """Runs of valid frames (start, stop), split at cuts and where the whole body jumps by more than its shoulder width."""
    out = []
    for start, stop in uncut(runs(valid), cuts):
        scale = body_scale(keypoints[start:stop])
        body = split(keypoints[start:stop]).body
        edges = [start, *(start + 1 + np.flatnonzero(_step(body) > scale)), stop]
        out += [(int(a), int(b)) for a, b in pairwise(edges)]
    return out


def _bridge_joints(points: Keypoints, hold: int) -> None:
    """Losses of confidence of up to `hold` frames, seen before and after, are closed; the positions stay as estimated."""
    for joint in range(points.shape[1]):
        confidence = points[:, joint, 2]
        for start, stop in runs(confidence < _SEEN):
            if start > 0 and stop < len(points) and stop - start <= hold:
                confidence[start:stop] = min(confidence[start - 1], confidence[stop])


def _bridge_hand(hand: Keypoints, wrist: npt.NDArray[np.float64], hold: int) -> None:
    """Carries a hand [n, 21, 3] over short losses, its shape hanging at the wrist [n, 3] if that is seen."""
    there = hand[:, 0, 2] > 0
    shape = hand - hand[:, :1] * (1, 1, 0)
    for start, stop in runs(~there):
        first, last = start > 0, stop < len(hand)
        for i in range(start, stop):
            after, ahead = i - start + 1, stop - i
            if wrist[i, 2] < _SEEN:
                continue
            if first and last and stop - start <= 2 * hold:
                new = (shape[start - 1] * ahead + shape[stop] * after) / (after + ahead)
            elif first and after <= hold:
                new = shape[start - 1]
            elif last and ahead <= hold:
                new = shape[stop]
            else:
                continue
            hand[i] = new + wrist[i] * (1, 1, 0)


def _spikes(xy: npt.NDArray[np.float64], scale: float) -> Flags:
    """Points [n, k] that leave for one frame and come back."""
    out = np.zeros(xy.shape[:2], dtype=bool)
    if len(xy) >= 3:
        away = np.hypot(*np.moveaxis(xy[1:-1] - (xy[:-2] + xy[2:]) / 2, -1, 0))
        across = np.hypot(*np.moveaxis(xy[2:] - xy[:-2], -1, 0))
        out[1:-1] = away > 0.25 * scale + 2 * across
    return out


def _fit(xy: npt.NDArray[np.float64], weights: npt.NDArray[np.float64], sigma: float) -> npt.NDArray[np.float64]:
    """Weighted local parabolas through xy [n, k, 2], evaluated at each frame; weights [n, k] in 0..1.

    Where too few neighbours are sure, a light ridge on slope and curvature turns the fit into a weighted mean; where
    none is, the point stays.
    """
    radius = max(int(np.ceil(2 * sigma)), 1)
    lags = np.arange(-radius, radius + 1)
    basis = np.stack([np.ones(len(lags)), lags / radius, (lags / radius) ** 2], axis=1)
    kernel = np.exp(-0.5 * (lags / sigma) ** 2)
    padded = np.pad(weights, ((radius, radius), (0, 0)))
    window = np.lib.stride_tricks.sliding_window_view(padded, len(lags), axis=0) * kernel
    values = np.lib.stride_tricks.sliding_window_view(np.pad(xy, ((radius, radius), (0, 0), (0, 0))), len(lags), axis=0)
    normal = np.einsum("nkl,li,lj->nkij", window, basis, basis) + np.diag([1e-9, 1e-3, 1e-3])
    right = np.einsum("nkl,nkcl,li->nkic", window, values, basis)
    fitted = np.linalg.solve(normal, right)[..., 0, :]
    enough = window.sum(axis=-1) > 1e-3
    return np.where(enough[..., None], fitted, xy)
