"""Faces of clips, looked at once: their motion vectors in place of their pictures.

Where the motion encoder does not learn, a step need not look at a batch's faces, and a pool of clips is 2.6 times smaller.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from mannequin.training.averages import mixed
from mannequin.training.clip_latents import WorldClips
from mannequin.training.motion import to_network
from wanimate.model.transformer import AnimateTransformer
from wanimate.train.flow import predict, velocity
from wanimate.train.latents import LatentClips


class KnownFaces:
    """Of one network, whose motion encoder stays as it is."""

    def __init__(self, network: AnimateTransformer) -> None:
        self._network = network
        self._blank: Tensor | None = None

    @torch.no_grad()
    def told(self, clips: WorldClips) -> WorldClips:
        """Clips with the motion vectors of their face pictures, float16 [B, K, M], instead of the pictures."""
        network = self._network
        with mixed(clips.face.device):
            faces = to_network(clips.face.flatten(0, 1)).split(256)
            motion = torch.cat([network.motion_encoder(part).half() for part in faces])
            if self._blank is None:  # once: a recorded step (`recording`) reads it where it lies
                self._blank = network.motion_encoder(torch.full_like(faces[0][:1], -1.0))
        return replace(clips, face=motion.view(*clips.face.shape[:2], -1))

    def predict(self, prompts: Tensor, x: Tensor, t: Tensor, clips: LatentClips, dropped: Tensor) -> Tensor:
        """As `wanimate.train.flow.predict`; `clips.face`: pictures, or motion vectors (`told`). prompts [B, X, width]."""
        with mixed(x.device):
            if clips.face.ndim > 3:
                return predict(self._network, prompts, None, x, t, clips, dropped)
            assert self._blank is not None, "vectors come from `told`"
            motion = torch.where(dropped.view(-1, 1, 1), self._blank, clips.face)
            faces = self._network.embed_motion(motion)
            return velocity(self._network, self._network.context(prompts, None, faces, clips.pose), x, t, clips)
