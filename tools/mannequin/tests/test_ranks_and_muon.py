"""Several processes train as one; Muon's updates are orthogonal."""

from __future__ import annotations

import os
import socket
from copy import deepcopy
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from torch import nn

from mannequin.training.muon import Muon, orthogonalise
from mannequin.training.ranks import align, join
from wanimate.train.common import ALONE, Budget


def _work(rank: int, port: int, out: str) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    ranks, device = join("cpu")
    torch.manual_seed(rank)
    layer = nn.Linear(3, 2).to(device)
    align(layer, ranks)
    (layer(torch.full((1, 3), float(rank + 1))).sum()).backward()
    ranks.average(list(layer.parameters()))
    budget = Budget(100, 1e9, every=2, agree=ranks.agree)
    budget.spent = 10.0 * (rank + 1)
    budget.tick()
    early = budget.spent
    budget.tick()
    torch.save(
        {"weight": layer.weight, "gradient": layer.weight.grad, "early": early, "spent": budget.spent,
         "rank": ranks.rank, "first": ranks.first}, Path(out) / f"{rank}.pt",
    )  # fmt: skip
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_share_weights_gradients_and_the_clock(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(_work, args=(port, str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert (first["rank"], second["rank"], first["first"], second["first"]) == (0, 1, True, False)
    assert torch.equal(first["weight"], second["weight"])
    for part in (first, second):
        torch.testing.assert_close(part["gradient"], torch.full((2, 3), 1.5))
    assert (first["early"], second["early"]) == (10.0, 20.0), "the clock is read every second step"
    assert first["spent"] == second["spent"]
    assert 10 <= first["spent"] < 15, "rank 0's clock counts"


def test_one_process_needs_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    ranks, device = join("cpu")
    assert (ranks, device) == (ALONE, torch.device("cpu"))
    layer = nn.Linear(2, 2)
    layer(torch.ones(1, 2)).sum().backward()
    before = layer.weight.grad
    assert before is not None
    kept = before.clone()
    align(layer, ranks)
    ranks.average(list(layer.parameters()))
    assert torch.equal(before, kept)
    assert ranks.agree(2.5) == 2.5


@pytest.mark.parametrize("shape", [(32, 32), (96, 32), (32, 96)])
def test_updates_are_nearly_orthogonal(shape: tuple[int, int]) -> None:
    matrices = torch.randn(3, *shape)
    made = orthogonalise(matrices)
    values = torch.linalg.svdvals(made)
    assert values.min() > 0.3
    assert values.max() < 1.3
    u, _, vh = torch.linalg.svd(matrices, full_matrices=False)
    aligned = (made * (u @ vh)).sum((1, 2)) / made.norm(dim=(1, 2)) / (u @ vh).norm(dim=(1, 2))
    assert (aligned > 0.95).all()


def test_muon_learns_and_goes_on_where_it_stopped() -> None:
    target = torch.randn(16, 16)

    def run(steps: int, weights: list[nn.Parameter], muon: Muon) -> None:
        for _ in range(steps):
            loss = sum((w - target).square().sum() for w in weights)
            muon.zero_grad()
            assert isinstance(loss, torch.Tensor)
            loss.backward()
            muon.step()

    weights = [nn.Parameter(torch.zeros(16, 16)) for _ in range(2)]
    muon = Muon(weights, lr=0.05)
    run(20, weights, muon)
    copies = [nn.Parameter(w.detach().clone()) for w in weights]
    again = Muon(copies, lr=0.05)
    again.load_state_dict(deepcopy(muon.state_dict()))
    run(60, weights, muon)
    run(60, copies, again)
    for weight, copy in zip(weights, copies, strict=True):
        assert torch.equal(weight, copy)
        assert (weight - target).norm() < 0.4 * target.norm()
