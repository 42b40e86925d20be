"""A transformer whose blocks stay in host memory and visit the GPU when their turn comes, copied one ahead.

The blocks keep their names and their values; only what iterates over `transformer.blocks` sees them with tensors on the
device. While a block computes, the next one is copied on a stream of its own, so that the copy hides behind the computing.
Host memory is page-locked where the system allows it, or the mapped checkpoint file itself; what a LoRA view has of its own is
page-locked beside either.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Container, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from wanimate.log import LOG
from wanimate.model.face import FaceFuser, FaceKV
from wanimate.model.rope import Rope
from wanimate.model.transformer import AnimateTransformer, Block, CrossKV, Head
from wanimate.runtime.patches import install, method

ALIGNMENT = 256


@dataclass(eq=False)
class _Slot:
    """Room on the device for one block: `tensors` in the order of `_tensors`, of `block` once `pending` is done."""

    tensors: list[Tensor] = field(default_factory=list)
    block: nn.Module | None = None
    pending: Future[None] | None = None
    copied: torch.cuda.Event | None = None
    free: torch.cuda.Event | None = None


class BlockPrefetcher:
    """Two slots on a device and the stream that fills them; shared by a transformer and its LoRA views."""

    def __init__(self, device: torch.device | str) -> None:
        self.device = torch.device(device)
        self._stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None
        self._worker = ThreadPoolExecutor(1, "wanimate-blocks")
        self._slots = [_Slot(), _Slot()]
        self._turn = 0
        self._away: list[tuple[dict[str, Any], str, Tensor]] = []

    def prefetch(self, block: nn.Module) -> _Slot:
        """Start copying a block into the slot that is not in use, unless it is there or on its way."""
        for slot in self._slots:
            if slot.block is block:
                return slot
        slot = self._slots[self._turn]
        self._turn = 1 - self._turn
        home = [tensor for _, _, tensor in _tensors(block)]
        same = [(t.shape, t.dtype) for t in slot.tensors] == [(t.shape, t.dtype) for t in home]
        if slot.pending is not None:
            slot.pending.exception()  # what it was filled with is of no use any more
        slot.block, slot.pending = None, None
        if not same:
            if self._stream is not None:
                self._stream.synchronize()  # nothing may still be on its way into what is given back now
            slot.tensors = []  # before the new ones, which may need its room
            slot.tensors = [torch.empty_like(tensor, device=self.device) for tensor in home]
        if self._stream is not None:
            if same and slot.free is not None:
                self._stream.wait_event(slot.free)
            else:
                self._stream.wait_stream(torch.cuda.current_stream(self.device))
        slot.block = block
        slot.pending = self._worker.submit(self._fill, slot, home)
        return slot

    @torch.inference_mode()
    def _fill(self, slot: _Slot, home: list[Tensor]) -> None:
        if self._stream is None:
            for here, there in zip(slot.tensors, home, strict=True):
                here.copy_(there)
            return
        with torch.cuda.stream(self._stream):
            for here, there in zip(slot.tensors, home, strict=True):
                here.copy_(there, non_blocking=True)
            slot.copied = self._stream.record_event()

    def load(self, block: nn.Module) -> _Slot:
        """Give a block its tensors on the device; `unload` undoes it."""
        slot = self.prefetch(block)
        self._turn = 1 - self._slots.index(slot)  # this one is in use now
        assert slot.pending is not None
        try:
            slot.pending.result()
        except BaseException:
            slot.block = None
            raise
        if slot.copied is not None:
            torch.cuda.current_stream(self.device).wait_event(slot.copied)
        places = _tensors(block)
        self._away += places
        for (table, name, _), tensor in zip(places, slot.tensors, strict=True):
            table[name] = tensor
        return slot

    def unload(self, slot: _Slot | None = None) -> None:
        """Give every block its own tensors back; `slot` may be filled again once what was computed with it is done."""
        for table, name, tensor in self._away:
            table[name] = tensor
        self._away.clear()
        if slot is not None and self._stream is not None:
            slot.free = torch.cuda.current_stream(self.device).record_event()

    def clear(self) -> None:
        """Give the memory of the slots back."""
        self.unload()
        for slot in self._slots:
            if slot.pending is not None and slot.pending.exception() is None and self._stream is not None:
                self._stream.synchronize()
        self._slots = [_Slot(), _Slot()]

    def close(self) -> None:
        """`clear`, and let the copying thread end."""
        self.clear()
        self._worker.shutdown()


class StreamedBlocks(nn.ModuleList):
    """The blocks of a transformer; iterating lends them their tensors on the device, one block after the other."""

    def __init__(self, blocks: list[nn.Module], prefetcher: BlockPrefetcher) -> None:
        super().__init__(blocks)
        self.prefetcher = prefetcher

    def __iter__(self) -> Iterator[nn.Module]:
        blocks = list(self.children())
        self.prefetcher.unload()  # an earlier round may have been broken off
        for i, block in enumerate(blocks):
            slot = self.prefetcher.load(block)
            try:
                self.prefetcher.prefetch(blocks[(i + 1) % len(blocks)])
                yield block
            finally:
                self.prefetcher.unload(slot)

    def __deepcopy__(self, memo: dict[int, Any]) -> StreamedBlocks:
        """For LoRA views: other modules, the same prefetcher."""
        return StreamedBlocks([copy.deepcopy(block, memo) for block in self.children()], self.prefetcher)


def stream_blocks(model: AnimateTransformer, device: torch.device | str, lock: bool = True) -> None:
    """Leave the blocks in host memory, or bring them there, and stream them to `device` from now on.

    lock: copy them into page-locked memory, one block after the other; else they stay where they are, for instance in the
    mapped file of the checkpoint.
    """
    if isinstance(model.blocks, StreamedBlocks):
        model.blocks.prefetcher.clear()
        return
    blocks = list(model.blocks.children())
    for block in blocks:
        if lock and torch.device(device).type == "cuda":
            page_lock(block)
        else:
            block.to("cpu")
    model.blocks = StreamedBlocks(blocks, BlockPrefetcher(device))


def place_blocks(model: AnimateTransformer, device: torch.device | str) -> None:
    """The opposite of `stream_blocks`: the blocks live on `device` again."""
    if isinstance(model.blocks, StreamedBlocks):
        model.blocks.prefetcher.clear()
        model.blocks = nn.ModuleList([block.to(device) for block in model.blocks.children()])


def page_lock_changes(view: AnimateTransformer, model: AnimateTransformer) -> None:
    """Page-lock what streamed blocks of a LoRA view do not share with those of `model`, which stay as and where they are."""
    if isinstance(view.blocks, StreamedBlocks):
        shared = {id(tensor) for _, _, tensor in _tensors(model.blocks)}
        for block in view.blocks.children():
            page_lock(block, shared)


def page_lock(module: nn.Module, but: Container[int] = ()) -> None:
    """Move all tensors of a module, but for those with these ids, into one page-locked piece of host memory; ordinary memory
    where that is refused. One tensor at a time is there twice.

    PyTorch's own allocator for such memory rounds every tensor up to a power of two, which would cost 40 % more.
    """
    places = [place for place in _tensors(module) if id(place[2]) not in but]
    sizes = [-(-tensor.nbytes // ALIGNMENT) * ALIGNMENT for _, _, tensor in places]
    whole = torch.empty(sum(sizes), dtype=torch.uint8)
    for piece in whole.split(sizes):
        table, name, tensor = places.pop(0)
        here = piece[: tensor.nbytes].view(tensor.dtype).view(tensor.shape)
        here.copy_(tensor)
        table[name] = nn.Parameter(here, requires_grad=False) if isinstance(tensor, nn.Parameter) else here
        del tensor
    if len(whole):
        _lock(whole)  # last: it takes all of the pages at once


def _lock(memory: Tensor) -> None:
    """Page-lock memory until it is freed, where there is a GPU."""
    if not torch.cuda.is_available():
        return
    runtime, pointer = torch.cuda.cudart(), memory.data_ptr()
    if int(runtime.cudaHostRegister(pointer, memory.nbytes, 0)) == 0:
        weakref.finalize(memory.untyped_storage(), runtime.cudaHostUnregister, pointer)
    else:
        clear_error(torch.device("cuda"))
        LOG.warning("page-locked memory was refused; copies of the blocks may not hide behind the computing")


def clear_error(device: torch.device) -> None:
    """CUDA reports the error of a refused call once more at the next one: let that be this one."""
    with suppress(RuntimeError):
        torch.zeros(1, device=device)


def _tensors(module: nn.Module) -> list[tuple[dict[str, Any], str, Tensor]]:
    """Every parameter and buffer: the table it stands in, its name there, and itself."""
    tables = (table for part in module.modules() for table in (part._parameters, part._buffers))
    return [(table, name, tensor) for table in tables for name, tensor in table.items() if tensor is not None]


def chunk_tokens(model: AnimateTransformer, token_chunk: int | None) -> None:
    """Let the network handle `token_chunk` tokens at once wherever tokens do not look at each other; None is all of them.

    The results are the same up to rounding; the memory for what lies between a block's two ends shrinks to a third.
    """
    parts = (*model.blocks.children(), *model.face_adapter.fuser_blocks.children(), model.head)
    kinds: dict[type[nn.Module], Callable[[int], Any]] = {
        Block: _SlicedBlock,
        FaceFuser: _SlicedFuser,
        Head: _SlicedHead,
    }
    changes = [] if token_chunk is None else [method(part, "forward", kinds[type(part)](token_chunk)) for part in parts]
    install(model, "token chunks", changes)


@dataclass(frozen=True)
class _Sliced:
    token_chunk: int

    def of(self, length: int) -> list[slice]:
        return [slice(i, i + self.token_chunk) for i in range(0, length, self.token_chunk)]


class _SlicedBlock(_Sliced):
    """`Block.forward`; the residual stream is changed in place."""

    def __call__(self, block: Block, x: Tensor, e0: Tensor, rope: Rope, cross: CrossKV) -> Tensor:
        x = x.float()
        mixed = block.self_attn.attend(*self._before(block, x, e0, rope))
        for s in self.of(x.shape[1]):
            x[:, s] = block.after_attention(x[:, s], mixed[:, s], e0, cross)
        return x

    def _before(self, block: Block, x: Tensor, e0: Tensor, rope: Rope) -> tuple[Tensor, Tensor, Tensor]:
        shape = *x.shape[:2], block.self_attn.heads, x.shape[2] // block.self_attn.heads
        q, k, v = (x.new_empty(shape, dtype=block.self_attn.norm_q.weight.dtype) for _ in range(3))
        for s in self.of(x.shape[1]):
            q[:, s], k[:, s], v[:, s] = block.before_attention(x[:, s], e0, (rope[0][s], rope[1][s]))
        return q, k, v


class _SlicedFuser(_Sliced):
    """`FaceFuser.forward`; a slice is whole latent frames."""

    def __call__(self, fuser: FaceFuser, x: Tensor, kv: FaceKV) -> Tensor:
        assert x.shape[0] == 1, "frames of several videos are not told apart"
        k, v = kv
        tokens = x.shape[1] // len(k)
        few = max(1, self.token_chunk // tokens)
        out = x.new_empty(x.shape, dtype=k.dtype)
        for i in range(0, len(k), few):
            s = slice(i * tokens, (i + few) * tokens)
            out[:, s] = fuser.attend_faces(x[:, s], (k[i : i + few], v[i : i + few]))
        return out


class _SlicedHead(_Sliced):
    """`Head.forward`."""

    def __call__(self, head: Head, x: Tensor, e: Tensor) -> Tensor:
        return torch.cat([Head.forward(head, x[:, s], e) for s in self.of(x.shape[1])], dim=1)
