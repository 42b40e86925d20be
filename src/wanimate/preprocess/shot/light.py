"""The light of a shot: level, clipping, colour temperature, and whether it changes or mixes.

Colours are taken as BT.709 with a white of 6504 K, the camera's curve undone. So the temperature is that of the light as the
camera has balanced it: a camera that was balanced for tungsten shows tungsten light as 6500 K.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from wanimate.preprocess.shot.terms import Guess

Floats = npt.NDArray[np.float64]
Small = npt.NDArray[np.uint8]
Light = npt.NDArray[np.float32]

LIGHT_WIDTH = 160
"""Columns of the small picture of light."""
BLACK, WHITE = 0.02, 0.98
"""Luma below and above which a pixel counts as clipped."""
_CLIPPED, _DARK, _LEAST_LIGHT = 250, 0.02, 0.002
"""Code value from which on a pixel's colour is not trusted, light of the strongest channel below which it is noise, and the
light that a channel counts for at least."""
_LEAST, _FACE = 0.02, 12
"""A frame tells colours from this share of its pixels on, a face from so many."""
_BINS, _REACH = 129, 1.6
"""Cells of the table of chromaticities, a side, and the largest logarithm of red or blue over green in it."""
_BRIGHT, _SPREAD = 1.5, 0.06
"""Pixels weigh by this power of their brightness, since white things are among the brightest. White surfaces lie so far from
the locus, in logarithms of red and of blue over green."""
_SKIN, _SKIN_SPREAD = np.array([0.62, -0.38]), np.array([0.18, 0.16])
"""Logarithms of red and of blue over green of faces in neutral light: between the two skins of the ColorChecker, and their
spread over people."""
_SKY = 0.6
_ANYWHERE, _NO_FACE = 1e-5, 1e-4
_SHARP = 1.0
"""Power of the score whose share near the best candidate is the confidence
(benchmarks/results/shot_records_cpu_2026-11-30.md)."""
_MIXED, _BOTH_SURE = 0.3, 0.6
"""The halves' temperatures differ by this logarithm at least where light mixes, and both are as sure as this."""
_MIREDS = np.linspace(50.0, 600.0, 111)
"""Candidates of colour temperature: 20,000 K to 1,667 K, in reciprocal megakelvins."""
_LUMA = np.array([0.2126, 0.7152, 0.0722])


def small_light(small: Light) -> Light:
    """A small RGB picture [h, w, 3] of code values 0 to 255, not rounded, as light, 1 at white."""
    coded = small / 255
    curved = ((coded + 0.099) / 1.099) ** (1 / 0.45)
    return np.asarray(np.where(coded < 0.081, coded / 4.5, curved), dtype=np.float32)


def white_at(mired: float) -> Floats:
    """Light RGB [3] of a white surface under a Planckian radiator (below 4000 K), daylight (above 5000 K) or a mix, green 1.
    Chromaticities: Kim's cubic approximation of the Planckian locus, CIE daylight."""
    kelvin = 1e6 / mired
    mix = min(max((kelvin - 4000) / 1000, 0.0), 1.0)
    x, y = (1 - mix) * _planckian(kelvin) + mix * _daylight(max(kelvin, 4000.0))
    xyz = np.array([x / y, 1.0, (1 - x - y) / y])
    rgb = _TO_RGB @ xyz
    return np.asarray(np.maximum(rgb, 0.01) / max(rgb[1], 0.01))


def _planckian(kelvin: float) -> Floats:
    t = 1e3 / kelvin
    if kelvin < 4000:
        x = -0.2661239 * t**3 - 0.2343589 * t**2 + 0.8776956 * t + 0.179910
    else:
        x = -3.0258469 * t**3 + 2.1070379 * t**2 + 0.2226347 * t + 0.240390
    if kelvin < 2222:
        y = -1.1063814 * x**3 - 1.34811020 * x**2 + 2.18555832 * x - 0.20219683
    elif kelvin < 4000:
        y = -0.9549476 * x**3 - 1.37418593 * x**2 + 2.09137015 * x - 0.16748867
    else:
        y = 3.0817580 * x**3 - 5.87338670 * x**2 + 3.75112997 * x - 0.37001483
    return np.array([x, y])


