"""Streamed blocks compute what resident ones do, bit for bit; tiles of the VAE show no seams."""

from __future__ import annotations

import copy
import gc
import itertools
import threading
import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny_checkpoints import PUBLISHED, published_checkpoint
from torch import Tensor, UntypedStorage

from golden import fill
from wanimate.config import LoraUse
from wanimate.model.params import VaeParams
from wanimate.model.transformer import AnimateTransformer
from wanimate.model.vae import VideoVae
from wanimate.runtime import offload
from wanimate.runtime.offload import StreamedBlocks, chunk_tokens, page_lock, page_lock_changes, stream_blocks
from wanimate.runtime.tiling import DECODE_REACH, ENCODE_REACH, TiledVae, cut
from wanimate.weights.checkpoint import Compress, load_checkpoint, load_vae
from wanimate.weights.formats import read_tensors
from wanimate.weights.locate import embedded_path, read_checkpoint_config
from wanimate.weights.lora import LoraFile, match_lora, read_lora
from wanimate.weights.lora_view import LoraStack, with_loras

LEVEL = 2 / 255
"""One of 255 steps between black and white, in the VAE's range [-1, 1]."""


@pytest.fixture(scope="module")
def model() -> AnimateTransformer:
    return fill(AnimateTransformer(PUBLISHED)).eval().requires_grad_(False)


def flow(model: AnimateTransformer, seed: int = 5) -> Tensor:
    p, generator = model.params, torch.Generator().manual_seed(seed)
    face = torch.rand(1, 3, 5, p.motion.size, p.motion.size, generator=generator) * 2 - 1
    x, y, pose = (torch.randn(1, c, t, 4, 6, generator=generator) for c, t in ((16, 3), (20, 3), (16, 2)))
    text, image = (torch.randn(1, 7, width, generator=generator) for width in (p.text_width, p.image_width))
    with torch.inference_mode():
        return model(x, torch.tensor([500]), y, model.prepare(text, image, face, pose))


def test_streamed_blocks_compute_the_same_bit_for_bit(model: AnimateTransformer) -> None:
    wanted = flow(model)
    streamed = copy.deepcopy(model)
    stream_blocks(streamed, "cpu")
    assert isinstance(streamed.blocks, StreamedBlocks)
    for _ in range(3):
        assert torch.equal(flow(streamed), wanted)
    assert sorted(streamed.state_dict()) == sorted(model.state_dict())


def test_the_blocks_are_lent_and_come_home(model: AnimateTransformer) -> None:
    streamed = copy.deepcopy(model)
    at_home = dict(streamed.named_parameters())
    stream_blocks(streamed, "cpu")
    for i, block in enumerate(streamed.blocks):
        lent = {name for name, p in block.named_parameters()} | {n for n, t in block.self_attn.q._parameters.items()}
        assert block.self_attn.q.weight is not at_home[f"blocks.{i}.self_attn.q.weight"]
        assert torch.equal(block.self_attn.q.weight, at_home[f"blocks.{i}.self_attn.q.weight"])
        assert lent
        others = [j for j in range(PUBLISHED.num_layers) if j != i]
        assert all(
            streamed.get_submodule(f"blocks.{j}.ffn.0").weight is at_home[f"blocks.{j}.ffn.0.weight"] for j in others
        )
    assert all(p is at_home[name] for name, p in streamed.named_parameters())


