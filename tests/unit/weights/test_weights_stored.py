"""Tensors go from the mapped file straight to where they run; quantised weights can stay small; encoders open on demand."""

from __future__ import annotations

import gc
import os
import resource
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_weights_layouts import write_gguf
from tiny_checkpoints import OWN, PUBLISHED, own_checkpoint, transformer_tensors

from wanimate.config import LoraUse
from wanimate.errors import CheckpointError
from wanimate.model.fp8 import FP8
from wanimate.model.int8 import int8_product
from wanimate.model.transformer import AnimateTransformer
from wanimate.weights import checkpoint as load
from wanimate.weights import prompts, stored
from wanimate.weights.checkpoint import load_checkpoint, load_transformer
from wanimate.weights.formats import open_tensors, read_tensors
from wanimate.weights.locate import T5, TOKENIZER, TRANSFORMER, CheckpointConfig
from wanimate.weights.lora import match_lora, read_lora
from wanimate.weights.lora_view import LoraStack
from wanimate.weights.quantize import QuantizedLinear, is_quantizable, quantize_fp8, to_levels
from wanimate.weights.stored import Stored, defer, value

Copied = Callable[[Path], Path]
CARD = CheckpointConfig(name="x", head_dim=OWN.head_dim, text_length=OWN.text_length)


def flow(model: AnimateTransformer) -> torch.Tensor:
    p = model.params
    generator = torch.Generator().manual_seed(5)
    face = torch.rand(1, 3, 5, p.motion.size, p.motion.size, generator=generator) * 2 - 1
    text = torch.randn(1, 3, p.text_width, generator=generator)
    image = None if p.image_width is None else torch.randn(1, 9, p.image_width, generator=generator)
    x, y, pose = (torch.randn(1, c, t, 4, 6, generator=generator) for c, t in ((16, 3), (20, 3), (16, 2)))
    with torch.inference_mode():
        context = model.prepare(text, image, face, pose)
        return model(x, torch.tensor([500]), y, context)


def mapped(tensor: torch.Tensor, path: Path) -> bool:
    """Whether the values lie in the mapped file."""
    spans = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(str(path))]
    ends = [[int(x, 16) for x in span[0].split("-")] for span in spans]
    return any(first <= tensor.data_ptr() < last for first, last in ends)


def test_a_tensor_that_needs_no_conversion_stays_in_the_file(own: Path) -> None:
    model = load_checkpoint(own, "cpu").transformer
    assert all(mapped(p, own / f"{TRANSFORMER}.safetensors") for p in model.parameters())


def open_files(path: Path) -> int:
    """Descriptors of this process that are of a file."""
    links = [entry.resolve() for entry in Path("/proc/self/fd").iterdir() if entry.exists()]
    return links.count(path.resolve())


@pytest.mark.slow
def test_a_file_is_mapped_once_however_many_tensors_it_has(tmp_path: Path) -> None:
    file = tmp_path / "many.safetensors"
    save_file({f"blocks.{i}.weight": torch.full((3, 5), float(i)) for i in range(1500)}, file)
    values = open_tensors(file)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    try:
        tensors = {name: value(stored) for name, stored in values.items()}
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert all(mapped(tensor, file) for tensor in tensors.values())
    assert all(float(tensors[f"blocks.{i}.weight"][0, 0]) == i for i in range(1500))
    assert open_files(file) <= 1
    spans = [line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(str(file))]
    assert len(spans) == 1
    del values, tensors
    gc.collect()
    assert open_files(file) == 0


def resident(path: Path) -> int:
    """kB of a mapped file that this process has in memory."""
    lines = Path("/proc/self/smaps").read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if line.endswith(str(path)))
    return int(next(line for line in lines[at:] if line.startswith("Rss:")).split()[1])


def test_what_has_been_read_does_not_stay_in_memory(tmp_path: Path) -> None:
    file = tmp_path / "large.safetensors"
    save_file({f"{i}": torch.full((2**20,), float(i)) for i in range(4)}, file)
    values = open_tensors(file)
    assert all(float(value(stored).sum()) == int(name) * 2**20 for name, stored in values.items())
    kept = value(values["3"])
    assert float(kept.sum()) == 3 * 2**20
    assert 4096 <= resident(file) < 2 * 4096


