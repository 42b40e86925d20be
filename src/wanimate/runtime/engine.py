"""What a job computes with, here or on all ranks: its VAE, what makes a segment's network, and what makes room."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch

from wanimate.config import GenerateSettings, LoraUse
from wanimate.runtime.parallel.team import Team
from wanimate.runtime.placement import PlacedNetworks
from wanimate.runtime.tiling import TiledVae
from wanimate.sampling.cache import Caching
from wanimate.sampling.guidance import PhasedNetwork, SegmentNetwork, guided
from wanimate.types import Conditions
from wanimate.weights.lora import Lora


@dataclass(frozen=True)
class Engine:
    """`ease`: asked, with a stage's name, after it found too little memory, it takes the next notch of the placement and says
    how, or None if there is none."""

    loras: Sequence[tuple[Lora, LoraUse]]
    codec: TiledVae | Team
    network: Callable[[Conditions], SegmentNetwork]
    ease: Callable[[str], str | None]


def alone(
    placed: PlacedNetworks, loras: Sequence[tuple[Lora, LoraUse]], generate: GenerateSettings, caching: Caching | None,
    steps: int,
) -> Engine:  # fmt: skip
    """In this process. The LoRAs of the first step are added now, those of later steps when it is their turn."""
    vae = TiledVae(placed.checkpoint.vae, placed.placement.tile)
    stack = placed.with_loras(loras, generate.lora_fuse)
    with suppress(torch.OutOfMemoryError):  # the first segment tries again, and then there are ways to make room
        stack.transformer(stack.active(0, steps))

    def ease(stage: str) -> str | None:
        """Twins of the transformer are made anew."""
        nonlocal stack
        stack = placed.with_loras([], False)
        how = placed.ease(stage)
        stack, vae.side = placed.with_loras(loras, generate.lora_fuse), placed.placement.tile
        return how

    def network(conditions: Conditions) -> SegmentNetwork:
        return PhasedNetwork(
            lambda step: stack.active(step, steps),
            lambda active, start: guided(
                stack.transformer(active), conditions, generate.guidance, caching and caching.at(start)
            ),
        )

    return Engine(loras, vae, network, ease)


def together(
    team: Team, loras: Sequence[tuple[Lora, LoraUse]], generate: GenerateSettings, caching: Caching | None, steps: int
) -> Engine:
    """On all ranks, each of which reads the LoRA files."""
    team.use_loras(generate.lora, generate.lora_partial, generate.lora_fuse)

    def network(conditions: Conditions) -> SegmentNetwork:
        return PhasedNetwork(
            lambda step: team.active(step, steps),
            lambda active, start: team.network(active, conditions, generate.guidance, caching and caching.at(start)),
        )

    return Engine(loras, team, network, lambda stage: None)
