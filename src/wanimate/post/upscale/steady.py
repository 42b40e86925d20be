"""Detail that holds still: what a network adds to a picture is averaged along the movement.

A network enlarges each frame for itself, so that what it adds shimmers. Each frame's detail becomes the mean of its own and
that of the frame before, moved to where it has gone. Where the frame before, moved so, shows something else, it counts less.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from wanimate.post.flow import Flow
from wanimate.post.warp import luma, resized_flow, warp

SHARE = 0.7
"""Of the detail, as much comes from the frame before where both show the same."""
_UNLIKE = 18 / 255**2
"""Twice the squared difference (of 0 to 1) at which the frame before counts for 1/e less."""
_BLUR = 1.5
_REACH = 5


class SteadyDetail:
    """Averages the detail of one video, in order."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self._before: tuple[Tensor, Tensor, Tensor] | None = None

    def __call__(self, frames: Tensor, plain: Tensor, detail: Tensor, begins: Sequence[bool]) -> Tensor:
        """The steady detail.

        Args:
            frames: the video's own frames, float32 [n, 3, h, w]. plain: enlarged without a network, [n, 3, H, W].
            detail: what a network adds to `plain`, [n, 3, H, W].
            begins: which of the frames begin a new shot; theirs stays as it is.
        """
        seen = luma(frames)
        if self._before is None:
            self._before, begins = (seen[:1], plain[:1], detail[:1]), [True, *begins[1:]]
        seen_before, plain_before, kept = self._before
        flows = resized_flow(self.flow(seen, torch.cat((seen_before, seen[:-1]))), (plain.shape[3], plain.shape[2]))
        moved = warp(torch.cat((plain_before, plain[:-1])), flows)
        shares = SHARE * torch.exp(-(_blurred((moved - plain).abs().amax(1, keepdim=True)) ** 2) / _UNLIKE)
        result = []
        for i, begin in enumerate(begins):
            own = detail[i : i + 1]
            if not begin:
                own = torch.lerp(own, warp(kept, flows[i : i + 1]), shares[i : i + 1])
            kept = own
            result.append(own)
        self._before = seen[-1:], plain[-1:], kept
        return torch.cat(result)


def _blurred(x: Tensor) -> Tensor:
    """By a Gaussian of deviation 1.5, [n, 1, H, W]."""
    places = torch.arange(-_REACH, _REACH + 1, device=x.device, dtype=x.dtype)
    weights = torch.exp(-(places**2) / (2 * _BLUR**2))
    weights = weights / weights.sum()
    x = F.conv2d(F.pad(x, (_REACH, _REACH, 0, 0), mode="replicate"), weights.view(1, 1, 1, -1))
    return F.conv2d(F.pad(x, (0, 0, _REACH, _REACH), mode="replicate"), weights.view(1, 1, -1, 1))
