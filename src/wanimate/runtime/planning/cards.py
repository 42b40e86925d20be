"""What a GPU that is not at hand would take for a step of the published network: a forecast from its datasheet.

A datasheet's rate times the share of it that our kernels reach on Hopper, where they were measured. Nothing of it was measured
on the cards themselves, but for H100 and H200.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch

from wanimate.conditions.segments import plan_segments
from wanimate.config import RuntimeSettings, Speed
from wanimate.errors import InputError, OutOfMemory
from wanimate.model.params import TransformerParams, VaeParams
from wanimate.model.transformer import AnimateTransformer
from wanimate.model.vae import VideoVae
from wanimate.runtime.planning.plan import Machine, Work, make_plan
from wanimate.runtime.planning.rates import Rates
from wanimate.runtime.planning.sizes import GIB, TURBO_ERROR, Networks, network_sizes
from wanimate.sampling.cache import TURBO, Caching
from wanimate.weights.locate import CheckpointConfig
from wanimate.weights.stored import Stored

AS_OF = "2026-11-30"
"""When the datasheets' numbers were written down."""
NOTE = "a forecast: datasheet rates times the shares that the kernels reach on Hopper"
ROOM = 22.5 / 24
"""Of a card's memory, what a job may take; the driver and a desktop have the rest."""
HOST = 64 * GIB
"""Memory of the host that is taken to be there. What a job takes of it is in the forecast."""
PRODUCTS = {"bf16": 0.77, "fp8": 0.71, "int8": 0.85}
"""Share of a rate that is reached for the network's shapes. bf16 and fp8: by cuBLAS, of Hopper's datasheet
(benchmarks/results/speed_h100_2026-11-27.md). int8: by our Triton kernel with Ampere's instructions on an H200, of what these
instructions reach there with nothing beside them (benchmarks/results/int8_h200_2026-11-30.md)."""
ATTENTION = {"hopper bf16": 0.7, "hopper fp8": 0.53, "bf16": 0.81, "int8": 0.48}
"""The same of attention over 75,600 tokens. On Hopper FlashAttention-3 and ours; elsewhere FlashAttention-2 by PyTorch, and
ours with keys in int8 and values in float16, in the second way."""
MEMORY, COPIES = 0.9, 0.8
"""Shares of the rates of memory and of PCIe; taken, not measured."""
TURBO_SHARE = 0.42
"""A step of `turbo` over one of `fast`, 12 of 20 skipped (benchmarks/results/speed_h200_2026-11-30.md)."""
SPARSE_NOTE = (
    "seconds are with all of attention, which is the most; turbo leaves some out, how much depends on the video. On an H200 "
    "turbo with half of it took 0.74 of turbo with all at 720p, 0.94 at 480p (benchmarks/results/speed_h200_2026-11-30.md)"
)
SIZES = {"720p": (1280, 720), "480p": (832, 480)}
LENGTH, STEPS = 77, 20


Published = Literal["bf16", "fp8", "int8"]
"""Types of the blocks' weights that are forecast."""


@dataclass(frozen=True)
class Card:
    """A GPU by its datasheet. memory: GiB; 1e12 operations a second of dense matrices: bf16 and fp8 with sums in float32 (fp8
    None: it has none), fp16 with sums in float16, int8; bandwidth: 1e12 bytes a second; pcie: 1e9 bytes a second in one
    direction; unsure: what of it is."""

    name: str
    capability: tuple[int, int]
    memory: int
    bf16: float
    fp8: float | None
    fp16: float
    int8: float
    bandwidth: float
    pcie: float
    source: str
    unsure: str = ""

    @property
    def room(self) -> int:
        """Bytes that a job may take."""
        return int(ROOM * self.memory * GIB)

    def rates(self, speed: Speed) -> Rates:
        """What its kernels would do in a second, if they reach what they reach on Hopper."""
        hopper = self.capability == (9, 0)
        products, attention = self.bf16 * PRODUCTS["bf16"], self.bf16 * ATTENTION["hopper bf16" if hopper else "bf16"]
        if speed != "exact":
            products = self.int8 * PRODUCTS["int8"] if self.fp8 is None else self.fp8 * PRODUCTS["fp8"]
            if self.fp8 is not None and hopper:
                attention = self.fp8 * ATTENTION["hopper fp8"]
            else:  # half of its operations are of int8, half of float16; `auto` takes the quickest
                attention = max(attention, 2 / (1 / self.int8 + 1 / self.fp16) * ATTENTION["int8"])
        convolutions, singles = 0.1 * self.bf16, 0.05 * self.bf16  # only the whole clip's seconds need them
        tera = 1e12
        return Rates(
            products * tera, attention * tera, convolutions * tera, MEMORY * self.bandwidth * tera, COPIES * self.pcie * 1e9,
            singles * tera,
        )  # fmt: skip