def _daylight(kelvin: float) -> Floats:
    t = 1e3 / kelvin
    if kelvin <= 7000:
        x = -4.6070 * t**3 + 2.9678 * t**2 + 0.09911 * t + 0.244063
    else:
        x = -2.0064 * t**3 + 1.9018 * t**2 + 0.24748 * t + 0.237040
    return np.array([x, -3.0 * x**2 + 2.870 * x - 0.275])


_TO_RGB = np.array(
    [[3.2404542, -1.5371385, -0.4985314], [-0.9692660, 1.8760108, 0.0415560], [0.0556434, -0.2040259, 1.0572252]]
)
"""CIE XYZ to linear BT.709."""


def _locus() -> Floats:
    whites = np.stack([white_at(mired) for mired in _MIREDS])
    return np.asarray(np.log(whites[:, [0, 2]] / whites[:, 1:2]))


_LOCUS = _locus()


def _near(axis: int) -> Floats:
    edges = np.linspace(-_REACH, _REACH, _BINS + 1)
    middles = (edges[:-1] + edges[1:]) / 2
    return np.asarray(np.exp(-((middles[None] - _LOCUS[:, axis : axis + 1]) ** 2) / (2 * _SPREAD**2)))


_ROWS, _COLUMNS = _near(0), _near(1)
"""How near each cell's red and blue are to those of each candidate's white, [candidates, bins]."""


