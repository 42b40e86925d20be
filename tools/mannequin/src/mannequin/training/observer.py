"""A perceptual loss without a downloaded network: a small one learns along, on true frames, where faces and hands are.

What it computes on its way to that answer is compared between true and decoded frames, as LPIPS (arXiv 1801.03924) compares
the features of a classifier.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

BOUNDS = (0.06, 0.15, 0.28, 0.43, 0.75)
"""Bounds between scene, person, skin, hand, face, and eye or mouth on the scale of `pool.importance` over 255."""
WIDTHS = (24, 48, 96, 96)


class Observer(nn.Module):
    """Pictures [N, 3, H, W] in [-1, 1] -> features at 1, 1/2, 1/4 and 1/8 of their size; `answers`: classes of each place."""

    bounds: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("bounds", torch.tensor(BOUNDS), persistent=False)
        before = (3, *WIDTHS[:-1])
        self.levels = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=1 if i == 0 else 2, padding=1)
            for i, (a, b) in enumerate(zip(before, WIDTHS, strict=True))
        )
        self.answers = nn.ModuleList(nn.Conv2d(width, len(BOUNDS) + 1, 1) for width in WIDTHS)

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for level in self.levels:
            x = F.silu(level(x))
            features.append(x)
        return features

    def error(self, features: list[Tensor], importance: Tensor) -> Tensor:
        """Cross-entropy of the classes [N, H, W] that `importance` [N, 1, H, W] gives, at every level but the first."""
        total = importance.new_zeros(())
        for i, (answer, x) in enumerate(zip(self.answers, features, strict=True)):
            # the largest in reach, so that eyes are not stepped over
            near = importance if i == 0 else F.max_pool2d(importance, 2**i)
            classes = torch.bucketize(near[:, 0].float(), self.bounds)
            total = total + F.cross_entropy(answer(x).float(), classes)
        return total / len(features)


def features_apart(observer: Observer, decoded: Tensor, seen: list[Tensor], weight: Tensor) -> Tensor:
    """Weighted mean squared distance between unit features of `decoded` [N, 3, H, W] and those `seen` in the true pictures.

    The observer learns nothing from it. weight: [N, 1, H, W].
    """
    fixed = {name: value.detach() for name, value in observer.named_parameters()}
    total = weight.new_zeros(())
    for i, (ours, true) in enumerate(zip(functional_call(observer, fixed, (decoded,)), seen, strict=True)):
        apart = (F.normalize(ours.float(), dim=1) - F.normalize(true.detach().float(), dim=1)).square().sum(1, True)
        total = total + (apart * (weight if i == 0 else F.avg_pool2d(weight, 2**i))).mean()
    return total / len(seen)
