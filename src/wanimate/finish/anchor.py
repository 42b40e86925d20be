"""Colours that hold over a long clip: every segment is taken back to the colours of the first one.

A segment sets out from the last frames of the one before, which have been decoded and encoded again. Each time they lose a
little light and colour, and the network goes on from there. So a clip drifts, in steps where segments join and slowly in
between. The scene and each part of the body drift in ways of their own: a face turns red while a shirt turns green. So they
are held apart. Two measurements tell how far each has gone:

1. The frames that two segments share show the same. Their difference is the step at the join.
2. It had other colours in the first segment. Parts are looked at around the lines of the drawn skeleton, which are the same
   limbs in every pose; the scene is looked at block by block, where nobody stands.

The correction begins with the first and approaches the second. What is left of the step, without its fine detail, fades
out over the frames behind the join. Nothing waits for the device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from wanimate.conditions.places import BLOCK, PARTS, Places
from wanimate.finish.colour import from_lab, to_lab
from wanimate.types import Segment

_FEW = 4.0
"""Blocks of which a mean is believed by half."""
_WIDE = 48
"""A part is looked at up to this fraction of the shorter side beyond its lines."""
_CELLS = 48
"""Cells of the body's correction along the shorter side, about."""
_FAR = 1e-3
"""Share of a part's line that all parts have everywhere: what is far from every line has their mean correction."""

State = dict[str, Tensor]
"""What is kept between segments: sums of colours and of weights in the first one, `body` [4, parts] and `scene` [4, h, w]."""


class Anchored(Protocol):
    """Takes the decoded frames of one segment in order, the shared ones first, and gives them back as they shall be."""

    @property
    def state(self) -> State: ...

    def __call__(self, frames: Tensor) -> Tensor:
        """float32 [3, k, H, W] in [-1, 1]; k is 1 at first and then a multiple of 4."""
        ...


@dataclass(frozen=True)
class Anchor:
    """How segments are corrected.

    pull: share of the way to the first segment's colours in four frames. fade: frames over which the rest of the step at a
    join fades.
    """

    pull: float = 0.3
    fade: int = 8

    def begin(self, segment: Segment, known: Tensor | None, places: Places, state: State) -> Anchored:
        """`known`: the shared frames as they are in the video; None in the first segment, whose frames do not change.
        `state`: that of the segment before."""
        if known is None:
            return _Watch(places)
        return _Correct(self, segment, known, places, state)


class _Watch:
    """Adds up a segment's colours."""

    def __init__(self, places: Places) -> None:
        self.places, self.at, self.state = places, 0, State()

    def __call__(self, frames: Tensor) -> Tensor:
        for piece in frames.split(4, dim=1):
            seen = _seen(piece, self.places, self.at)
            self.state = {name: sums + self.state[name] if self.state else sums for name, sums in seen.items()}
            self.at += piece.shape[1]
        return frames