@dataclass
class Tally:
    """What the looked-at frames of a shot have shown. `chroma` [2, bins, bins]: of the left and the right half the weight of
    pixels by the logarithms of red and of blue over green; `faces`: the same logarithms of the performer's face; `skies`: the
    share of the picture's upper fifth that is bright, and no warmer than white."""

    lumas: list[float] = field(default_factory=list)
    blacks: list[float] = field(default_factory=list)
    whites: list[float] = field(default_factory=list)
    chroma: Floats = field(default_factory=lambda: np.zeros((2, _BINS, _BINS)))
    faces: list[Floats] = field(default_factory=list)
    skies: list[float] = field(default_factory=list)

    def add(self, small: Light, light: Light, hidden: Small | None, face: Small | None) -> None:
        """Take up a looked-at frame.

        Args:
            small: RGB code values [h, w, 3], 0 to 255, and `light` of them.
            hidden: [h, w], not 0 where the performer is, who counts for the level only. face: the same of their face.
        """
        luma = small @ _LUMA / 255
        self.lumas.append(float(luma.mean()))
        self.blacks.append(float((luma < BLACK).mean()))
        self.whites.append(float((luma > WHITE).mean()))
        top = max(1, len(small) // 5)
        self.skies.append(float(((luma[:top] > _SKY) & (small[:top, :, 2] >= small[:top, :, 0])).mean()))
        good = (small.max(axis=2) < _CLIPPED) & (light.max(axis=2) > _DARK)
        logs = _chroma_of(light)
        if face is not None and (on := good & (face > 0)).sum() >= _FACE:
            self.faces.append(np.median(logs[on], axis=0))
        if hidden is not None:
            good &= hidden == 0
        if good.mean() < _LEAST:
            return
        bright = light @ _LUMA.astype(np.float32)
        weights = np.minimum(bright / max(float(np.percentile(bright[good], 97)), 1e-4), 1.0) ** _BRIGHT
        middle = good.shape[1] // 2
        for half, part in enumerate((np.s_[:, :middle], np.s_[:, middle:])):
            cells = ((logs[part][good[part]].clip(-_REACH, 0.999 * _REACH) + _REACH) * (_BINS / 2 / _REACH)).astype(int)
            at = cells[:, 0] * _BINS + cells[:, 1]
            counted = np.bincount(at, weights[part][good[part]], _BINS * _BINS)
            self.chroma[half] += counted.reshape(_BINS, _BINS) / good.size


def _chroma_of(light: Light) -> npt.NDArray[np.float32]:
    """Logarithms of red and of blue over green [..., 2] of light [..., 3]."""
    logs = np.log(np.maximum(light, _LEAST_LIGHT))
    return np.asarray(logs[..., [0, 2]] - logs[..., 1:2])


def level(tally: Tally) -> dict[str, Guess]:
    """Mean luma of the code values, and the shares of pixels that are nearly black and nearly white: measured, not guessed."""
    if not tally.lumas:
        return {name: Guess(None, 0.0) for name in ("luma", "black", "white")}
    found = {"luma": tally.lumas, "black": tally.blacks, "white": tally.whites}
    return {name: Guess(round(float(np.mean(values)), 4), 1.0) for name, values in found.items()}


def temperature(tally: Tally, chroma: Floats | None = None) -> Guess:
    """Correlated colour temperature in K: where along the locus of whites most bright, near-neutral pixels lie, and the face
    has the colour of a face.

    Args:
        chroma: the part of `tally.chroma` that counts, [bins, bins]; None is all.
    """
    seen = tally.chroma.sum(axis=0) if chroma is None else chroma
    if not seen.any():
        return Guess(None, 0.0)
    score = np.einsum("tr,rc,tc->t", _ROWS, seen / seen.sum(), _COLUMNS) + _ANYWHERE
    if tally.faces:
        beside = (np.median(tally.faces, axis=0) - _LOCUS - _SKIN) / _SKIN_SPREAD
        score *= np.exp(-(beside**2).sum(axis=1) / 2) + _NO_FACE
    best = int(score.argmax())
    around = slice(max(best - 4, 0), best + 5)
    weights = (score[around] / score[best]) ** 8
    mired = float((weights * _MIREDS[around]).sum() / weights.sum())
    sharp = (score / score.max()) ** _SHARP
    near = np.abs(_MIREDS - mired) < 0.1 * mired
    return Guess(int(round(1e6 / mired, -1)), float(sharp[near].sum() / sharp.sum()))


def mixed(tally: Tally) -> Guess:
    """Whether the left and the right half of the picture are lit by light of different colour."""
    left, right = (temperature(tally, half) for half in tally.chroma)
    if left.value is None or right.value is None:
        return Guess(None, 0.0)
    apart = abs(math.log(left.value / right.value))
    sure = min(left.confidence, right.confidence)
    if apart > _MIXED and sure > _BOTH_SURE:
        return Guess(True, 0.5 * sure)
    return Guess(False, 0.5 * math.exp(-apart))


def changes(steps: Sequence[Sequence[float] | None]) -> Floats | None:
    """How the light of the same places has changed since the first looked-at frame: logarithms of red, green and blue [n, 3].

    Args:
        steps: from each looked-at frame to the next (`camera.LightChange`); None where nothing could be told.

    Returns:
        None where half of the steps or more tell nothing.
    """
    known = [step for step in steps if step is not None]
    if not known or len(known) <= len(steps) / 2:
        return None
    return np.concatenate([np.zeros((1, 3)), np.cumsum([(0.0,) * 3 if s is None else s for s in steps], axis=0)])


def drifts(path: Floats | None, kelvin: float | None, known: float) -> dict[str, Guess]:
    """`drift` in stops and `temperatureDrift` in K: how far the light goes within the shot.

    Args:
        path: as of `changes`. kelvin: of the shot. known: share of steps that tell something.
    """
    if path is None:
        return {"drift": Guess(None, 0.0), "temperatureDrift": Guess(None, 0.0)}
    smooth = _smoothed(path)
    stops = smooth @ _LUMA / math.log(2)
    found = {"drift": Guess(round(float(np.ptp(stops)), 3), 0.9 * known), "temperatureDrift": Guess(None, 0.0)}
    if kelvin is not None:
        white = white_at(1e6 / kelvin)
        chroma = (smooth - smooth[:, 1:2])[:, [0, 2]]
        around = np.log(white[[0, 2]] / white[1]) - chroma.mean(axis=0)
        seen = [_along(around + one) for one in chroma]
        found["temperatureDrift"] = Guess(int(round(max(seen) - min(seen), -1)), 0.6 * known)
    return found


def _along(chroma: Floats) -> float:
    """The temperature in K whose white is the nearest to a chroma [2]."""
    fine = np.interp(np.arange(0, len(_MIREDS) - 1, 0.1), np.arange(len(_MIREDS)), _MIREDS)
    locus = np.stack([np.interp(fine, _MIREDS, _LOCUS[:, i]) for i in range(2)], axis=1)
    return float(1e6 / fine[((locus - chroma) ** 2).sum(axis=1).argmin()])


def _smoothed(path: Floats) -> Floats:
    """The median of each value and its neighbours, so that a flash or a bad step does not count."""
    if len(path) < 3:
        return path
    padded = np.concatenate([path[:1], path, path[-1:]])
    return np.asarray(np.median(np.stack([padded[:-2], padded[1:-1], padded[2:]]), axis=0))