CARDS = (
    Card("A10G", (8, 6), 24, 70, None, 70, 140, 0.600, 31.5, "NVIDIA A10G datasheet", "its matrix rates"),
    Card("RTX 3090", (8, 6), 24, 71, None, 142, 284, 0.936, 31.5, "NVIDIA GA102 whitepaper, version 2"),
    Card("RTX 4090", (8, 9), 24, 165.2, 330.3, 330.3, 660.6, 1.008, 31.5, "NVIDIA Ada whitepaper"),
    Card(
        "RTX 5090", (12, 0), 32, 209.5, 419, 419, 838, 1.792, 63, "NVIDIA RTX Blackwell whitepaper", "its matrix rates"
    ),
    Card("H100", (9, 0), 80, 989.4, 1978.9, 989.4, 1978.9, 3.35, 63, "NVIDIA H100 SXM datasheet"),
    Card("H200", (9, 0), 141, 989.4, 1978.9, 989.4, 1978.9, 4.8, 63, "NVIDIA H200 SXM datasheet"),
)


def card_named(name: str) -> Card:
    """The card of a name such as "RTX 4090", "4090" or "a10g".

    Raises:
        InputError: there is no such card.
    """
    asked = name.lower().replace("-", " ").strip()
    for card in CARDS:
        if asked in (card.name.lower(), card.name.lower().removeprefix("rtx ")):
            return card
    known = ", ".join(card.name for card in CARDS)
    raise InputError("gpu", name, "its datasheet is not known", f"Give one of {known}.")


@lru_cache(maxsize=3)
def published_networks(weights: Published = "bf16") -> Networks:
    """Sizes of the published 14B, from the architecture alone. Its text encoder is not counted."""

    def shapes(make: Any) -> dict[str, Stored]:
        def read() -> torch.Tensor:
            raise AssertionError("sizes alone are asked for")

        with torch.device("meta"):
            return {name: Stored(tensor.shape, torch.bfloat16, read) for name, tensor in make().state_dict().items()}

    transformer = shapes(lambda: AnimateTransformer(TransformerParams()))
    vae = shapes(lambda: VideoVae(VaeParams()))
    config = CheckpointConfig(name="Wan2.2-Animate-14B")
    return network_sizes(transformer, vae, 0, config, weights, torch.device("cuda"), Path("14B"))


def datasheet(card: Card) -> dict[str, str]:
    """What the forecast is made of, as name -> finding."""
    major, minor = card.capability
    rates = {"bf16": card.bf16, "fp8": card.fp8, "fp16 (sums in fp16)": card.fp16, "int8": card.int8}
    return {
        "card": f"{card.name}, compute capability {major}.{minor}, {card.memory} GiB",
        "dense, 1e12 operations/s": ", ".join(f"{name} {rate:g}" for name, rate in rates.items() if rate is not None),
        "memory": f"{card.bandwidth:g} TB/s", "PCIe": f"{card.pcie:g} GB/s",
        "source": f"{card.source}, as of {AS_OF}", **({"not sure": card.unsure} if card.unsure else {}),
        "note": NOTE if card.capability == (9, 0) else f"{NOTE}; nothing was measured on this card",
        "turbo": SPARSE_NOTE,
    }  # fmt: skip


def forecast(card: Card) -> list[dict[str, Any]]:
    """Rows of {size, speed, weights, placement, GPU GiB, host GiB, seconds a step} for 77 frames, as the program is today.

    Where a job does not fit, `placement` says why.
    """
    speeds: tuple[Speed, ...] = ("exact", "fast", "turbo")
    return [
        {"size": size, "speed": speed} | _row(card, pixels, speed) for size, pixels in SIZES.items() for speed in speeds
    ]


def _row(card: Card, size: tuple[int, int], speed: Speed) -> dict[str, Any]:
    weights: Published = "bf16" if speed == "exact" else "int8" if card.fp8 is None else "fp8"
    kept = Caching(TURBO, 0.05, STEPS).kept(1) if speed == "turbo" else 0
    work = Work(size, plan_segments(LENGTH, LENGTH, 1), STEPS, kept=kept)
    error = TURBO_ERROR if speed == "turbo" else 0.0  # as `wanted_attention_error` of a GPU with Triton
    settings = RuntimeSettings(speed=speed, weights_dtype=weights, attention_error=error)
    machine = Machine(torch.device("cuda"), card.name, card.room, HOST, card.rates(speed), eight=True)
    try:
        plan = make_plan(published_networks(weights), work, settings, machine)
    except OutOfMemory as error:
        return {"weights": weights, "placement": str(error), "GPU GiB": None, "host GiB": None, "seconds a step": None}
    seconds = plan.step_seconds * (TURBO_SHARE if speed == "turbo" else 1)
    return {
        "weights": weights, "placement": str(plan.placement), "GPU GiB": round(plan.gpu / GIB, 1),
        "host GiB": round(plan.host / GIB, 1), "seconds a step": round(seconds, 1),
    }  # fmt: skip
