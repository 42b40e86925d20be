"""Flow matching: what a network is asked, the loss, and samples without guidance.

x_sigma = (1 - sigma) x0 + sigma noise and the network learns v = noise - x0 (arXiv 2210.02747; model spec, section 4.7).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from wanimate.config import Defaults
from wanimate.model.transformer import AnimateTransformer, Context
from wanimate.sampling.denoise import denoise
from wanimate.train.latents import LatentClips

Flow = Callable[[Tensor, Tensor, LatentClips, Tensor], Tensor]
"""(noisy x, t, clips, dropped) -> v."""


@dataclass(frozen=True)
class LossSettings:
    """`shift` is the sampler's, whose times are trained on. Errors on the person weigh `person_weight` times more than the
    scene's, those of the reference frame `reference_weight`. `drop_face`: share of clips trained without face and prompt.
    """

    shift: float = 3.0
    person_weight: float = 3.0
    reference_weight: float = 0.1
    drop_face: float = 0.1


def predict(
    transformer: AnimateTransformer, text: Tensor, image: Tensor | None, x: Tensor, t: Tensor, clips: LatentClips,
    dropped: Tensor,
) -> Tensor:  # fmt: skip
    """v [B, 16, T+1, h, w] for noisy x at times t [B]; the face is blank where `dropped` [B].

    text [B, X, text width]; image tokens [B, I, image width] or None.
    """
    face = clips.face.permute(0, 4, 1, 2, 3).float() / 127.5 - 1
    face = torch.where(dropped.view(-1, 1, 1, 1, 1), -1.0, face)
    return velocity(transformer, transformer.prepare(text, image, face, clips.pose), x, t, clips)


def velocity(transformer: AnimateTransformer, context: Context, x: Tensor, t: Tensor, clips: LatentClips) -> Tensor:
    """As `predict`, with what the transformer has prepared of text, faces and skeletons."""
    known = torch.cat((torch.ones_like(clips.reference[:, :4]), clips.reference), dim=1)
    y = torch.cat((known, torch.cat((clips.keep, clips.known), dim=1)), dim=2)
    return transformer(x, t, y, context)


def flow_loss(flow: Flow, clips: LatentClips, settings: LossSettings) -> Tensor:
    """Weighted squared error of v."""
    off, _ = velocity_error(flow, clips, settings)
    return weighted_error(off, clips.person, settings)


def velocity_error(
    flow: Flow, clips: LatentClips, settings: LossSettings, draw_noise: Callable[[Tensor], Tensor] = torch.randn_like
) -> tuple[Tensor, Tensor]:
    """Predicted minus true v at random times, float32 [B, 16, T+1, h, w], and the times sigma [B].

    `draw_noise`: clean latents -> noise like them.
    """
    clean = torch.cat((clips.reference, clips.target), dim=2)
    u = torch.rand(len(clean), device=clean.device)
    sigma = settings.shift * u / (1 + (settings.shift - 1) * u)
    noise = draw_noise(clean)
    s = sigma.view(-1, 1, 1, 1, 1)
    dropped = torch.rand(len(clean), device=clean.device) < settings.drop_face
    v = flow((1 - s) * clean + s * noise, (1000 * sigma).long(), clips, dropped)
    return v.float() - (noise - clean), sigma


def weighted_error(off: Tensor, person: Tensor, settings: LossSettings) -> Tensor:
    """Weighted mean square of errors `off` [B, 16, T+1, h, w], whose first frame is the reference; `person` [B, T, h, w]."""
    error = off.square().mean(1)
    weight = torch.cat(
        (torch.full_like(error[:, :1], settings.reference_weight), 1 + settings.person_weight * person), dim=1
    )
    return (error * weight).sum() / weight.sum()


@torch.no_grad()
def sample(flow: Flow, clips: LatentClips, settings: Defaults, seed: int = 0) -> Tensor:
    """Latents [B, 16, T, h, w] generated from the clips' conditions, without guidance, in the steps that `settings` say."""
    clean = torch.cat((clips.reference, clips.target), dim=2)
    noise = torch.randn(clean.shape, generator=torch.Generator("cpu").manual_seed(seed)).to(clean.device)
    kept = torch.zeros(len(clean), dtype=torch.bool, device=clean.device)

    def network(x: Tensor, t: Tensor) -> Tensor:
        return flow(x, t.expand(len(x)), clips, kept).float()

    latents = noise
    for state in denoise(network, noise, settings.solver, settings.steps, settings.shift):
        latents = state.latents
    return latents[:, :, 1:]