def test_one_block_is_copied_ahead_and_two_are_held(model: AnimateTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    streamed = copy.deepcopy(model)
    stream_blocks(streamed, "cpu")
    order: list[str] = []
    fill_slot = offload.BlockPrefetcher._fill
    names = {id(block): str(i) for i, block in enumerate(streamed.blocks.children())}
    threads = set()

    def noted(lane: offload.BlockPrefetcher, slot: offload._Slot, home: list[Tensor]) -> None:
        order.append(f"copy {names[id(slot.block)]}")
        threads.add(threading.current_thread())
        fill_slot(lane, slot, home)

    monkeypatch.setattr(offload.BlockPrefetcher, "_fill", noted)
    slots = set()
    for i, _ in enumerate(streamed.blocks):
        slot = next(
            s for s in streamed.blocks.prefetcher._slots if s.block is not None and names[id(s.block)] == str(i)
        )
        slots.add(id(slot.tensors[0]))
        ahead = (i + 1) % PUBLISHED.num_layers
        assert {names[id(s.block)] for s in streamed.blocks.prefetcher._slots} == {str(i), str(ahead)}
    assert len(slots) == 2
    flow(streamed)
    assert order[:6] == [f"copy {i}" for i in (0, 1, 2, 3, 4, 0)]
    assert threading.current_thread() not in threads


def test_a_round_that_is_broken_off_does_no_harm(model: AnimateTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = flow(model)
    streamed = copy.deepcopy(model)
    stream_blocks(streamed, "cpu")
    for broken in (1, 3):
        with monkeypatch.context() as patched:
            patched.setattr(
                streamed.blocks.get_submodule(str(broken)), "forward",
                lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("no room")),
            )  # fmt: skip
            with pytest.raises(torch.OutOfMemoryError):
                flow(streamed)
        assert torch.equal(flow(streamed), wanted)
    streamed.blocks.prefetcher.clear()
    assert torch.equal(flow(streamed), wanted)


def test_no_room_for_a_slot_is_told_and_can_be_tried_again(
    model: AnimateTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = flow(model)
    streamed = copy.deepcopy(model)
    stream_blocks(streamed, "cpu")

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("no room")

    with monkeypatch.context() as patched:
        patched.setattr(offload.BlockPrefetcher, "_fill", full)
        with pytest.raises(torch.OutOfMemoryError):
            flow(streamed)
    assert torch.equal(flow(streamed), wanted)
    streamed.blocks.prefetcher.clear()
    with monkeypatch.context() as patched:  # the second slot finds no room: the first one's block stays in use
        lane, empty = streamed.blocks.prefetcher, torch.empty_like
        calls = iter([*[empty] * len(list(streamed.blocks[0].parameters())), full])
        patched.setattr(torch, "empty_like", lambda *a, **more: next(calls)(*a, **more))
        blocks = iter(streamed.blocks)
        with pytest.raises(torch.OutOfMemoryError):
            next(blocks)
    first, second = lane._slots
    assert (first.block, second.block) == (streamed.blocks.get_submodule("0"), None)
    lane.load(streamed.blocks.get_submodule("0"))
    assert lane.prefetch(streamed.blocks.get_submodule("1")) is second
    lane.unload()
    assert torch.equal(flow(streamed), wanted)


@pytest.fixture
def lora(tmp_path: Path) -> LoraFile:
    """Of layers of blocks 1 and 3, and a whole difference in block 2."""
    tensors = {"blocks.2.diff_m": torch.randn(1, 6, PUBLISHED.dim)}
    for name, rows, columns in (
        ("blocks.1.ffn.0", PUBLISHED.ffn_dim, PUBLISHED.dim),
        ("blocks.1.ffn.2", PUBLISHED.dim, PUBLISHED.ffn_dim),
        ("blocks.3.cross_attn.k", PUBLISHED.dim, PUBLISHED.dim),
    ):
        tensors |= {f"{name}.lora_down.weight": torch.randn(2, columns), f"{name}.lora_up.weight": torch.randn(rows, 2)}
    save_file(tensors, tmp_path / "lora.safetensors")
    return read_lora(tmp_path / "lora.safetensors")


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch) -> list[UntypedStorage]:
    """Pieces of memory that were page-locked."""
    pieces: list[UntypedStorage] = []
    monkeypatch.setattr(offload, "_lock", lambda memory: pieces.append(memory.untyped_storage()))
    return pieces


def test_loras_on_streamed_blocks(model: AnimateTransformer, lora: LoraFile) -> None:
    """Twins stream through the same two slots; what a LoRA changes travels too."""
    streamed = copy.deepcopy(model)
    stream_blocks(streamed, "cpu")
    use = LoraUse(path=lora.path)
    results = {}
    for name, network in (("resident", model), ("streamed", streamed)):
        stack = LoraStack(network, [(match_lora(lora, network), use)])
        results[name] = [flow(stack.transformer(active)) for active in ((), (0,), (), (0,))]
    for wanted, got in zip(results["resident"], results["streamed"], strict=True):
        assert torch.equal(got, wanted)
    assert not torch.equal(results["streamed"][0], results["streamed"][1])
    twin = LoraStack(streamed, [(match_lora(lora, streamed), use)]).transformer((0,))
    assert twin.blocks.prefetcher is streamed.blocks.prefetcher


@pytest.mark.parametrize("compress", ["never", "all"])
def test_fused_weights_are_page_locked(
    compress: Compress, lora: LoraFile, tmp_path: Path, locked: list[UntypedStorage]
) -> None:
    """In one piece a block, and nothing else of it; the blocks in the mapped file stay as and where they are."""
    folder = published_checkpoint(tmp_path / "tiny-14b")
    before = {file: file.read_bytes() for file in folder.glob("*.safetensors")}
    plain, model = (load_checkpoint(folder, "cpu", compress=compress).transformer for _ in range(2))
    stream_blocks(model, "cpu", lock=False)
    base = {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}
    without, wanted = flow(plain), flow(with_loras(plain, [(match_lora(lora, plain), 1.0)], fuse=True))
    uses = [(match_lora(lora, model), LoraUse(path=lora.path))]
    stack = LoraStack(model, uses, fuse=True, place=lambda twin: page_lock_changes(twin, model))
    twin = stack.transformer((0,))

    changed = {name: t for name, t in twin.blocks.state_dict().items() if t.data_ptr() != base[f"blocks.{name}"]}
    assert {name.removesuffix("_scale") for name in changed} == {
        "1.ffn.0.weight", "1.ffn.2.weight", "2.modulation", "3.cross_attn.k.weight"
    }  # fmt: skip
    homes = {name: tensor.untyped_storage().data_ptr() for name, tensor in changed.items()}
    assert len(locked) == len(set(homes.values())) == len({name[0] for name in homes})
    assert set(homes.values()) == {piece.data_ptr() for piece in locked}
    assert torch.equal(flow(twin), wanted)
    assert not torch.equal(wanted, without)

    gone = [weakref.ref(piece) for piece in locked]
    locked.clear()
    del stack, twin, changed
    gc.collect()
    assert [piece() for piece in gone] == [None] * 3
    assert torch.equal(flow(model), without)
    assert {name: tensor.data_ptr() for name, tensor in model.state_dict().items()} == base
    assert {file: file.read_bytes() for file in before} == before


def test_a_twin_that_is_not_streamed_stays_where_it_is(
    model: AnimateTransformer, lora: LoraFile, locked: list[UntypedStorage]
) -> None:
    twin = with_loras(model, [(match_lora(lora, model), 1.0)], fuse=True)
    before = {name: p.data_ptr() for name, p in twin.named_parameters()}
    page_lock_changes(twin, model)
    assert {name: p.data_ptr() for name, p in twin.named_parameters()} == before
    assert locked == []


def test_a_block_is_not_there_twice_while_it_moves(model: AnimateTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    block = copy.deepcopy(model.blocks[0])
    before = [weakref.ref(p) for p in block.parameters()]
    left: list[int] = []
    monkeypatch.setattr(offload, "_lock", lambda memory: left.append(sum(p() is not None for p in before)))
    page_lock(block)
    assert left == [0]


def test_one_piece_of_memory_for_a_block(model: AnimateTransformer) -> None:
    block = copy.deepcopy(model.blocks[0])
    before = {k: v.clone() for k, v in block.state_dict().items()}
    page_lock(block)
    assert len({p.untyped_storage().data_ptr() for p in block.parameters()}) == 1
    assert all(p.data_ptr() % 64 == 0 and not p.requires_grad for p in block.parameters())
    assert all(torch.equal(v, before[k]) for k, v in block.state_dict().items())


@pytest.mark.parametrize("rows", [1, 5, 18, 1000])
def test_slices_of_tokens_compute_the_same(model: AnimateTransformer, rows: int) -> None:
    wanted = flow(model)
    sliced = copy.deepcopy(model)
    chunk_tokens(sliced, rows)
    assert (flow(sliced) - wanted).norm() / wanted.norm() < 1e-5
    twin = copy.deepcopy(sliced)
    assert twin.blocks[0].forward.__self__ is twin.blocks[0]
    stream_blocks(sliced, "cpu")
    assert (flow(sliced) - wanted).norm() / wanted.norm() < 1e-5
    chunk_tokens(sliced, None)
    assert torch.equal(flow(sliced), wanted)


@pytest.mark.parametrize(("length", "side", "reach"), [*itertools.product((1, 7, 45), (4, 10, 64), (0, 3))])
def test_tiles_cover_everything_once(length: int, side: int, reach: int) -> None:
    tiles = cut(length, side, reach)
    assert [i for t in tiles for i in range(t.inner.start, t.inner.stop)] == list(range(length))
    for t in tiles:
        assert t.inner.stop - t.inner.start <= side
        assert t.outer.start == max(0, t.inner.start - reach)
        assert t.outer.stop == min(length, t.inner.stop + reach)


@pytest.fixture(scope="module")
def embedded_vae() -> VideoVae:
    folder = embedded_path()
    return load_vae(read_tensors(folder / "vae.safetensors"), read_checkpoint_config(None)[1], folder)


@torch.inference_mode()
def test_tiles_of_the_embedded_vae_have_no_seams(embedded_vae: VideoVae) -> None:
    """In tiles of 16 latents: pixels and latents of the whole picture to a fraction of a level."""
    lines = torch.linspace(0, 40, 256)
    video = torch.stack([torch.sin(lines + i)[None] * torch.cos(lines[:16] * (1 + i / 9))[:, None] for i in range(5)])
    video = video.expand(3, -1, -1, -1)[None].clone()
    video[:, 0] *= 0.5
    whole, tiled = embedded_vae, TiledVae(embedded_vae, 16)
    latents = whole.encode(video)
    assert (tiled.encode(video) - latents).abs().max() < 1e-3
    wanted = whole.decode(latents)
    pieces = list(tiled.decode_pieces(latents))
    assert [p.shape[2] for p in pieces] == [p.shape[2] for p in whole.decode_pieces(latents)]
    assert (torch.cat(pieces, dim=2) - wanted).abs().max() < LEVEL / 20


@torch.inference_mode()
def test_the_reach_of_the_published_vae() -> None:
    """Same depth as published, narrower: nothing outside of the reach is felt."""
    vae = fill(VideoVae(VaeParams(base=8))).eval()
    video = torch.rand(1, 3, 9, 16, 8 * 44) * 2 - 1
    latents = torch.randn(1, 16, 3, 2, 44)
    tiled = TiledVae(vae, 11)
    assert (tiled.encode(video, 2) - vae.encode(video, 2)).abs().max() < 2e-5
    decoded = vae.decode(latents, 2)
    scale = decoded.abs().max()
    assert (torch.cat(list(tiled.decode_pieces(latents, 2)), 2) - decoded).abs().max() < 2e-5 * scale


def test_reaches() -> None:
    decode = 6 * (1 + 1 / 2 + 1 / 4 + 1 / 8) + 1 / 2 + 1 / 4 + 1 / 8 + 1 / 8
    encode = (1 + 4 * (1 + 2 + 4 + 8) + 1 + 2 + 4) / 8
    assert DECODE_REACH - 1 < decode <= DECODE_REACH
    assert ENCODE_REACH - 1 < encode <= ENCODE_REACH
