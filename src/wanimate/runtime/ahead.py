"""Triton's kernels compiled side by side while weights are read: alone and one after the other they take a first process 17 s.

The networks run once on tensors without values, patched as those of the job will be. Kernels that get such tensors are compiled
and not run (`kernels.jit`), for the very types, sizes and alignments of the job. Whoever launches one later finds it in memory
or in Triton's own cache. What is not foreseen is compiled when it is launched, as ever: lists of blocks that are left out,
layers with LoRAs beside them, segments that are shorter than the longest one, attention trials.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from threading import Thread
from typing import Any

import torch
import torch.nn.functional as F

from wanimate.config import Speed
from wanimate.log import LOG
from wanimate.model.attention import attention as attention_of_torch
from wanimate.model.params import TransformerParams, VaeParams
from wanimate.model.vae import VideoVae, order_of
from wanimate.runtime.backends import backends
from wanimate.runtime.fused_vae import optimize_vae
from wanimate.runtime.kept import kept_json
from wanimate.runtime.kernels.eight import EightBits
from wanimate.runtime.offload import chunk_tokens
from wanimate.runtime.optimize import measured_key, optimize_transformer
from wanimate.runtime.planning.simulate import WithoutValues, hollow_transformer
from wanimate.runtime.tiling import CELL, TiledVae


@dataclass(frozen=True)
class Shapes:
    """What kernels depend on. `kind`: of the blocks' quantised weights, None where they are not; `attention`: name of the
    backend; `size`: width and height in pixels; `length`: frames of a segment; `texts`: tokens of each prompt (without them no
    kernel of the transformer is compiled); `chunk`: latent frames that the VAE takes at once; `tile`, `token_chunk`: as in
    `planning.plan.Placement`."""

    params: TransformerParams
    vae: VaeParams
    dtype: torch.dtype
    kind: torch.dtype | None
    speed: Speed
    attention: str
    size: tuple[int, int]
    length: int
    texts: tuple[int, ...]
    chunk: int
    tile: int | None = None
    token_chunk: int | None = None


def compile_ahead(shapes: Shapes, device: torch.device) -> Thread:
    """Have the kernels for these shapes compiled by other threads, once a machine (`runtime.kept`). A failure is logged: what
    is not compiled now is compiled when it is launched."""
    thread = Thread(target=_compile_once, args=(shapes, device), name="compile-ahead", daemon=True)
    thread.start()
    return thread


def _compile_once(shapes: Shapes, device: torch.device) -> None:
    key = ["compiled ahead", *measured_key(device), {name: str(value) for name, value in asdict(shapes).items()}]
    try:
        kept_json("planned", key, lambda: compile_for(shapes, device))
    except Exception as error:  # a compiler's own kinds, too; Triton 3.4 cannot do it
        LOG.info("kernels are not compiled ahead (%s)", error)


def compile_for(shapes: Shapes, device: torch.device) -> None:
    """Compile what `run_without_values` calls, in several threads. One that is launched before it is done is compiled twice."""
    from triton import AsyncCompileMode

    workers = max(1, (os.cpu_count() or 2) // 2)  # the others read weights
    with torch.cuda.device(device), ThreadPoolExecutor(workers) as threads, AsyncCompileMode(threads):
        run_without_values(shapes, device)


class _AsOnGpu(WithoutValues):
    """Convolutions give channels last, as cuDNN does for weights in that order. No two tensors are the same, so that nothing is
    spared."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.equal:
            return False
        out = super().__torch_function__(func, types, args, kwargs)
        return out.contiguous(memory_format=order_of(out)) if func in (F.conv2d, F.conv3d) else out


def run_without_values(shapes: Shapes, device: torch.device) -> None:
    """Call every kernel that a job of these shapes on `device` calls, but for those named above, with tensors on `meta`."""
    with torch.device("meta"), _AsOnGpu(), torch.inference_mode():
        _run_vae(shapes)
        for text in shapes.texts:
            _run_transformer(shapes, text, device)


def _run_vae(shapes: Shapes) -> None:
    """Pieces of all sizes: the first one, a whole one and the last one."""
    vae = VideoVae(shapes.vae).eval().channels_last()
    optimize_vae(vae, shapes.speed)
    whole, rest = divmod((shapes.length + 3) // 4 - 1, shapes.chunk)
    frames = 1 + min(1, whole) * shapes.chunk + rest
    width, height = shapes.size
    tiled = TiledVae(vae, shapes.tile)
    tiled.encode(torch.zeros(1, 3, 4 * frames - 3, height, width), shapes.chunk)
    latents = torch.zeros(1, shapes.vae.latent, frames, height // CELL, width // CELL)
    for _ in tiled.decode_pieces(latents, shapes.chunk):
        pass


def _run_transformer(shapes: Shapes, text: int, device: torch.device) -> None:
    p = shapes.params
    model = hollow_transformer(p, shapes.dtype, shapes.kind)
    chunk_tokens(model, shapes.token_chunk)
    optimize_transformer(model, device, shapes.speed, shapes.attention)
    if not isinstance(backends()[shapes.attention].attend, EightBits):  # it has none of these kernels
        for block in model.blocks.children():
            block.self_attn.attend = attention_of_torch  # type: ignore[union-attr]
    width, height = (n // CELL for n in shapes.size)
    frames = (shapes.length + 3) // 4
    image = None if p.image_width is None else torch.zeros(1, 257, p.image_width)
    faces = torch.zeros(1, frames + 1, p.face_slots + 1, p.dim, dtype=shapes.dtype)
    pose = torch.zeros(1, p.out_channels, frames, height, width)
    context = model.context(torch.zeros(1, text, p.text_width), image, faces, pose)
    x = torch.zeros(1, p.out_channels, frames + 1, height, width)
    y = torch.zeros(1, p.in_channels - p.out_channels, frames + 1, height, width)
    model(x, torch.zeros(1, dtype=torch.int64), y, context)
