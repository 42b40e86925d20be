"""A guard of speed that needs no clock: what one step of a small network calls, counted.

Whatever does not depend on the step belongs to `AnimateTransformer.prepare`. Work that slips back into the loop shows here as
more linear layers, attentions, convolutions or operators than a step is due. A change that saves some lowers the numbers; one
that needs more has to say why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from wanimate.config import CacheKind
from wanimate.model.transformer import AnimateTransformer
from wanimate.sampling.cache import Caching
from wanimate.sampling.denoise import denoise
from wanimate.sampling.guidance import guided
from wanimate.types import Conditions

BLOCKS, FUSERS = 4, 2
LINEARS = BLOCKS * (4 + 2 + 2) + FUSERS * 2 + 3 + 1
"""Self-attention's four, cross-attention's query and output, the feed-forward; a fuser's query and output; three of the time;
the head."""
ATTENTIONS = BLOCKS * (1 + 2) + FUSERS
"""Self-attention, text and image; a fuser's."""
OPERATORS = 500
"""ATen operators of a step besides views, as counted with PyTorch 2.13 on the CPU in inference mode."""
VIEWS = (
    "view",
    "reshape",
    "expand",
    "permute",
    "transpose",
    "slice",
    "select",
    "unsqueeze",
    "split",
    "t",
    "detach",
    "alias",
)


class Operators(TorchDispatchMode):
    """ATen operators, by name; views are not counted."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__.split(".")[0]
        if name.strip("_") not in VIEWS and "view" not in name:
            self.seen[name] += 1
        return func(*args, **(kwargs or {}))


class Calls(TorchFunctionMode):
    """Linear layers, attentions and convolutions, however they are computed below."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (F.linear, F.scaled_dot_product_attention, F.conv3d, torch.conv3d, torch.conv2d, torch.conv1d):
            self.seen[func.__name__] += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def counting() -> Iterator[tuple[Counter[str], Counter[str]]]:
    operators, calls = Operators(), Calls()
    with torch.inference_mode(), calls, operators:
        yield operators.seen, calls.seen


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_what_a_step_calls(model: AnimateTransformer, conditions: Conditions, noise: Tensor, scale: float) -> None:
    network = guided(model, conditions, scale)
    branches = 1 if scale == 1 else 2
    with counting() as (operators, calls):
        network(noise, torch.tensor(700))
    assert calls["linear"] == branches * LINEARS
    assert calls["scaled_dot_product_attention"] == branches * ATTENTIONS
    assert {name: n for name, n in calls.items() if name.startswith("conv")} == {"conv3d": branches}  # the patches
    total = sum(operators.values())
    assert total <= branches * OPERATORS + 4, f"{total} operators: {operators.most_common(12)}"


def test_every_step_calls_the_same(model: AnimateTransformer, conditions: Conditions, noise: Tensor) -> None:
    """The first step is no dearer than the others, and nothing is measured again after it."""
    network = guided(model, conditions, 1.0)
    each = []
    for t in (900, 500, 100):
        with counting() as (operators, _):
            network(noise, torch.tensor(t))
        each.append(operators)
    assert each[0] == each[1] == each[2]


def test_no_step_waits_for_the_device(model: AnimateTransformer, conditions: Conditions, noise: Tensor) -> None:
    """`item` and its like make the host wait; without a cache the loop has none of them."""
    network = guided(model, conditions, 1.0)
    with counting() as (operators, _):
        for t in (900, 500):
            network(noise, torch.tensor(t))
    assert not [name for name in operators if "local_scalar_dense" in name or "nonzero" in name or "is_nonzero" in name]


@pytest.mark.parametrize("kind", [kind for kind in get_args(CacheKind) if kind != "none"])
def test_a_cache_costs_one_wait_a_step(
    model: AnimateTransformer, conditions: Conditions, noise: Tensor, kind: CacheKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[int] = []
    network = guided(model, conditions, 2.0, Caching(kind, 1e-30, 12))
    waits, usual = [], Tensor.tolist
    monkeypatch.setattr(Tensor, "tolist", lambda self: (waits.append(self.numel()), usual(self))[1])
    for i in range(12):
        with Operators() as operators:
            network(noise, torch.tensor(900 - 50 * i))
        assert len(waits) <= 1
        assert not [name for name in operators.seen if "local_scalar_dense" in name]
        found += waits
        waits.clear()
    assert found


def test_solvers_add_little(model: AnimateTransformer, conditions: Conditions, noise: Tensor) -> None:
    """A loop of six steps is six steps of the network and a few dozen operators of the solver."""
    network = guided(model, conditions, 1.0)
    with counting() as (one, _):
        network(noise, torch.tensor(700))
    with counting() as (operators, calls):
        for _ in denoise(network, noise, "dpm++", 6, 3.0):
            pass
    assert calls["linear"] == 6 * LINEARS
    assert sum(operators.values()) - 6 * sum(one.values()) < 6 * 60
