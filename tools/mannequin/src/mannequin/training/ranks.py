"""Several processes train one network, each with its own clips: one process a GPU, started by torchrun.

    torchrun --nproc-per-node 2 -m -- mannequin transformer ...

Without torchrun there is one process (`wanimate.train.common.ALONE`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from wanimate.train.common import ALONE, Process


class Ranks(Process):
    """This process among those that torchrun started. Rank 0 keeps the clock, the averages, the log and the files."""

    pace = 20

    def __init__(self) -> None:
        self.rank, self.count = dist.get_rank(), dist.get_world_size()

    @torch.no_grad()
    def average(self, weights: Sequence[Tensor]) -> None:
        """Replace the gradients by their mean over the processes, in one message."""
        gradients = [w.grad for w in weights if w.grad is not None]
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        parts = flat.div_(self.count).split([g.numel() for g in gradients])
        torch._foreach_copy_(gradients, [p.view_as(g) for p, g in zip(parts, gradients, strict=True)])

    def agree(self, value: float) -> float:
        """Rank 0's value, through the CPU: the GPU is not waited for."""
        shared = torch.tensor(value, dtype=torch.float64)
        dist.broadcast(shared, 0)
        return shared.item()


def align(module: nn.Module, ranks: Process) -> None:
    """Give every process rank 0's weights."""
    if ranks.count > 1:
        for tensor in module.state_dict().values():
            dist.broadcast(tensor, 0)


def join(device: str) -> tuple[Process, torch.device]:
    """The group that torchrun announced, and this process's own device: GPU number LOCAL_RANK for "cuda"."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    where = torch.device(device)
    if count == 1:
        return ALONE, where
    if where.type == "cuda":
        where = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(where)
    dist.init_process_group("cpu:gloo,cuda:nccl" if where.type == "cuda" else "gloo")
    return Ranks(), where
