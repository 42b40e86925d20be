"""Colours that hold over a long clip: every segment is taken back to the colours of the first one.

A segment sets out from the last frames of the one before, which have been decoded and encoded again. Each time they lose a
little light and colour, and the network goes on from there. So a clip drifts, in steps where segments join and slowly in
between. Two measurements tell how far, for body and scene apart:

1. The frames that two segments share show the same. Their difference is the step at the join.
2. Body and scene had other colours in the first segment. The body is looked at along the lines of the drawn skeleton, which
   are the same limbs in every pose; the scene block by block, where nobody stands.

The correction begins with the first and approaches the second. What is left of the step, without its fine detail, fades
out over the frames behind the join. Nothing waits for the device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from wanimate.conditions.places import BLOCK, Places
from wanimate.types import Segment

_FEW = 4.0
"""Blocks of which a mean is believed by half."""

State = dict[str, Tensor]
"""What is kept between segments: sums of colours and of weights in the first one, `body` [4] and `scene` [4, h, w]."""


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

    pull: float = 0.15
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
            body, scene = _seen(piece, self.places, self.at)
            before = self.state or {"body": torch.zeros_like(body), "scene": torch.zeros_like(scene)}
            self.state = {"body": before["body"] + body, "scene": before["scene"] + scene}
            self.at += piece.shape[1]
        return frames


def _seen(frames: Tensor, places: Places, at: int) -> tuple[Tensor, Tensor]:
    """Sums of colours, and of weights as a fourth channel: along the skeleton [4], of the free scene [4, h, w]."""
    here = slice(at, at + frames.shape[1])
    lines, free = places.lines[here], 1 - places.cover[here]
    fine = _blocks(frames, frames.shape[3] // lines.shape[2])
    body = torch.cat(((fine * lines).sum((1, 2, 3)), lines.sum()[None]))
    scene = torch.cat(((_blocks(frames, BLOCK) * free).sum(1), free.sum(0)[None]))
    return body, scene


def _blocks(frames: Tensor, side: int) -> Tensor:
    """Mean colours of blocks, in [0, 1]."""
    small = frames if side == 1 else F.avg_pool2d(frames.transpose(0, 1), side).transpose(0, 1)
    return (small + 1) / 2


class _Correct:
    """Corrects one segment. A correction is what is added to scene and to body: [2, 3], colours in [0, 1]."""

    def __init__(self, anchor: Anchor, segment: Segment, known: Tensor, places: Places, state: State) -> None:
        self.anchor, self.segment, self.known, self.places, self.state = anchor, segment, known, places, state
        device = places.cover.device
        self.body, self.scene = state["body"].to(device), state["scene"].to(device)
        self.at = 0
        self.shared: list[Tensor] = []
        self.change = torch.zeros(2, 3, device=places.cover.device)
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
        before, self.change = self.change, self._pulled(frames, start)
        steps = torch.linspace(0, 1, count + 1, device=frames.device)[1:, None, None]
        changes = before + (self.change - before) * steps  # [k, 2, 3]
        result = self._apply(frames, start, changes)
        if self.rest is not None and start < overlap + self.anchor.fade:
            ahead = torch.arange(start, self.at, device=frames.device) - overlap + 1
            result += self.rest * (1 - ahead / (self.anchor.fade + 1)).clamp_min(0)[:, None, None]
        return result.clamp_(-1, 1)

    def _join(self, ours: Tensor) -> None:
        """Set out from the correction that takes the shared frames, as shown here, to what they are in the video."""
        known, overlap = self.known.to(ours.device), self.segment.overlap
        step, body = _blocks(known, BLOCK) - _blocks(ours, BLOCK), self.places.cover[:overlap]
        means = []
        for weight in (1 - body, body):
            total = weight.sum()
            means.append((step * weight).sum((1, 2, 3)) / (total + _FEW))
        self.change = torch.stack(means)
        left = known[:, -1:] - self._apply(ours[:, -1:], overlap - 1, self.change[None])
        self.rest = _enlarged(F.avg_pool2d(left.transpose(0, 1), BLOCK), left)

    def _pulled(self, frames: Tensor, start: int) -> Tensor:
        """The correction at the end of a piece: nearer to what takes body and scene to their first colours."""
        body, scene = _seen(frames, self.places, start)
        both = (scene[3] > 0) & (self.scene[3] > 0)
        weight = scene[3] * both
        apart = self.scene[:3] / self.scene[3].clamp_min(1) - scene[:3] / scene[3].clamp_min(1)
        total = weight.sum()
        scenes = (apart * weight).sum((1, 2)) / total.clamp_min(1)
        bodies = self.body[:3] / self.body[3].clamp_min(1) - body[:3] / body[3].clamp_min(1)
        seen = torch.stack((total / (total + _FEW), body[3] / (body[3] + _FEW) * (self.body[3] > 0)))[:, None]
        return self.change + self.anchor.pull * seen * (torch.stack((scenes, bodies)) - self.change)

    def _apply(self, frames: Tensor, start: int, changes: Tensor) -> Tensor:
        """frames [3, k, H, W]; changes [k or 1, 2, 3]."""
        scene, body = (changes[:, i, :, None, None] for i in (0, 1))
        change = scene + (body - scene) * self.soft[start : start + frames.shape[1]]
        return frames + 2 * _enlarged(change, frames)


def _enlarged(small: Tensor, frames: Tensor) -> Tensor:
    """[k, 3, h, w] at the size of frames [3, k, H, W]."""
    return F.interpolate(small, size=frames.shape[2:], mode="bilinear").transpose(0, 1)
