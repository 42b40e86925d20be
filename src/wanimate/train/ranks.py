"""Several processes train one network, each with its own clips: one process a GPU, started by torchrun.

    torchrun --nproc-per-node 2 -m -- wanimate.train transformer ...

Without torchrun there is one process and every call here does nothing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class Ranks:
    """This process among `count`. Rank 0 keeps the clock, the averages, the log and the files."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    @property
    def pace(self) -> int:
        """How many steps apart the processes agree on the time."""
        return 1 if self.count == 1 else 20

    @torch.no_grad()
    def average(self, weights: Sequence[Tensor]) -> None:
        """Replace the gradients by their mean over the processes, in one message."""
        if self.count == 1:
            return
        gradients = [w.grad for w in weights if w.grad is not None]
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        parts = flat.div_(self.count).split([g.numel() for g in gradients])
        torch._foreach_copy_(gradients, [p.view_as(g) for p, g in zip(parts, gradients, strict=True)])

    def agree(self, value: float) -> float:
        """Rank 0's value, through the CPU: the GPU is not waited for."""
        if self.count == 1:
            return value
        shared = torch.tensor(value, dtype=torch.float64)
        dist.broadcast(shared, 0)
        return shared.item()

    def align(self, module: nn.Module) -> None:
        """Give every process rank 0's weights."""
        if self.count > 1:
            for tensor in module.state_dict().values():
                dist.broadcast(tensor, 0)


ALONE = Ranks()


def join(device: str) -> tuple[Ranks, torch.device]:
    """The group that torchrun announced, and this process's own device: GPU number LOCAL_RANK for "cuda"."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    where = torch.device(device)
    if count == 1:
        return ALONE, where
    if where.type == "cuda":
        where = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(where)
    dist.init_process_group("cpu:gloo,cuda:nccl" if where.type == "cuda" else "gloo")
    return Ranks(dist.get_rank(), count), where
