"""On CUDA: streamed blocks compute what resident ones do, the forecast is what the allocator gives out, caps hold."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "parity"))
sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "weights"))
from tiny_checkpoints import published_checkpoint, write_guides

from golden import fill
from wanimate.api import Animator
from wanimate.config import GenerateSettings, LoraUse, OutputSettings
from wanimate.finish.decode import to_pixels
from wanimate.media.coding import coding_of
from wanimate.model.params import MotionParams, TransformerParams, VaeParams
from wanimate.model.transformer import AnimateTransformer
from wanimate.model.vae import VideoVae
from wanimate.runtime.offload import (
    StreamedBlocks,
    chunk_tokens,
    clear_error,
    page_lock,
    page_lock_changes,
    place_blocks,
    stream_blocks,
)
from wanimate.runtime.planning.plan import Placement
from wanimate.runtime.planning.rates import measure_rates
from wanimate.runtime.planning.simulate import transformer_cost, vae_cost
from wanimate.runtime.tiling import TiledVae
from wanimate.weights import quantize
from wanimate.weights.checkpoint import load_checkpoint
from wanimate.weights.lora import LoraFile, match_lora
from wanimate.weights.lora_view import LoraStack, with_loras

PARAMS = TransformerParams(
    dim=1024, ffn_dim=2816, num_heads=8, num_layers=10, text_width=64, image_width=64, face_width=64,
    motion=MotionParams(channels=(8, 16, 16), width=32, directions=8),
)  # fmt: skip
SIZE, LENGTH = (832, 480), 33


@pytest.fixture(scope="module")
def model() -> AnimateTransformer:
    return fill(AnimateTransformer(PARAMS)).eval().requires_grad_(False).bfloat16()


@torch.inference_mode()
def flow(model: AnimateTransformer, size: tuple[int, int] = (96, 64), length: int = 9) -> torch.Tensor:
    generator = torch.Generator("cuda").manual_seed(1)
    frames, width, height = (length + 3) // 4, size[0] // 8, size[1] // 8

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(1, *shape, generator=generator, device="cuda")

    side = PARAMS.motion.size
    context = model.prepare(
        noise(512, 64), noise(257, 64), noise(3, length, side, side), noise(16, frames, height, width)
    )
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    x, y = noise(16, frames + 1, height, width), noise(20, frames + 1, height, width)
    v = model(x, torch.tensor([500], device="cuda"), y, context)
    flow.peak = torch.cuda.max_memory_allocated() - before  # type: ignore[attr-defined]
    return v


@pytest.mark.gpu
@pytest.mark.parametrize("lock", [True, False])
def test_streamed_blocks_compute_the_same(model: AnimateTransformer, lock: bool) -> None:
    wanted = flow(copy.deepcopy(model).cuda())
    streamed = copy.deepcopy(model)
    stream_blocks(streamed, "cuda", lock)
    blocks = streamed.blocks
    rest = {n: m for n, m in streamed.named_children() if n != "blocks"}
    for part in rest.values():
        part.cuda()
    for _ in range(4):
        assert torch.equal(flow(streamed), wanted)
    assert all(p.device.type == "cpu" for p in blocks.parameters())
    assert all(p.is_pinned() == lock for p in blocks.parameters())


@pytest.mark.gpu
@pytest.mark.parametrize("lock", [True, False])
def test_fused_weights_of_streamed_blocks_are_page_locked(model: AnimateTransformer, lock: bool) -> None:
    """Beside blocks that are, and beside blocks that are not; without the LoRA everything is as before."""
    tensors = {}
    for i in (0, 1, 7):
        tensors[f"blocks.{i}.ffn.0.lora_A.weight"] = 0.1 * torch.randn(4, PARAMS.dim)
        tensors[f"blocks.{i}.ffn.0.lora_B.weight"] = 0.1 * torch.randn(PARAMS.ffn_dim, 4)
    lora = match_lora(LoraFile(Path("lora.safetensors"), tensors), model)
    without = flow(copy.deepcopy(model).cuda())
    wanted = flow(with_loras(copy.deepcopy(model).cuda(), [(lora, 1.0)], fuse=True))
    assert not torch.equal(wanted, without)
    streamed = copy.deepcopy(model)
    stream_blocks(streamed, "cuda", lock)
    for name, part in streamed.named_children():
        if name != "blocks":
            part.cuda()
    uses = [(lora, LoraUse(path=lora.path))]
    twin = LoraStack(streamed, uses, True, lambda made: page_lock_changes(made, streamed)).transformer((0,))
    base = {id(p) for p in streamed.blocks.parameters()}
    changed = [p for p in twin.blocks.parameters() if id(p) not in base]
    assert len(changed) == 3
    assert all(p.is_pinned() for p in changed)
    for _ in range(3):
        assert torch.equal(flow(twin), wanted)
        assert torch.equal(flow(streamed), without)
    assert all(p.is_pinned() == lock for p in streamed.blocks.parameters())


@pytest.mark.gpu
def test_float8_blocks_for_host_memory_are_made_on_the_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = published_checkpoint(tmp_path / "checkpoint")
    wanted = load_checkpoint(folder, "cuda", torch.bfloat16, "all").transformer.state_dict()
    places, usual = set(), quantize.quantize_fp8

    def seen(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        places.add(weight.device.type)
        return usual(weight)

    monkeypatch.setattr(quantize, "quantize_fp8", seen)
    found = load_checkpoint(folder, "cuda", torch.bfloat16, "all", blocks_on="cpu").transformer
    assert places == {"cuda"}
    assert all(p.device.type == "cpu" for p in found.blocks.parameters())
    for name, tensor in found.state_dict().items():
        assert torch.equal(tensor.cpu().view(torch.uint8), wanted[name].cpu().view(torch.uint8)), name


@pytest.mark.gpu
def test_blocks_come_back_to_the_device(model: AnimateTransformer) -> None:
    there = copy.deepcopy(model).cuda()
    wanted = flow(there)
    stream_blocks(there, "cuda")
    assert torch.equal(flow(there), wanted)
    before = torch.cuda.memory_allocated()
    place_blocks(there, "cuda")
    assert torch.equal(flow(there), wanted)
    assert all(p.device.type == "cuda" for p in there.blocks.parameters())
    assert torch.cuda.memory_allocated() - before > sum(p.nbytes for p in there.blocks.parameters()) // 2


@pytest.mark.gpu
def test_later_jobs_are_planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what the networks hold taken as theirs; blocks that went to host memory come back."""
    monkeypatch.setattr("wanimate.runtime.planning.sizes.BIG", 0)
    folder, guides = published_checkpoint(tmp_path / "tiny-14b"), write_guides(tmp_path / "guides", 5)
    animator = Animator.from_checkpoint(folder, "cuda")

    def run(name: str) -> tuple[int, int]:
        settings = GenerateSettings(steps=1, seed=3, prompt="a person")
        list(animator.generate(guides, tmp_path / name, settings, OutputSettings(codec="ffv1")))
        plan = animator.engine.networks.plan
        assert plan is not None
        return plan.gpu, plan.room

    (first, room), (second, later) = run("a.mkv"), run("b.mkv")
    assert second == first
    assert later == pytest.approx(room, rel=0.02)
    animator.engine.networks.place(animator.checkpoint.transformer, Placement("streamed"))
    assert isinstance(animator.checkpoint.transformer.blocks, StreamedBlocks)
    run("c.mkv")
    assert animator.engine.networks.placement == Placement()
    assert not isinstance(animator.checkpoint.transformer.blocks, StreamedBlocks)
    assert animator.engine.networks.attention


