"""What LoRAs make of a transformer, which itself is never touched.

`LoraStack` makes a view that shares its tensors, so that removing a LoRA is dropping the view. Whatever the view prepares for a
segment is therefore prepared with the LoRA.
"""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from wanimate.config import LoraUse
from wanimate.model.transformer import AnimateTransformer
from wanimate.weights.changes import LowRank
from wanimate.weights.lora import Lora
from wanimate.weights.quantize import QuantizedLinear

_OFF_THE_VIDEO = re.compile(r"cross_attn\.[kv](_img)?$")
"""Layers that see the prompt and the picture, once a segment."""
ROWS = 8192
"""Tokens handled at once beside the weights: float32 copies of a whole video would take more than the layer itself."""


@dataclass(frozen=True)
class LoraSizes:
    """What the views of a job hold besides the tensors that they share.

    beside: bytes of low-rank parts beside the weights, always on the computing device; rank: the largest sum of ranks beside
    one layer; values: numbers in all such parts that one token of the video meets in a step. Of own copies of tensors, the
    number of their values: in all blocks, in the block with most of them, and elsewhere.
    """

    beside: int = 0
    rank: int = 0
    values: int = 0
    blocks: int = 0
    block: int = 0
    others: int = 0


class LoraStack:
    """A transformer with several LoRAs, each with its strength and its share of the denoising steps.

    Low-rank parts of the blocks' linears stay beside the weights and are added to their outputs in float32, whatever the
    weights' type; everything else, DoRA, LoHa and LoKr among it, is added to the view's own copy of a weight. `fuse` does the
    latter with all: faster, but it holds a second copy of every changed weight, rounded once to the weights' type. `place`
    brings a new view's own tensors where they are to live.
    """

    def __init__(
        self, model: AnimateTransformer, loras: Sequence[tuple[Lora, LoraUse]], fuse: bool = False,
        place: Callable[[AnimateTransformer], None] | None = None,
    ) -> None:  # fmt: skip
        self.model, self.loras, self.fuse, self.place = model, tuple(loras), fuse, place
        self._views: dict[tuple[int, ...], AnimateTransformer] = {(): model}

    def active(self, step: int, steps: int) -> tuple[int, ...]:
        """Which LoRAs act in `step` (from 0) of `steps`."""
        return tuple(i for i, (_, use) in enumerate(self.loras) if use.strength and use.acts(step, steps))

    def transformer(self, active: tuple[int, ...]) -> AnimateTransformer:
        """The view with these LoRAs, made once; with none it is the transformer itself."""
        if active not in self._views:
            strengths = [(self.loras[i][0], self.loras[i][1].strength) for i in active]
            view = with_loras(self.model, strengths, self.fuse)
            if self.place is not None:
                self.place(view)
            self._views[active] = view
        return self._views[active]

    def sizes(self, steps: int) -> LoraSizes:
        """Of all views that so many steps need. Only shapes count, so that the transformer may be on the meta device."""
        beside = rank = values = blocks = most = others = 0
        parameters = dict(self.model.named_parameters())
        for active in {self.active(step, steps) for step in range(steps)}:
            ranks: Counter[str] = Counter()
            copied: set[str] = set()
            met = 0
            for lora in (self.loras[i][0] for i in active):
                copied |= {*lora.full, *(f"{part.module}.weight" for part in lora.changes)}
                for part in lora.low_rank:
                    if not _stays_beside(part, self.model, self.fuse):
                        copied.add(f"{part.module}.weight")
                        continue
                    beside += part.down.nbytes + part.up.nbytes
                    ranks[part.module] += len(part.down)
                    met += 0 if _OFF_THE_VIDEO.search(part.module) else part.down.numel() + part.up.numel()
            by_block: Counter[str] = Counter()
            for name in copied:
                first, _, rest = name.partition(".")
                by_block[rest.partition(".")[0] if first == "blocks" else ""] += parameters[name].numel()
            others += by_block.pop("", 0)
            blocks, most = blocks + by_block.total(), max(most, *by_block.values(), 0)
            rank, values = max(rank, *ranks.values(), 0), max(values, met)
        return LoraSizes(beside, rank, values, blocks, most, others)


@torch.no_grad()
def with_loras(
    model: AnimateTransformer, loras: Sequence[tuple[Lora, float]], fuse: bool = False
) -> AnimateTransformer:
    """A transformer with these LoRAs at these strengths; it shares all unchanged tensors with `model`, which stays as it is.

    Changes of weights are made one weight after the other, in float32, all together being twice the transformer; on the
    transformer's device, also where its blocks are in host memory. Each is made from the weight as it is in `model`, so that
    the order of the LoRAs does not matter.
    """
    shared = {id(t): t for t in (*model.parameters(), *model.buffers())}
    view = copy.deepcopy(model, dict(shared))
    changes: dict[str, list[Callable[[Tensor], Tensor]]] = {}
    branches: dict[str, list[tuple[LowRank, float]]] = {}
    device = model.patch_embedding.weight.device  # the blocks' own may be the host's, between their turns
    for lora, strength in loras:
        for part in lora.low_rank:
            if _stays_beside(part, model, fuse):
                branches.setdefault(part.module, []).append((_moved(part, device), strength))
                continue
            changes.setdefault(f"{part.module}.weight", []).append(partial(part.delta, strength))
        for change in lora.changes:
            changes.setdefault(f"{change.module}.weight", []).append(partial(change.delta, strength))
        for name, tensor in lora.full.items():
            changes.setdefault(name, []).append(partial(_difference, tensor, strength))
    for name, deltas in changes.items():
        module, _, leaf = name.rpartition(".")
        owner = view.get_submodule(module)
        if isinstance(owner, QuantizedLinear) and leaf == "weight":
            parent, _, own_name = module.rpartition(".")
            layer = owner.holding(_changed(owner.value_on(device), deltas), model.dtype)
            setattr(view.get_submodule(parent), own_name, layer)
            continue
        weight = owner.get_parameter(leaf)
        changed = _changed(weight.to(device).float(), deltas).to(weight.dtype).to(weight.device)
        setattr(owner, leaf, nn.Parameter(changed, requires_grad=weight.requires_grad))
    for name, parts in branches.items():
        view.get_submodule(name).register_forward_hook(Branches(parts))
    return view


def _stays_beside(part: LowRank, model: AnimateTransformer, fuse: bool) -> bool:
    inside = part.module.startswith("blocks.") and isinstance(model.get_submodule(part.module), nn.Linear)
    return inside and not fuse


def _changed(weight: Tensor, deltas: Sequence[Callable[[Tensor], Tensor]]) -> Tensor:
    """A weight, float32, with all of its changes, each made from the weight as it was."""
    delta = deltas[0](weight)
    for more in deltas[1:]:
        delta += more(weight)
    return weight + delta


def _difference(tensor: Tensor, strength: float, weight: Tensor) -> Tensor:
    return tensor.to(weight.device).float() * strength


class Branches:
    """Forward hook of a linear: its output plus the low-rank parts, summed in float32, some tokens at a time, in place."""

    def __init__(self, parts: Sequence[tuple[LowRank, float]]) -> None:
        self.parts = parts

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
        x, y = inputs[0].flatten(0, -2), out.view(-1, out.shape[-1])
        for i in range(0, len(y), ROWS):
            s = slice(i, i + ROWS)
            total = y[s].float()
            for part, strength in self.parts:
                total += part.branch(x[s], strength)
            y[s] = total
        return out


def _moved(part: LowRank, device: torch.device) -> LowRank:
    return LowRank(part.module, part.half, part.down.to(device), part.up.to(device), part.scale)
