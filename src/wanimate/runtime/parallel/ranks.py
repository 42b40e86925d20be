"""The processes of one job: who is who, and handing values around.

A launcher (`supervise`, or torchrun) starts one process a rank and announces the group in the environment.
"""

from __future__ import annotations

import io
import os
import pickle
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from wanimate.errors import InputError

PATIENCE = timedelta(days=7)
"""How long a rank waits for its next call; a rank that dies is noticed by its supervisor, and by its closed connections."""

_all_gather = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)  # its name from PyTorch 2.13 on


@dataclass(frozen=True)
class Group:
    """Some of the ranks, of which this process is number `index`. `handle` None is a group of one, without communication."""

    index: int = 0
    size: int = 1
    handle: Any = None

    def gather(self, x: Tensor) -> Tensor:
        """x of every member, equal in shape and not a scalar, stacked in front: [size, ...]."""
        if self.size == 1:
            return x[None]
        out = x.new_empty(self.size, *x.shape)
        _all_gather(out.flatten(0, 1), x.contiguous(), group=self.handle)
        return out

    def exchange(self, x: Tensor) -> Tensor:
        """Part i of x [size, ...] goes to member i; part i of the result came from member i."""
        if self.size == 1:
            return x
        out = torch.empty_like(x, memory_format=torch.contiguous_format)
        dist.all_to_all_single(out, x.contiguous(), group=self.handle)
        return out


@dataclass(frozen=True)
class Ranks:
    """This process among `everyone`. With an even count there is also its `half` and its `pair`, one rank of either half."""

    device: torch.device
    everyone: Group
    half: Group | None
    pair: Group | None
    control: Any

    @property
    def first(self) -> bool:
        return self.everyone.index == 0

    @property
    def count(self) -> int:
        return self.everyone.size

    def send(self, value: Any) -> None:
        """Rank 0: hand a value to all others. Tensors in it go on their own kind of device, the rest is pickled."""
        packed = io.BytesIO()
        pickler = _Pickler(packed)
        pickler.dump(value)
        kinds = [(tuple(t.shape), t.dtype, t.device.type) for t in pickler.tensors]
        dist.broadcast_object_list([packed.getvalue(), kinds], 0, group=self.control)
        for tensor in pickler.tensors:
            dist.broadcast(tensor.contiguous(), 0)

    def receive(self) -> Any:
        """The other ranks: the next value that rank 0 sends."""
        message: list[Any] = [None, None]
        dist.broadcast_object_list(message, 0, group=self.control)
        tensors = []
        for shape, dtype, kind in message[1]:
            tensor = torch.empty(shape, dtype=dtype, device=self.device if kind == "cuda" else "cpu")
            dist.broadcast(tensor, 0)
            tensors.append(tensor)
        return _Unpickler(io.BytesIO(message[0]), tensors).load()


class _Pickler(pickle.Pickler):
    """Leaves tensors out and keeps them in order."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.tensors: list[Tensor] = []

    def persistent_id(self, value: Any) -> int | None:
        if not isinstance(value, Tensor):
            return None
        self.tensors.append(value)
        return len(self.tensors) - 1


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, tensors: list[Tensor]) -> None:
        super().__init__(file)
        self.tensors = tensors

    def persistent_load(self, place: Any) -> Tensor:
        return self.tensors[place]


def announced() -> int:
    """How many ranks the environment announces; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def join() -> Ranks:
    """Join the ranks that the environment announces: on GPU number LOCAL_RANK through NCCL, without a GPU through gloo.

    Raises:
        InputError: this machine has fewer GPUs than ranks.
    """
    count, local = announced(), int(os.environ.get("LOCAL_RANK", os.environ.get("RANK", "0")))
    device = torch.device("cpu")
    if torch.cuda.is_available():
        if local >= torch.cuda.device_count():
            rule = f"this machine has {torch.cuda.device_count()} GPUs"
            raise InputError("parallel.gpus", count, rule, f"Give at most {torch.cuda.device_count()}.")
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    rank = dist.get_rank()
    control = dist.new_group(backend="gloo", timeout=PATIENCE)
    half = pair = None
    if count % 2 == 0:
        middle = count // 2
        for start in (0, middle):
            handle = dist.new_group(list(range(start, start + middle)))
            if start <= rank < start + middle:
                half = Group(rank - start, middle, handle)
        for low in range(middle):
            handle = dist.new_group([low, low + middle])
            if rank % middle == low:
                pair = Group(rank // middle, 2, handle)
    return Ranks(device, Group(rank, count, dist.group.WORLD), half, pair, control)


def leave() -> None:
    """Take the group down; every rank has to call it."""
    if dist.is_initialized():
        dist.destroy_process_group()
