"""Clips as the networks see them: latents of frames and conditions, beside the face pictures.

Letters: M clips, K frames, T = (K+3)/4 latent frames, h w latent rows and columns, S side of the face pictures.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass
class LatentClips:
    """Clips of one size on the training device.

    target, pose, known: [M, 16, T, h, w]; reference: [M, 16, 1, h, w]; keep: packed mask [M, 4, T, h, w] in 0..1;
    person: share of person in each latent pixel, more where errors count more, [M, T, h, w]; face: uint8 [M, K, S, S, 3].
    """

    target: Tensor
    pose: Tensor
    known: Tensor
    reference: Tensor
    keep: Tensor
    person: Tensor
    face: Tensor

    def __len__(self) -> int:
        return len(self.target)
