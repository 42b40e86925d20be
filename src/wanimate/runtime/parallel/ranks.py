"""The processes of one job: who is who, and handing values around.

A launcher (`supervise`, or torchrun) starts one process a rank and announces the group in the environment.
"""

from __future__ import annotations

import io
import os
import pickle
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from wanimate.config import LoraUse, ParallelSettings, RuntimeSettings
from wanimate.errors import InputError
from wanimate.sampling.cache import Caching
from wanimate.types import Conditions

PATIENCE = timedelta(days=7)
"""How long a rank waits for its next call; a rank that dies is noticed by its supervisor, and by its closed connections."""

LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"
"""The interface on which the ranks of a machine meet."""

_all_gather = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)  # its name from PyTorch 2.13 on


@dataclass
class Sending:
    """What a group is exchanging: `out` is filled once `work` is done, and until then `held` is read. Its numbers are of
    `dtype`, also where it holds `words`."""

    out: Tensor
    dtype: torch.dtype
    work: Any = None
    held: Tensor | None = None

    def arrived(self) -> Tensor:
        """The result. On a GPU what is computed from now on waits for it, and this process does not."""
        if self.work is not None:
            self.work.wait()
            self.work = self.held = None
        return self.out


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

    def sending(self, x: Tensor, dtype: torch.dtype) -> Sending:
        """Part i of x [size, ...] goes to member i; part i of the result comes from member i. That goes on beside what is
        computed until the result is asked for. `dtype`: of the numbers, also where x holds `words`."""
        if self.size == 1:
            return Sending(x, dtype)
        x = x.contiguous()
        out = torch.empty_like(x)
        work = dist.all_to_all_single(out, x, group=self.handle, async_op=True)
        return Sending(out, dtype, work, x)


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
        """Rank 0: hand a value to all others. Tensors in it go on their own kind of device, the rest as `pack`."""
        packed, tensors = pack(value)
        kinds = pack([(tuple(t.shape), t.dtype, t.device.type) for t in tensors])[0]
        sizes = torch.tensor([len(packed), len(kinds)])
        dist.broadcast(sizes, 0, group=self.control)
        dist.broadcast(torch.frombuffer(bytearray(packed + kinds), dtype=torch.uint8), 0, group=self.control)
        for tensor in tensors:
            dist.broadcast(tensor.contiguous(), 0)

    def receive(self) -> Any:
        """The other ranks: the next value that rank 0 sends."""
        sizes = torch.zeros(2, dtype=torch.int64)
        dist.broadcast(sizes, 0, group=self.control)
        length = int(sizes[0])
        message = torch.empty(int(sizes.sum()), dtype=torch.uint8)
        dist.broadcast(message, 0, group=self.control)
        received = message.numpy().tobytes()
        tensors = []
        for shape, dtype, kind in unpack(received[length:]):
            tensor = torch.empty(shape, dtype=dtype, device=self.device if kind == "cuda" else "cpu")
            dist.broadcast(tensor, 0)
            tensors.append(tensor)
        return unpack(received[:length], tensors)


def pack(value: Any) -> tuple[bytes, list[Tensor]]:
    """A call between ranks as bytes, and the tensors that were in it."""
    packed = io.BytesIO()
    pickler = _Pickler(packed)
    pickler.dump(value)
    return packed.getvalue(), pickler.tensors


def unpack(packed: bytes, tensors: Sequence[Tensor] = ()) -> Any:
    """The opposite of `pack`.

    Raises:
        pickle.UnpicklingError: it names something that is no value of a call, so that nothing of a stranger's can run.
    """
    return _Unpickler(io.BytesIO(packed), tensors).load()


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
    """Makes plain values, settings and dtypes, and nothing else."""

    def __init__(self, file: io.BytesIO, tensors: Sequence[Tensor]) -> None:
        super().__init__(file)
        self.tensors = tensors

    def persistent_load(self, place: Any) -> Tensor:
        return self.tensors[place]

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _VALUES:
            return super().find_class(module, name)
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        raise pickle.UnpicklingError(f"{module}.{name} is no value of a call between ranks")


_VALUES = {(kind.__module__, kind.__qualname__) for kind in (
    LoraUse, ParallelSettings, RuntimeSettings, Conditions, Caching, type(Path()),
)}  # fmt: skip


def launched() -> int:
    """How many ranks a launcher such as torchrun has started, of which this process is one; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def join(meeting: Path | None = None, rank: int = 0, count: int = 0) -> Ranks:
    """Join a group of ranks: through NCCL on GPU number `rank`, without a GPU through gloo.

    meeting: a file in a private folder where `count` ranks of this machine find each other; None: the ranks and their
    addresses are those that a launcher has announced in the environment.

    Raises:
        InputError: this machine has fewer GPUs than ranks.
    """
    if meeting is None:
        rank, count = int(os.environ["RANK"]), launched()
    local = int(os.environ.get("LOCAL_RANK", str(rank)))
    device = torch.device("cpu")
    if torch.cuda.is_available():
        check_gpus(count)
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    if meeting is None:
        dist.init_process_group(backend)
    else:
        # gloo would listen on the address of the machine's name, NCCL on that of a network; the ranks are all here.
        os.environ |= {"GLOO_SOCKET_IFNAME": LOOPBACK, "NCCL_SOCKET_IFNAME": LOOPBACK}
        store: Any = dist.FileStore(str(meeting), count)  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=store, rank=rank, world_size=count)
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


def check_gpus(count: int) -> None:
    """Raises InputError where this machine has GPUs, but fewer than `count`."""
    if torch.cuda.is_available() and torch.cuda.device_count() < count:
        found = torch.cuda.device_count()
        raise InputError("parallel.gpus", count, f"this machine has {found}", f"Give at most {found}.")


def leave(broken: bool = False) -> None:
    """Take the group down. `broken`: some of the ranks are gone or stuck, so that nobody waits for them."""
    if not dist.is_initialized():
        return
    if broken and torch.cuda.is_available():
        dist.distributed_c10d._abort_process_group()
    else:
        dist.destroy_process_group()
