"""How a person is lit, and how far that is from the truth: light colour, shading, and what is left without either.

Frames are uint8 RGB [n, H, W, 3], taken as linear in light, as the renderer's are; `inside` is bool [n, H, W]. Every function
says what its number is. Errors are percentages: 100 times the mean absolute, or root mean square, logarithm of a ratio.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from wanimate.measure.metrics import Array, Mask, lab
from wanimate.types import Frames

_LEVEL = 1 / 255
"""Added to every brightness before its logarithm is taken."""


@dataclass(frozen=True)
class RegionColour:
    """Mean RGB [3] in 0..1 over so many pixels of one region."""

    rgb: Array
    pixels: int


Colours = Mapping[int, RegionColour]


def region_colours(
    frames: Frames, region: npt.NDArray[np.uint8], inside: Mask, least: int = 60
) -> dict[int, RegionColour]:
    """Mean colour of each region code of `region` [n, H, W] with at least so many pixels inside."""
    found = {}
    for code in np.unique(region[inside]).tolist():
        pixels = frames[inside & (region == code)]
        if len(pixels) >= least:
            found[code] = RegionColour(np.asarray(pixels.mean(0, dtype=np.float64)) / 255, len(pixels))
    return found


def light_colour(colours: Colours, albedo: Colours) -> Array:
    """What falls on a person, [3]: the regions' colours over their albedo's, each sum weighted by the albedo's pixels.

    `colours` may come from another picture of the person than `albedo`; regions that one of them lacks do not count.
    """
    both = [code for code in albedo if code in colours]
    weights = [albedo[code].pixels for code in both]
    ours, own = (np.average([c[code].rgb for code in both], axis=0, weights=weights) for c in (colours, albedo))
    return np.asarray((ours + _LEVEL) / (own + _LEVEL))


def gain_error(light: Array, truth: Array) -> float:
    """How far a light's colour is from the true one, brightness and tint: mean over channels of |ln ratio|, in percent."""
    return float(100 * np.abs(np.log(light / truth)).mean())


def tint_error(light: Array, truth: Array) -> float:
    """The angle between two lights' colours in degrees: tint without brightness."""
    cosine = light @ truth / (np.linalg.norm(light) * np.linalg.norm(truth))
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def shading_error(frames: Frames, truth: Frames, inside: Mask, sigma: float) -> float:
    """How far light and shade over the body are from the true ones: root mean square inside of ln(ours / true), of brightness
    blurred by `sigma` pixels within the body, less its mean over the clip, in percent."""
    ratio = np.log(_blurred(_grey(frames), inside, sigma) / _blurred(_grey(truth), inside, sigma))
    within = ratio[inside]
    return float(100 * (within - within.mean()).std())


def paint_error(colours: Colours, truth: Colours) -> float:
    """How far the regions' own colours are from the true ones once light is taken out: CIE76 difference of each region's mean
    colour after one gain a channel has brought the whole body to the true one's, mean over regions weighted by their pixels."""
    gain = light_colour(colours, truth)
    both = [code for code in truth if code in colours]
    errors = [float(np.linalg.norm(lab(255 * colours[c].rgb / gain) - lab(255 * truth[c].rgb))) for c in both]
    return float(np.average(errors, weights=[truth[c].pixels for c in both]))


def pattern_error(frames: Frames, truth: Frames, inside: Mask, sigma: float) -> float:
    """How far patterns and contours are from the true ones once light and shade are taken out: mean absolute difference inside,
    in levels, after each channel has been brought to the true one's brightness blurred by `sigma` pixels."""
    total = 0.0
    for channel in range(3):
        ours, theirs = (v[..., channel].astype(np.float64) / 255 for v in (frames, truth))
        even = (ours + _LEVEL) * _blurred(theirs, inside, sigma) / _blurred(ours, inside, sigma) - _LEVEL
        total += float(np.abs(even.clip(0, 1) - theirs)[inside].mean())
    return 255 * total / 3


def _grey(frames: Frames) -> Array:
    return np.asarray(frames @ np.array([0.2126, 0.7152, 0.0722]) / 255)


def _blurred(brightness: Array, inside: Mask, sigma: float) -> Array:
    """Brightness [n, H, W] plus one level, blurred over what is inside alone; 1 outside."""
    made = np.ones_like(brightness)
    for picture, b, m in zip(made, brightness, inside.astype(np.float64), strict=True):
        top, low = (cv2.GaussianBlur(x, (0, 0), sigma, borderType=cv2.BORDER_CONSTANT) for x in ((b + _LEVEL) * m, m))
        picture[m > 0] = (top / np.maximum(low, 1e-12))[m > 0]
    return made