def _seen(frames: Tensor, places: Places, at: int) -> State:
    """Sums of colours, and of weights as a fourth channel: L*a*b* / 100 of parts, RGB of the free scene."""
    here = slice(at, at + frames.shape[1])
    lines = places.lines(here)
    reach = max(1, round(min(lines.shape[2:]) / _WIDE))
    wide = F.max_pool2d(lines, 2 * reach + 1, 1, reach)
    lab = to_lab(_blocks(frames, frames.shape[3] // lines.shape[3])) / 100
    body = torch.cat((torch.einsum("ckyx,kpyx->cp", lab, wide), wide.sum((0, 2, 3))[None]))
    free = 1 - places.cover[here]
    scene = torch.cat(((_blocks(frames, BLOCK) * free).sum(1), free.sum(0)[None]))
    return {"body": body, "scene": scene}


def _blocks(frames: Tensor, side: int) -> Tensor:
    """Mean colours of blocks, in [0, 1]."""
    small = frames if side == 1 else F.avg_pool2d(frames.transpose(0, 1), side).transpose(0, 1)
    return (small + 1) / 2


class _Correct:
    """Corrects one segment. A correction is what is added to scene and parts [1 + parts, 3]: RGB in [0, 1], L*a*b* / 100."""

    def __init__(self, anchor: Anchor, segment: Segment, known: Tensor, places: Places, state: State) -> None:
        self.anchor, self.segment, self.known, self.places = anchor, segment, known, places
        device = places.cover.device
        self.state = {name: sums.to(device) for name, sums in state.items()}
        self.at = 0
        self.shared: list[Tensor] = []
        self.change = torch.zeros(1 + len(PARTS), 3, device=device)
        self.rest: Tensor | None = None
        pad = max(1, round(min(places.cover.shape[1:]) / 24))
        wide = F.pad(places.cover[:, None], (pad,) * 4, mode="replicate")
        self.soft = F.avg_pool2d(wide, 2 * pad + 1, 1)
        """The body's share in every block, with a soft edge: [K, 1, h, w]."""

    def __call__(self, frames: Tensor) -> Tensor:
        return torch.cat([self._piece(piece) for piece in frames.split(4, dim=1)], dim=1)  # one latent frame's each

    def _piece(self, frames: Tensor) -> Tensor:
        start, count, overlap = self.at, frames.shape[1], self.segment.overlap
        self.at += count
        if start < overlap:
            assert self.at <= overlap, "pieces end where the shared frames end"
            self.shared.append(frames)
            if self.at == overlap:
                self._join(torch.cat(self.shared, dim=1))
                self.shared.clear()
            return frames
        seen, before = _seen(frames, self.places, start), self.change
        self.change = before + self.anchor.pull * self._believed(seen) * (_difference(self.state, seen) - before)
        steps = torch.linspace(0, 1, count + 1, device=frames.device)[1:, None, None]
        result = self._apply(frames, start, before + (self.change - before) * steps)
        if self.rest is not None and start < overlap + self.anchor.fade:
            ahead = torch.arange(start, self.at, device=frames.device) - overlap + 1
            result += self.rest * (1 - ahead / (self.anchor.fade + 1)).clamp_min(0)[:, None, None]
        return result.clamp_(-1, 1)

    def _join(self, ours: Tensor) -> None:
        """Set out from the correction that takes the shared frames, as shown here, to what they are in the video."""
        known = self.known.to(ours.device)
        self.change = _difference(_seen(known, self.places, 0), _seen(ours, self.places, 0))
        left = known[:, -1:] - self._apply(ours[:, -1:], self.segment.overlap - 1, self.change[None])
        self.rest = _enlarged(F.avg_pool2d(left.transpose(0, 1), BLOCK), left)

    def _believed(self, seen: State) -> Tensor:
        """How far the means of scene and parts are believed, 0 to 1: [1 + parts, 1]."""
        parts, first = seen["body"][3], self.state["body"][3]
        scene = (seen["scene"][3] * (self.state["scene"][3] > 0)).sum()
        return torch.cat(((scene / (scene + _FEW))[None], parts / (parts + _FEW) * (first > 0)))[:, None]

    def _apply(self, frames: Tensor, start: int, changes: Tensor) -> Tensor:
        """frames [3, k, H, W]; changes [k or 1, 1 + parts, 3]."""
        here = slice(start, start + frames.shape[1])
        shares = self._shares(here)
        body = torch.einsum("kpyx,kpc->ckyx", shares, changes[:, 1:].expand(len(shares), -1, -1))
        size = (body.shape[2], body.shape[3])
        colours = (F.adaptive_avg_pool2d(frames.transpose(0, 1), size).transpose(0, 1) + 1) / 2
        body = (from_lab(to_lab(colours) + 100 * body) - colours).transpose(0, 1)
        scene = changes[:, 0, :, None, None]
        soft = F.interpolate(self.soft[here], size=size, mode="bilinear")
        return frames + 2 * _enlarged(scene + (body - scene) * soft, frames)

    def _shares(self, here: slice) -> Tensor:
        """Of each part in every cell, by how near its lines are; their sum is 1: [k, parts, y, x]."""
        lines = self.places.lines(here)
        cells = F.avg_pool2d(lines, max(1, round(min(lines.shape[2:]) / _CELLS)))
        reach = max(1, round(min(cells.shape[2:]) / 24))
        for _ in range(2):
            cells = F.avg_pool2d(F.pad(cells, (reach,) * 4), 2 * reach + 1, 1)
        usual = self.state["body"][3] / self.state["body"][3].sum().clamp_min(1)
        shares = cells * (usual > 0)[:, None, None] + _FAR * usual[:, None, None]
        return shares / shares.sum(1, keepdim=True).clamp_min(1e-6)


def _difference(wanted: State, seen: State) -> Tensor:
    """What takes the colours seen to those wanted, of scene and parts: [1 + parts, 3]."""
    scene, parts = (_means(wanted[name]) - _means(seen[name]) for name in ("scene", "body"))
    weight = seen["scene"][3] * (wanted["scene"][3] > 0)
    whole = (scene * weight).sum((1, 2)) / weight.sum().clamp_min(1)
    return torch.cat((whole[None], parts.T))


def _means(sums: Tensor) -> Tensor:
    return sums[:3] / sums[3].clamp_min(1)


def _enlarged(small: Tensor, frames: Tensor) -> Tensor:
    """[k, 3, h, w] at the size of frames [3, k, H, W]."""
    return F.interpolate(small, size=frames.shape[2:], mode="bilinear").transpose(0, 1)
