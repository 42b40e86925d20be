"""Where a clip is cut: the picture changes as a whole, at a stroke and for good.

The colours change, hardly any textured part of the picture is found again near its place, the frames before and after change
less among themselves, and what was there does not come back. A flash, a light that goes on, a quick dancer and a whipped
camera each lack one of these.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from wanimate.preprocess.people.appearance import Appearance, distance, histogram
from wanimate.types import Frame

_SIZE = 64, 36
_BLOCK, _REACH = 6, 6
"""Parts of the small picture, and how far around their place they are looked for: a tenth of its width."""
_CONTRAST, _ALIKE, _AS_BRIGHT = 4.0, 0.8, 15.0
"""Parts with a smaller deviation are flat and do not count. A part is found again where it correlates by the second and
is as bright, up to the third, in pictures of the same mean and deviation."""
_DEVIATION = 40.0
_COLOURS, _FOUND = 0.12, 0.45
"""At a cut the colours are at least so far apart, and at most this share of the parts is found again. Quick dancers reach
0.08 and 0.38, cuts between pictures of one room 0.2 and 0.2 (benchmarks/results/pose_cpu_2026-11-30.md)."""
_TRADE = 0.4
"""The farther the colours are apart, the more parts may look alike by chance: so much more for each unit."""
_STROKE = 2.0
"""Colours change by at least so many times more than in the frame before and in the one after."""
_AROUND = 3
"""So many frames before and after the two at a cut are looked at. A flash is over by then."""

_Grey = npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Small:
    grey: _Grey
    colours: Appearance


def with_cuts(frames: Iterable[Frame]) -> Iterator[tuple[bool, Frame]]:
    """(whether it begins a new shot, the frame) for frames [H, W, 3]. The first one begins none. It reads 3 frames ahead."""
    coming, ahead, behind = iter(frames), deque[tuple[Frame, _Small]](), deque[_Small](maxlen=1 + _AROUND)
    while True:
        while len(ahead) <= _AROUND and (frame := next(coming, None)) is not None:
            ahead.append((frame, _small(frame)))
        if not ahead:
            return
        cut = _is_cut(list(behind), [small for _, small in ahead])
        frame, small = ahead.popleft()
        behind.append(small)
        yield cut, frame


def _small(frame: Frame) -> _Small:
    lab = cv2.cvtColor(cv2.resize(frame, _SIZE, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2LAB)
    grey = lab[..., 0].astype(np.float32)
    grey *= _DEVIATION / max(float(grey.std()), _CONTRAST)
    return _Small(grey - grey.mean(), histogram(lab))


def _is_cut(behind: list[_Small], ahead: list[_Small]) -> bool:
    """Whether the first frame of `ahead` begins a shot."""
    if not behind:
        return False
    before, first = behind[-1], ahead[0]
    change = distance(before.colours, first.colours)
    around = [(behind[-2], before)] if len(behind) > 1 else []
    around += [(first, ahead[1])] if len(ahead) > 1 else []
    if change < max([_COLOURS, *(_STROKE * distance(a.colours, b.colours) for a, b in around)]):
        return False
    return all(_differ(old, new) for old in reversed(behind) for new in ahead)


def _differ(old: _Small, new: _Small) -> bool:
    change = distance(old.colours, new.colours)
    return change >= _COLOURS and _found_again(old.grey, new.grey) <= _FOUND + _TRADE * change


def _found_again(a: _Grey, b: _Grey) -> float:
    """The share of textured parts of two small pictures that the other one shows nearby; brightness does not count."""
    return min(_share(a, b), _share(b, a))


def _share(a: _Grey, b: _Grey) -> float:
    padded = np.pad(b, _REACH, mode="edge")
    means = cv2.blur(padded, (_BLOCK, _BLOCK), anchor=(0, 0))
    wide = 2 * _REACH + 1
    found = []
    for y in range(0, a.shape[0] - _BLOCK + 1, _BLOCK):
        for x in range(0, a.shape[1] - _BLOCK + 1, _BLOCK):
            part = a[y : y + _BLOCK, x : x + _BLOCK]
            if part.std() >= _CONTRAST:
                near = padded[y : y + _BLOCK + 2 * _REACH, x : x + _BLOCK + 2 * _REACH]
                alike = cv2.matchTemplate(near, part, cv2.TM_CCOEFF_NORMED) >= _ALIKE
                bright = np.abs(means[y : y + wide, x : x + wide] - part.mean()) < _AS_BRIGHT
                found.append(bool((alike & bright).any()))
    return float(np.mean(found)) if found else 1.0