@pytest.mark.gpu
def test_page_locked_memory_is_given_back(model: AnimateTransformer) -> None:
    block = copy.deepcopy(model.blocks[0])
    page_lock(block)
    pointer = next(block.parameters()).data_ptr()
    assert next(block.parameters()).is_pinned()
    del block
    again = torch.cuda.cudart().cudaHostUnregister(pointer)
    clear_error(torch.device("cuda"))
    assert int(again) != 0, "it was still registered"


@pytest.mark.gpu
@pytest.mark.parametrize("rows", [None, 2048])
def test_the_forecast_of_a_step(model: AnimateTransformer, rows: int | None) -> None:
    there = copy.deepcopy(model).cuda()
    chunk_tokens(there, rows)
    flow(there, SIZE, LENGTH)
    flow(there, SIZE, LENGTH)
    cost = transformer_cost(PARAMS, torch.bfloat16, False, SIZE, LENGTH, rows)
    assert cost.forward - cost.context == pytest.approx(flow.peak, rel=0.1)  # type: ignore[attr-defined]


@pytest.mark.gpu
@pytest.mark.parametrize("side", [None, 32])
def test_the_forecast_of_the_vae(side: int | None) -> None:
    params = VaeParams(base=32)
    vae = TiledVae(fill(VideoVae(params)).eval().requires_grad_(False).cuda().channels_last(), side)
    cost = vae_cost(params, SIZE, LENGTH, 1, side)
    latents = torch.randn(1, 16, (LENGTH + 3) // 4, SIZE[1] // 8, SIZE[0] // 8, device="cuda")
    with torch.inference_mode():
        for _ in range(2):
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            for piece in vae.decode_pieces(latents):
                del piece
        assert cost.decode == pytest.approx(torch.cuda.max_memory_allocated() - before, rel=0.15)


@pytest.mark.gpu
def test_rates_are_those_of_a_gpu() -> None:
    rates = measure_rates(torch.device("cuda"), torch.bfloat16)
    assert rates.products > 5e12
    assert rates.memory > 1e11


@pytest.mark.gpu
def test_pixels_travel_beside_the_work() -> None:
    """Through page-locked memory, which the device writes while it computes on."""
    frames = torch.rand(4, 3, 64, 96, device="cuda")
    wanted = to_pixels(frames.cpu())
    later = coding_of("h264", 8, False, "none", False).pack(frames)
    frames.zero_()
    pixels = [parts[0] for parts in later.wait()]
    assert all(torch.from_numpy(frame).is_pinned() for frame in pixels)
    assert (np.stack(pixels) == wanted).all()