def test_conversion_holds_one_tensor_of_the_file_at_a_time(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[weakref.ref[Any]] = []
    most = 0
    read = stored._MappedFile.tensor

    def counted(*args: Any) -> torch.Tensor:
        nonlocal most
        tensor = read(*args)
        alive.append(weakref.ref(tensor.untyped_storage()))
        most = max(most, sum(a() is not None for a in alive))
        return tensor

    monkeypatch.setattr(stored._MappedFile, "tensor", counted)
    model = load_transformer(open_tensors(own / f"{TRANSFORMER}.safetensors"), CARD, own, torch.bfloat16)
    assert len(alive) == len(model.state_dict())
    assert most == 1


def test_nothing_is_read_for_a_checkpoint_of_other_shapes(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = open_tensors(own / f"{TRANSFORMER}.safetensors")
    values["blocks.0.norm4.weight"] = values.pop("blocks.0.norm3.weight")
    monkeypatch.setattr(stored._MappedFile, "tensor", lambda *_: pytest.fail("a tensor was read"))
    with pytest.raises(CheckpointError, match=r"1 missing: blocks\.0\.norm3\.weight; 1 unexpected"):
        load_transformer(values, CARD, own, torch.float32)


def test_every_type_and_alignment_is_read(tmp_path: Path) -> None:
    kinds = (torch.float16, torch.bfloat16, torch.int64, torch.bool, FP8, torch.float64, torch.uint8, torch.int8)
    tensors = {f"{i}": (torch.rand(3, 5 + i) * 4).to(kind) for i, kind in enumerate(kinds)}
    tensors["none"], tensors["one"] = torch.empty(0, 3), torch.tensor(2.0)
    save_file(tensors, tmp_path / "x.safetensors")
    found = open_tensors(tmp_path / "x.safetensors")
    for key, tensor in tensors.items():
        assert (found[key].shape, found[key].dtype) == (tensor.shape, tensor.dtype)
        assert torch.equal(value(found[key]).double(), tensor.double()), key


def test_a_deferred_change_is_made_when_it_is_read() -> None:
    reads = []
    source = Stored(torch.Size((4, 2)), torch.float32, lambda: reads.append(1) or torch.ones(4, 2))
    rows = defer(lambda t: t.chunk(2)[0].flatten(), source)
    assert (rows.shape, rows.ndim, len(rows), reads) == ((4,), 1, 4, [])
    assert torch.equal(value(rows), torch.ones(4))
    assert reads == [1]


def test_float8_rows_keep_three_bits() -> None:
    weight = torch.randn(40, 64) * torch.logspace(-4, 3, 40)[:, None]
    weight[7] = 0
    levels, scale = quantize_fp8(weight)
    assert (levels.dtype, scale.shape) == (FP8, (40, 1))
    back = levels.float() * scale
    assert ((back - weight).abs() <= weight.abs() / 16 * 1.0001 + scale / 512).all()
    assert torch.equal(back[7], weight[7])


def test_which_tensors_are_quantised() -> None:
    names = {k for k in AnimateTransformer(PUBLISHED).state_dict() if is_quantizable(k)}
    blocks, fusers = PUBLISHED.num_layers, PUBLISHED.num_layers // PUBLISHED.face_every
    assert len(names) == blocks * (4 + 6 + 2) + fusers * 3
    assert not any("norm" in k or "embedding" in k or "motion" in k for k in names)


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_a_quantised_file_that_stays_small_computes_the_same(kind: str, tmp_path: Path) -> None:
    """Expanded on reading or expanded on use: bit for bit the same flow."""
    folder = own_checkpoint(tmp_path / "q", quantized=True)
    file = folder / f"{TRANSFORMER}.safetensors"
    if kind == "fp8":
        tensors = transformer_tensors(OWN)
        for key in [k for k in tensors if is_quantizable(k)]:
            scale = tensors[key].abs().max() / 448
            tensors[key], tensors[key.replace(".weight", ".scale_weight")] = (tensors[key] / scale).to(FP8), scale
        save_file({k: v.contiguous() for k, v in tensors.items()}, file)
    expanded = load_transformer(open_tensors(file), CARD, file, torch.float32)
    small = load_transformer(open_tensors(file), CARD, file, torch.float32, compress="stored")
    layers = [m for m in small.modules() if isinstance(m, QuantizedLinear)]
    assert len(layers) == OWN.num_layers * 10 + 3
    assert all(m.weight.dtype == (FP8 if kind == "fp8" else torch.int8) for m in layers)
    assert torch.equal(flow(small), flow(expanded))
    bytes_of = [sum(t.nbytes for t in m.state_dict().values()) for m in (small, expanded)]
    assert bytes_of[0] < 0.7 * bytes_of[1]


def test_float8_weights_of_an_unquantised_file(published: Path) -> None:
    exact = load_checkpoint(published, "cpu").transformer
    small = load_checkpoint(published, "cpu", compress="all").transformer
    assert all(m.weight.dtype == FP8 for m in small.modules() if isinstance(m, QuantizedLinear))
    assert small.dtype == torch.float32
    wanted, got = flow(exact), flow(small)
    assert 0 < (got - wanted).norm() / wanted.norm() < 0.05


@pytest.mark.parametrize("stored", ["int8", "fp8", "bf16"])
def test_int8_weights_of_any_file(stored: str, tmp_path: Path) -> None:
    """Levels and scales of an int8 file are taken as they are; others are made from what the file's weights stand for."""
    folder = own_checkpoint(tmp_path / "q", quantized=stored == "int8")
    file = folder / f"{TRANSFORMER}.safetensors"
    tensors = load_file(file)
    if stored == "fp8":
        for key in [k for k in tensors if is_quantizable(k)]:
            levels, scale = quantize_fp8(tensors[key])
            tensors[key], tensors[f"{key}_scale"] = levels, scale
        save_file({k: v.contiguous() for k, v in tensors.items()}, file)
    small = load_transformer(open_tensors(file), CARD, file, torch.float32, compress="int8")
    layers = {name: m for name, m in small.named_modules() if isinstance(m, QuantizedLinear)}
    assert len(layers) == OWN.num_layers * 10 + 3
    for name, layer in layers.items():
        assert layer.weight.dtype == torch.int8
        held = tensors[f"{name}.weight"]
        if stored == "int8":
            assert torch.equal(layer.weight, held)
            assert torch.equal(layer.weight_scale.flatten(), tensors[f"{name}.weight_scale"].float().flatten())
            continue
        wanted = held.float() * tensors[f"{name}.weight_scale"] if stored == "fp8" else held.float()
        assert ((layer.value_on(torch.device("cpu")) - wanted).abs() <= 0.5001 * layer.weight_scale).all()
    kept = load_transformer(open_tensors(file), CARD, file, torch.float32, compress="all")
    kinds = {m.weight.dtype for m in kept.modules() if isinstance(m, QuantizedLinear)}
    assert kinds == {torch.int8 if stored == "int8" else FP8}


def test_a_layer_that_multiplies_int8() -> None:
    """It rounds what it gets, a scale a row, and its copy with another weight is int8 again."""
    torch.manual_seed(0)
    plain = torch.nn.Linear(96, 40).requires_grad_(False)
    layer = QuantizedLinear.of(plain, *to_levels(plain.weight, torch.int8), int8_product)
    x = torch.randn(2, 7, 96) * torch.logspace(-3, 3, 7)[:, None]
    found, wanted = layer(x), plain(x)
    assert (found.dtype, found.shape) == (torch.bfloat16, wanted.shape)
    off = (found.float() - wanted).norm(dim=-1) / wanted.norm(dim=-1)
    assert off.max() < 0.02  # of the rows of every size
    other = layer.holding(-2 * plain.weight, torch.float32)
    assert isinstance(other, QuantizedLinear)
    assert (other.weight.dtype, other.product) == (torch.int8, int8_product)
    wanted = torch.nn.functional.linear(x, -2 * plain.weight, plain.bias)
    assert (other(x).float() - wanted).norm() < 0.02 * wanted.norm()
    with pytest.raises(ValueError, match=r"no products of torch\.float16"):
        to_levels(x, torch.float16)


def test_gguf_can_be_float8_in_memory(published: Path, copied: Copied) -> None:
    folder = copied(published)
    for file in folder.glob(f"{TRANSFORMER}*"):
        file.unlink()
    write_gguf(folder / "animate.gguf", transformer_tensors(PUBLISHED), "Q8_0")
    exact, small = (load_checkpoint(folder, "cpu", compress=c).transformer for c in ("stored", "all"))
    assert not any(isinstance(m, QuantizedLinear) for m in exact.modules())
    wanted, got = flow(exact), flow(small)
    assert 0 < (got - wanted).norm() / wanted.norm() < 0.05


@pytest.mark.parametrize("fuse", [False, True])
def test_a_lora_on_quantised_weights(tmp_path: Path, fuse: bool) -> None:
    """Low-rank parts are added in float32 to what the quantised weights compute, and nothing shared changes."""
    file = own_checkpoint(tmp_path / "q", quantized=True) / f"{TRANSFORMER}.safetensors"
    expanded = load_transformer(open_tensors(file), CARD, file, torch.float32)
    small = load_transformer(open_tensors(file), CARD, file, torch.float32, compress="stored")
    tensors = {}
    for name in ("blocks.1.ffn.0", "blocks.2.self_attn.q", "face_adapter.fuser_blocks.0.linear1_q"):
        rows, columns = small.get_submodule(name).weight.shape
        tensors |= {f"{name}.lora_down.weight": torch.randn(2, columns), f"{name}.lora_up.weight": torch.randn(rows, 2)}
    tensors["blocks.3.ffn.2.diff"] = torch.randn(small.get_submodule("blocks.3.ffn.2").weight.shape) * 0.1
    save_file(tensors, tmp_path / "lora.safetensors")
    opened = read_lora(tmp_path / "lora.safetensors")
    use = LoraUse(path=tmp_path / "lora.safetensors")
    before = flow(small)
    wanted, got = (
        flow(LoraStack(m, [(match_lora(opened, m), use)], fuse).transformer((0,))) for m in (expanded, small)
    )
    assert torch.equal(got, wanted)
    assert not torch.equal(got, before)
    assert torch.equal(flow(small), before)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WANIMATE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "prompts"


def test_the_text_encoder_is_opened_for_a_new_prompt_only(
    published: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_checkpoint(published, "cpu").prompts
    wanted = [first.encode(""), first.encode("", negative=True), first.encode("a person")]
    assert len(list(cache.iterdir())) == 3
    opened: list[Path] = []
    monkeypatch.setattr(load, "_open_text_encoder", lambda weights, *_: opened.append(weights))
    second = load_checkpoint(published, "cpu").prompts
    again = [second.encode(""), second.encode("", negative=True), second.encode("a person")]
    assert all(torch.equal(a, b) for a, b in zip(again, wanted, strict=True))
    assert not opened
    with pytest.raises(AttributeError):
        second.encode("dances")
    assert opened == [published / T5]


def test_the_file_itself_is_not_read_again(published: Path, copied: Copied, cache: Path) -> None:
    folder = copied(published)
    wanted = load_checkpoint(folder, "cpu").prompts.encode("a person")
    stat = (folder / T5).stat()
    (folder / T5).write_bytes(b"\0" * stat.st_size)
    os.utime(folder / T5, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    spoilt = load_checkpoint(folder, "cpu").prompts
    assert torch.equal(spoilt.encode("a person"), wanted)
    with pytest.raises(CheckpointError):
        spoilt.encode("dances")


@pytest.mark.parametrize("part", [T5, str(TOKENIZER / "tokenizer.json")])
def test_another_encoder_gives_another_embedding(published: Path, copied: Copied, cache: Path, part: str) -> None:
    folder = copied(published)
    before = load_checkpoint(folder, "cpu").prompts.encode("a person")
    if part == T5:
        tensors = {k: v * 1.5 for k, v in read_tensors(folder / T5).items()}
        torch.save(tensors, folder / T5)
    else:
        text = (folder / part).read_text()
        (folder / part).write_text(text.replace('"person": 4', '"person": 5').replace('"dances": 5', '"dances": 4'))
    assert not torch.equal(load_checkpoint(folder, "cpu").prompts.encode("a person"), before)
    assert len(list(cache.iterdir())) == 2


def test_a_damaged_or_unwritable_cache_does_no_harm(published: Path, cache: Path) -> None:
    wanted = load_checkpoint(published, "cpu").prompts.encode("a person")
    (file,) = cache.iterdir()
    file.write_bytes(file.read_bytes()[:20])
    assert torch.equal(load_checkpoint(published, "cpu").prompts.encode("a person"), wanted)
    assert torch.equal(prompts._read(file), wanted)
    file.unlink()
    cache.rmdir()
    cache.write_text("a file where the folder should be")
    assert torch.equal(load_checkpoint(published, "cpu").prompts.encode("a person"), wanted)


def test_encoders_are_freed(published: Path, cache: Path) -> None:
    checkpoint = load_checkpoint(published, "cpu")
    assert checkpoint.image is not None
    checkpoint.prompts.encode("a person")
    checkpoint.image.encode(torch.zeros(3, 32, 32))
    networks = [weakref.ref(checkpoint.prompts._encoder), weakref.ref(checkpoint.image._encoder)]
    assert all(n() is not None for n in networks)
    checkpoint.release_encoders()
    assert all(n() is None for n in networks)
    assert checkpoint.image.encode(torch.zeros(3, 32, 32)).shape == (257, 32)
