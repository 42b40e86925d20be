"""LoRA files: every dialect, what is refused and how, stacking, schedules, and a base that stays as it was."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import detgen
import pytest
import torch
from safetensors.torch import save_file
from tiny_checkpoints import OWN
from torch import Tensor

from golden import fill
from wanimate.config import GenerateSettings, Job, LoraUse
from wanimate.errors import InputError
from wanimate.model.transformer import AnimateTransformer
from wanimate.sampling.guidance import PhasedNetwork
from wanimate.weights import lora_view as twins
from wanimate.weights.formats import dequantize, quantize_rows
from wanimate.weights.lora import Lora, LoraFile, match_lora, read_lora
from wanimate.weights.lora_view import LoraSizes, LoraStack, with_loras

MODULES = ("blocks.0.self_attn.q", "blocks.1.cross_attn.k", "blocks.2.self_attn.o", "blocks.3.ffn.0", "blocks.4.ffn.2")
THEIRS = dict(
    zip(MODULES, ("blocks.0.attn1.to_q", "blocks.1.attn2.to_k", "blocks.2.attn1.to_out.0", "blocks.3.ffn.net.0.proj",
        "blocks.4.ffn.net.2"), strict=True)
)  # fmt: skip
Spelling = tuple[Callable[[str], str], str, str]
DIALECTS: dict[str, Spelling] = {
    "peft": (lambda m: f"base_model.model.{m}", "lora_A.weight", "lora_B.weight"),
    "peft, named": (lambda m: m, "lora_A.default.weight", "lora_B.default.weight"),
    "kohya": (lambda m: "lora_unet_" + m.replace(".", "_"), "lora_down.weight", "lora_up.weight"),
    "kohya, two underscores": (lambda m: "lora_unet__" + m.replace(".", "_"), "lora_down.weight", "lora_up.weight"),
    "lycoris, diffusers": (lambda m: "lycoris_" + THEIRS[m].replace(".", "_"), "lora_down.weight", "lora_up.weight"),
    "diffusion_model": (lambda m: f"diffusion_model.{m}", "lora_down.weight", "lora_up.weight"),
    "model.diffusion_model": (lambda m: f"model.diffusion_model.{m}", "lora_A.weight", "lora_B.weight"),
    "transformer": (lambda m: f"transformer.{m}", "lora_A.weight", "lora_B.weight"),
    "diffusers": (lambda m: f"transformer.{THEIRS[m]}", "lora_A.weight", "lora_B.weight"),
}


@pytest.fixture
def model() -> AnimateTransformer:
    made = AnimateTransformer(OWN)
    fill(made)
    return made.requires_grad_(False)


def parts(model: AnimateTransformer, module: str, rank: int = 4, seed: str = "") -> tuple[Tensor, Tensor]:
    rows, columns = model.get_parameter(f"{module}.weight").shape
    return detgen.param(f"{seed}{module}.A", (rank, columns)), detgen.param(f"{seed}{module}.B", (rows, rank))


def spelled(model: AnimateTransformer, dialect: str, alpha: float | None = None) -> dict[str, Tensor]:
    name, down, up = DIALECTS[dialect]
    tensors: dict[str, Tensor] = {}
    for module in MODULES:
        tensors[f"{name(module)}.{down}"], tensors[f"{name(module)}.{up}"] = parts(model, module)
        if alpha is not None:
            tensors[f"{name(module)}.alpha"] = torch.tensor(alpha)
    return tensors


def matched(model: AnimateTransformer, tensors: dict[str, Tensor], partial: bool = False) -> Lora:
    return match_lora(LoraFile(Path("a.safetensors"), tensors), model, partial)


def run(model: AnimateTransformer) -> Tensor:
    size = OWN.motion.size
    face = detgen.smooth_video("unit/face", 5, size, size).transpose(0, 1)[None]
    context = model.prepare(
        detgen.randn("unit/text", (1, 3, 8)), None, face, detgen.randn("unit/pose", (1, 16, 2, 4, 4))
    )
    x, y = detgen.randn("unit/x", (1, 16, 3, 4, 4)), detgen.randn("unit/y", (1, 20, 3, 4, 4))
    return model(x, torch.tensor([500]), y, context)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("fuse", [False, True])
def test_every_dialect_gives_the_same(model: AnimateTransformer, dialect: str, fuse: bool) -> None:
    by_hand = AnimateTransformer(OWN)
    by_hand.load_state_dict(model.state_dict())
    with torch.no_grad():
        for module in MODULES:
            down, up = parts(model, module)
            by_hand.get_parameter(f"{module}.weight").add_(0.75 * 0.5 * up @ down)
        expected = run(by_hand)
    lora = matched(model, spelled(model, dialect, alpha=2.0))
    assert lora.targets == len(MODULES)
    out = run(with_loras(model, [(lora, 0.75)], fuse))
    assert (out - expected).abs().max() < 2e-5 < (expected - run(model)).abs().max()


def test_whole_differences_and_layers_that_are_read_past_their_call(model: AnimateTransformer) -> None:
    """Time, head, norms, modulation and the patch embedding; beside the weights and inside them it is the same."""
    keys = {
        "blocks.0.norm3.diff": "blocks.0.norm3.weight", "blocks.0.norm3.diff_b": "blocks.0.norm3.bias",
        "diffusion_model.blocks.1.diff_m": "blocks.1.modulation", "head.modulation.diff": "head.modulation",
        "patch_embedding.diff": "patch_embedding.weight", "blocks.2.self_attn.q.diff_b": "blocks.2.self_attn.q.bias",
    }  # fmt: skip
    tensors = {key: 0.1 * detgen.randn(key, model.get_parameter(name).shape) for key, name in keys.items()}
    low = (
        "time_embedding.0",
        "time_projection.1",
        "head.head",
        "text_embedding.2",
        "face_adapter.fuser_blocks.0.linear2",
    )
    for module in low:
        tensors[f"{module}.lora_A.weight"], tensors[f"{module}.lora_B.weight"] = parts(model, module)
    lora = matched(model, tensors)
    assert lora.targets == len(keys) + len(low)
    twin = with_loras(model, [(lora, 2.0)])
    for key, name in keys.items():
        assert torch.equal(twin.get_parameter(name), model.get_parameter(name) + 2 * tensors[key])
    for module in low:
        down, up = parts(model, module)
        change = twin.get_parameter(f"{module}.weight") - model.get_parameter(f"{module}.weight")
        assert (change - 2 * up @ down).abs().max() < 1e-5


@pytest.mark.parametrize("fuse", [False, True])
def test_the_base_is_bit_equal_and_loras_add_up(model: AnimateTransformer, fuse: bool) -> None:
    before, plain = {k: v.clone() for k, v in model.state_dict().items()}, run(model)
    lora = matched(model, spelled(model, "peft"))
    uses = [(lora, LoraUse(path=Path("a"), strength=s)) for s in (0.5, 0.25)]
    stack = LoraStack(model, uses, fuse)
    both = run(stack.transformer(stack.active(0, 4)))
    assert (both - run(with_loras(model, [(lora, 0.75)]))).abs().max() < 2e-5 < (both - plain).abs().max()
    assert stack.transformer(()) is model
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert torch.equal(run(model), plain)


def test_a_delta_on_quantised_weights_is_not_rounded_with_them(model: AnimateTransformer) -> None:
    tensors = dict(model.state_dict())
    for module in MODULES:
        key = f"{module}.weight"
        tensors[key], tensors[f"{key}_scale"] = quantize_rows(tensors[key])
    coarse = AnimateTransformer(OWN)
    coarse.load_state_dict(dequantize(tensors))
    small = {k: v * 1e-2 for k, v in spelled(model, "peft").items()}
    twin = with_loras(coarse.requires_grad_(False), [(matched(coarse, small), 1.0)], fuse=True)
    for module in MODULES:
        down, up = parts(model, module)
        change = twin.get_parameter(f"{module}.weight") - coarse.get_parameter(f"{module}.weight")
        assert (change - 1e-4 * up @ down).abs().max() < 1e-7


@pytest.mark.parametrize("fuse", [False, True])
def test_sizes_are_what_the_twins_hold(model: AnimateTransformer, fuse: bool) -> None:
    tensors = spelled(model, "peft") | {"patch_embedding.diff": torch.ones(model.patch_embedding.weight.shape)}
    uses = [LoraUse.model_validate("a.pt@0-50%"), LoraUse.model_validate("b.pt@25-100%")]
    stack = LoraStack(model, [(matched(model, tensors), use) for use in uses], fuse)
    with torch.device("meta"):
        empty = AnimateTransformer(OWN)
    sizes = LoraStack(empty, [(matched(empty, tensors), use) for use in uses], fuse).sizes(4)
    assert sizes == stack.sizes(4)

    shared = {id(p) for p in model.parameters()}
    own: list[dict[str, int]] = []
    beside, ranks = 0, []
    for active in ((0,), (0, 1), (1,)):
        twin = stack.transformer(active)
        own.append({name: p.numel() for name, p in twin.named_parameters() if id(p) not in shared})
        hooks = [hook.parts for m in twin.modules() for hook in m._forward_hooks.values()]
        beside += sum(part.down.nbytes + part.up.nbytes for part, _ in itertools.chain(*hooks))
        ranks += [sum(len(part.down) for part, _ in parts) for parts in hooks]
    blocks = [{n: v for n, v in names.items() if n.startswith("blocks.")} for names in own]
    assert sizes.beside == beside
    assert sizes.rank == max(ranks, default=0) == (0 if fuse else 8)
    assert sizes.blocks == sum(sum(names.values()) for names in blocks)
    assert sizes.block == max((v for names in blocks for v in names.values()), default=0)
    assert sizes.others == 3 * model.patch_embedding.weight.numel()
    at_text = sum(part.numel() for part in parts(model, "blocks.1.cross_attn.k"))
    assert sizes.values == (0 if fuse else 2 * (sum(p.numel() for m in MODULES for p in parts(model, m)) - at_text))
    assert LoraStack(model, []).sizes(4) == LoraSizes()


def test_few_tokens_at_a_time_are_the_same(model: AnimateTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    twin = with_loras(model, [(matched(model, spelled(model, "peft")), 1.0)])
    whole = run(twin)
    monkeypatch.setattr(twins, "ROWS", 5)
    assert (run(twin) - whole).abs().max() < 1e-5


def test_schedule(model: AnimateTransformer) -> None:
    lora = matched(model, spelled(model, "peft"))
    uses = [LoraUse.model_validate("a.safetensors:0.8@0-50%"), LoraUse.model_validate("b.safetensors@25-100%")]
    stack = LoraStack(model, [(lora, use) for use in uses])
    assert [stack.active(i, 4) for i in range(4)] == [(0,), (0, 1), (1,), (1,)]
    made: list[tuple[tuple[int, ...], int]] = []

    @dataclass
    class Counted:
        number: int
        skipped: int = 0

        def __call__(self, x: Tensor, t: Tensor) -> Tensor:
            self.skipped += 1
            return x + self.number

    def make(key: tuple[int, ...], start: int) -> Counted:
        made.append((key, start))
        return Counted(len(made))

    network = PhasedNetwork(lambda step: stack.active(step, 4), make)
    assert [network(torch.tensor(0), torch.tensor(0)).item() for _ in range(4)] == [1, 2, 3, 3]
    assert made == [((0,), 0), ((0, 1), 1), ((1,), 2)]
    assert network.skipped == 4  # of all of them


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.pt", ("a.pt", 1.0, 0.0, 1.0)), ("d/a.pt:0.8", ("d/a.pt", 0.8, 0.0, 1.0)),
        ("a.pt:-1@0-50%", ("a.pt", -1.0, 0.0, 0.5)), ("C:\\a.pt@12.5-100%", ("C:\\a.pt", 1.0, 0.125, 1.0)),
    ],
)  # fmt: skip
def test_texts(text: str, expected: tuple[str, float, float, float]) -> None:
    use = LoraUse.model_validate(text)
    assert (str(use.path), use.strength, use.start, use.stop) == expected


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("a.pt:loud", "'loud' is not a number"),
        ("a.pt:nan", "finite"),
        ("a.pt@50-50%", "ends before it starts"),
        ("a.pt@0-200%", "less than"),
    ],
)
def test_texts_that_are_refused(text: str, rule: str) -> None:
    with pytest.raises(InputError, match=rule):
        Job.of("a.png", "b.mp4", "c.mp4", lora=[text])


def test_keys_without_a_place_are_named_or_left_out(model: AnimateTransformer) -> None:
    tensors = spelled(model, "kohya")
    tensors["lora_unet_blocks_0_cross_attn_k_img.lora_down.weight"] = torch.zeros(4, 32)
    tensors["blocks.1.ffn.0.lora_A.weight"] = torch.zeros(4, 32)
    with pytest.raises(InputError, match=r"k_img\.lora_down.*blocks\.1\.ffn\.0\.lora_A.*no place.*lora_partial"):
        matched(model, tensors)
    lora = matched(model, tensors, partial=True)
    assert lora.targets == len(MODULES)
    assert set(lora.unused) == {"lora_unet_blocks_0_cross_attn_k_img.lora_down.weight", "blocks.1.ffn.0.lora_A.weight"}
    with pytest.raises(InputError, match="no place"):
        matched(model, {"fuser_blocks.0.linear2.lora_A.weight": torch.zeros(4, 32)}, partial=True)


@pytest.mark.parametrize("key", ["blocks.0.self_attn.q.lora_A.weight", "blocks.0.self_attn.q.lora_B.weight"])
def test_shapes_are_named(model: AnimateTransformer, key: str) -> None:
    tensors = spelled(model, "transformer")
    tensors[f"transformer.{key}"] = torch.zeros(5, 7)
    with pytest.raises(InputError, match=rf"{key} has the shape \[5, 7\]"):
        matched(model, tensors)


def test_files_that_are_refused(model: AnimateTransformer, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    torch.save({"state_dict": {"a": Trap()}}, tmp_path / "code.ckpt")
    save_file({}, tmp_path / "empty.safetensors")
    save_file({"blocks.0.self_attn.q.weight": torch.ones(2)}, tmp_path / "model.safetensors")
    save_file({"blocks.0.self_attn.q.lora_A.weight": torch.tensor([[torch.nan]])}, tmp_path / "nan.safetensors")
    for name, rule in {
        "code.ckpt": "run code", "empty.safetensors": "it is empty", "model.safetensors": "holds no LoRA",
        "nan.safetensors": r"lora_A\.weight is not finite", "none.safetensors": "no such file",
    }.items():  # fmt: skip
        with pytest.raises(InputError, match=rule) as caught:
            read_lora(tmp_path / name)
        assert (caught.value.field, caught.value.exit_code) == ("generate.lora", 2)
    assert not (tmp_path / "sprung").exists()
    torch.save({"state_dict": spelled(model, "peft")}, tmp_path / "good.ckpt")
    assert match_lora(read_lora(tmp_path / "good.ckpt"), model).targets == len(MODULES)


def test_settings_take_texts_and_paths() -> None:
    uses = GenerateSettings.model_validate({"lora": ["a.pt:0.5", Path("b.pt")]}).lora
    assert uses == (LoraUse(path=Path("a.pt"), strength=0.5), LoraUse(path=Path("b.pt")))
