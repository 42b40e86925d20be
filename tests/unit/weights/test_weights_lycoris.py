"""LoRA's relatives: DoRA, LoHa and LoKr are applied as their papers say, others refused by name, misshapen keys left out."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoHaConfig, LoKrConfig, LoraConfig, PeftConfig, get_peft_model
from safetensors.torch import save_file
from tiny_checkpoints import OWN
from torch import Tensor

from golden import fill
from wanimate.config import LoraUse
from wanimate.errors import InputError
from wanimate.model.transformer import AnimateTransformer
from wanimate.weights.formats import quantize_rows
from wanimate.weights.lora import Lora, LoraFile, match_lora, read_lora
from wanimate.weights.lora_view import LoraStack, with_loras
from wanimate.weights.quantize import QuantizedLinear
from wanimate.weights.tools.inspect import find_networks

Q, FFN, PATCH = "blocks.0.self_attn.q", "blocks.1.ffn.0", "patch_embedding"
Tensors = dict[str, Tensor]


@pytest.fixture
def model() -> AnimateTransformer:
    made = AnimateTransformer(OWN)
    fill(made)
    return made.requires_grad_(False)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(3)


def matched(model: AnimateTransformer, tensors: Tensors, partial: bool = False, **more: float) -> Lora:
    return match_lora(LoraFile(Path("a.safetensors"), tensors, **more), model, partial)  # type: ignore[arg-type]


def pair(model: AnimateTransformer, module: str = Q, rank: int = 4) -> tuple[Tensor, Tensor]:
    shape = model.get_parameter(f"{module}.weight").shape
    return torch.randn(rank, *shape[1:]), torch.randn(shape[0], rank, *[1] * (len(shape) - 2))


def changed(model: AnimateTransformer, tensors: Tensors, module: str = Q, strength: float = 1.0) -> Tensor:
    return with_loras(model, [(matched(model, tensors), strength)]).get_parameter(f"{module}.weight")


def check(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize("module", [Q, FFN, PATCH])
@pytest.mark.parametrize("strength", [1.0, 0.5])
@pytest.mark.parametrize("axis", ["rows", "rows, peft", "columns"])
def test_dora(model: AnimateTransformer, module: str, strength: float, axis: str) -> None:
    """m * (W + D) / |W + D|, length by length; half the strength is half the way."""
    weight = model.get_parameter(f"{module}.weight")
    (down, up), alpha = pair(model, module), 2.0
    rows, columns = weight.shape[:2]
    magnitude = torch.rand(rows if axis != "columns" else columns) + 0.5
    shaped = (
        magnitude.view(-1, *[1] * (weight.ndim - 1))
        if axis != "columns"
        else magnitude.view(1, -1, *[1] * (weight.ndim - 2))
    )
    ends = ("lora_A.weight", "lora_B.weight", "lora_magnitude_vector") if "peft" in axis else (
        "lora_down.weight", "lora_up.weight", "dora_scale")  # fmt: skip
    stored = (down, up, magnitude if "peft" in axis else shaped)
    tensors = {f"diffusion_model.{module}.{end}": t for end, t in zip(ends, stored, strict=True)}
    tensors[f"diffusion_model.{module}.alpha"] = torch.tensor(alpha)
    whole = weight + alpha / 4 * (up.flatten(1) @ down.flatten(1)).view(weight.shape)
    expected = torch.empty_like(weight)
    for i in range(len(magnitude)):
        at = (i,) if axis != "columns" else (slice(None), i)
        expected[at] = weight[at] + strength * (magnitude[i] * whole[at] / whole[at].square().sum().sqrt() - weight[at])
    check(changed(model, tensors, module, strength), expected)
    assert "DoRA" in matched(model, tensors).dialect


def test_the_case_of_a_dora(model: AnimateTransformer) -> None:
    """Rows one and a half times as long as the base's; what a plain LoRA would make of the file is far away."""
    weight = model.get_parameter(f"{Q}.weight")
    down, up = (0.01 * t for t in pair(model))
    tensors = {f"{Q}.lora_down.weight": down, f"{Q}.lora_up.weight": up}
    tensors[f"{Q}.dora_scale"] = 1.5 * weight.norm(dim=1, keepdim=True)
    check(changed(model, tensors).norm(dim=1), 1.5 * weight.norm(dim=1))


def loha(model: AnimateTransformer, module: str = Q) -> tuple[Tensors, Tensor]:
    shape = model.get_parameter(f"{module}.weight").shape
    a, c = (torch.randn(shape[0], 3) for _ in range(2))
    b, d = (torch.randn(3, shape[1:].numel()) for _ in range(2))
    names = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
    tensors = {f"lycoris_{module.replace('.', '_')}.{n}": t for n, t in zip(names, (a, b, c, d), strict=True)}
    tensors[f"lycoris_{module.replace('.', '_')}.alpha"] = torch.tensor(6.0)
    return tensors, (2 * (a @ b) * (c @ d)).view(shape)


def lokr(model: AnimateTransformer, form: str, module: str = Q) -> tuple[Tensors, Tensor]:
    """Entry by entry: block (i, j) of the change is w1[i, j] * w2. alpha counts where a factor is of low rank."""
    shape = model.get_parameter(f"{module}.weight").shape
    rows, columns, rank, alpha = shape[0], shape[1:].numel(), 2, 4.0
    first, second = torch.randn(4, 2), torch.randn(rows // 4, columns // 2)
    stored = {"lokr_w1": first, "lokr_w2": second}
    scale = 1.0
    if form == "low":
        sizes = {"w1_a": (4, rank), "w1_b": (rank, 2), "w2_a": (rows // 4, rank), "w2_b": (rank, columns // 2)}
        parts = {f"lokr_{name}": torch.randn(size) for name, size in sizes.items()}
        first, second = (parts[f"lokr_{w}_a"] @ parts[f"lokr_{w}_b"] for w in ("w1", "w2"))
        stored, scale = parts, alpha / rank
    elif form == "half low":
        low = {"lokr_w2_a": torch.randn(rows // 4, rank), "lokr_w2_b": torch.randn(rank, columns // 2)}
        second = low["lokr_w2_a"] @ low["lokr_w2_b"]
        stored, scale = {"lokr_w1": first} | low, alpha / rank
    blocks = [torch.cat([first[i, j] * second for j in range(2)], 1) for i in range(4)]
    tensors = {f"lycoris_{module.replace('.', '_')}.{k}": v for k, v in stored.items()}
    tensors[f"lycoris_{module.replace('.', '_')}.alpha"] = torch.tensor(alpha)
    return tensors, scale * torch.cat(blocks).view(shape)


MAKERS: dict[str, Callable[[AnimateTransformer, str], tuple[Tensors, Tensor]]] = {
    "LoHa": loha,
    "LoKr": lambda model, module: lokr(model, "full", module),
    "LoKr, low": lambda model, module: lokr(model, "low", module),
    "LoKr, half low": lambda model, module: lokr(model, "half low", module),
}


@pytest.mark.parametrize("module", [Q, FFN, PATCH])
@pytest.mark.parametrize("kind", MAKERS)
def test_loha_and_lokr(model: AnimateTransformer, kind: str, module: str, tmp_path: Path) -> None:
    tensors, change = MAKERS[kind](model, module)
    expected = model.get_parameter(f"{module}.weight") + 0.75 * change
    check(changed(model, tensors, module, 0.75), expected)
    save_file({k: v.contiguous() for k, v in tensors.items()}, tmp_path / "a.safetensors")
    lora = match_lora(read_lora(tmp_path / "a.safetensors"), model)
    assert kind.partition(",")[0] in lora.dialect
    assert (lora.targets, lora.unused) == (1, ())
    assert find_networks(tmp_path / "a.safetensors")[0].family == "LoRA"


def test_dora_of_a_lokr(model: AnimateTransformer) -> None:
    tensors, change = lokr(model, "full")
    magnitude = torch.rand(OWN.dim, 1) + 0.5
    whole = model.get_parameter(f"{Q}.weight") + change
    expected = magnitude * whole / whole.norm(dim=1, keepdim=True)
    check(changed(model, tensors | {f"lycoris_{Q.replace('.', '_')}.dora_scale": magnitude}), expected)


@pytest.mark.parametrize("half", [0, 1])
def test_dora_of_one_half_of_a_fuser(model: AnimateTransformer, half: int) -> None:
    """diffusers' keys or values are half the rows of one matrix; the other half stays as it is."""
    name = "face_adapter.fuser_blocks.0.linear1_kv"
    weight = model.get_parameter(f"{name}.weight")
    own = weight.chunk(2)[half]
    key = f"transformer.face_adapter.0.to_{'kv'[half]}"
    down, up, magnitude = torch.randn(2, own.shape[1]), torch.randn(len(own), 2), torch.rand(len(own)) + 0.5
    tensors = {f"{key}.lora_A.weight": down, f"{key}.lora_B.weight": up, f"{key}.lora_magnitude_vector": magnitude}
    whole = own + up @ down
    expected = weight.clone()
    expected.chunk(2)[half].copy_(magnitude[:, None] * whole / whole.norm(dim=1, keepdim=True))
    check(changed(model, tensors, name), expected)


def test_the_base_is_not_touched_and_sizes_count_the_copies(model: AnimateTransformer) -> None:
    before = {k: v.clone() for k, v in model.state_dict().items()}
    lora = matched(model, lokr(model, "full")[0])
    stack = LoraStack(
        model, [(lora, LoraUse(path=Path("a"))), (matched(model, loha(model, FFN)[0]), LoraUse(path=Path("b")))]
    )
    view = stack.transformer(stack.active(0, 2))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not torch.equal(view.get_parameter(f"{Q}.weight"), before[f"{Q}.weight"])
    sizes = stack.sizes(2)
    assert sizes.blocks == sum(before[f"{m}.weight"].numel() for m in (Q, FFN))
    assert sizes.beside == 0


def test_dora_of_a_quantised_weight(model: AnimateTransformer) -> None:
    """The lengths are those of what the 8 bits stand for."""
    layer = model.get_submodule(Q)
    assert isinstance(layer, torch.nn.Linear)
    levels, scale = quantize_rows(layer.weight)
    model.blocks[0].self_attn.q = QuantizedLinear.of(layer, levels, scale)  # type: ignore[union-attr]
    down, up = pair(model)
    magnitude = torch.rand(OWN.dim, 1) + 0.5
    tensors = {f"{Q}.lora_down.weight": down, f"{Q}.lora_up.weight": up, f"{Q}.dora_scale": magnitude}
    whole = levels.float() * scale + up @ down
    check(changed(model, tensors), magnitude * whole / whole.norm(dim=1, keepdim=True))


NOT_APPLIED = {
    "lora_mid.weight": "LoCon in Tucker form", "oft_blocks": "OFT", "oft_R.weight": "OFT", "boft_R": "BOFT",
    "a1.weight": "GLoRA", "on_input": r"\(IA\)3", "lokr_t2": "LoKr in Tucker form", "hada_t1": "LoHa in Tucker form",
    "lora_E": "AdaLoRA", "vera_lambda_d": "VeRA",
}  # fmt: skip


@pytest.mark.parametrize("ending", NOT_APPLIED)
@pytest.mark.parametrize("beside", [False, True])
def test_other_adapters_are_named(model: AnimateTransformer, ending: str, beside: bool, tmp_path: Path) -> None:
    """With plain LoRA keys beside them as well: half of such a file would give another picture."""
    down, up = pair(model)
    tensors = {f"lycoris_blocks_0_self_attn_q.{ending}": torch.ones(2, 2)}
    tensors |= {f"{Q}.lora_down.weight": down, f"{Q}.lora_up.weight": up} if beside else {}
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=f"it is {NOT_APPLIED[ending]}.*not applied here.*merge") as caught:
        read_lora(tmp_path / "a.safetensors")
    assert caught.value.exit_code == 2


def bad_keys(model: AnimateTransformer) -> dict[str, Tensors]:
    """Keys that do not fit their place, by what is wrong with them."""
    down, up = pair(model, FFN)
    return {
        "16 channels": {
            "diffusion_model.patch_embedding.lora_down.weight": torch.randn(4, 16, 1, 2, 2),
            "diffusion_model.patch_embedding.lora_up.weight": torch.randn(OWN.dim, 4, 1, 1, 1),
        },
        "rank": {f"{FFN}.lora_A.weight": down, f"{FFN}.lora_B.weight": up[:, :3]},
        "rank 0": {f"{FFN}.lora_A.weight": down[:0], f"{FFN}.lora_B.weight": up[:, :0]},
        "alpha": {f"{FFN}.lora_A.weight": down, f"{FFN}.lora_B.weight": up, f"{FFN}.alpha": torch.ones(2)},
        "magnitude": {f"{FFN}.lora_A.weight": down, f"{FFN}.lora_B.weight": up, f"{FFN}.dora_scale": torch.ones(3, 1)},
        "difference": {"blocks.1.norm3.diff": torch.ones(3)},
        "kronecker": {f"{FFN}.lokr_w1": torch.ones(3, 3), f"{FFN}.lokr_w2": torch.ones(5, 5)},
        "kronecker, one factor": {f"{FFN}.lokr_w1": torch.ones(3, 3)},
        "hadamard": {f"{FFN}.hada_w{i}_{e}": torch.ones(3, 3) for i in (1, 2) for e in "ab"},
        "a norm": {"blocks.1.norm3.lora_A.weight": torch.ones(2), "blocks.1.norm3.lora_B.weight": torch.ones(OWN.dim, 2)},
        "modulation": {f"blocks.1.modulation.lora_{e}.weight": torch.ones(2, 2) for e in "AB"},
    }  # fmt: skip


def test_an_empty_pair_is_called_empty(model: AnimateTransformer) -> None:
    with pytest.raises(InputError, match=r"lora_A\.weight is empty"):
        matched(model, bad_keys(model)["rank 0"])


def test_a_quantised_lora_is_asked_for_in_another_type(tmp_path: Path) -> None:
    """The remedy speaks of the LoRA, not of a checkpoint."""
    levels = {f"{Q}.lora_{e}.weight": torch.ones(4, 4, dtype=torch.int8) for e in ("down", "up")}
    save_file(levels, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=r"int8 without scales.*Use the LoRA in bf16, fp16 or fp32\.$"):
        read_lora(tmp_path / "a.safetensors")


@pytest.mark.parametrize("wrong", list(bad_keys(AnimateTransformer(OWN))))
def test_misshapen_keys_are_left_out_and_listed(model: AnimateTransformer, wrong: str) -> None:
    down, up = pair(model)
    good, bad = {f"{Q}.lora_down.weight": down, f"{Q}.lora_up.weight": up}, bad_keys(model)[wrong]
    with pytest.raises(InputError, match="lora_partial"):
        matched(model, good | bad)
    lora = matched(model, good | bad, partial=True)
    assert lora.targets == 1
    assert set(lora.unused) == set(bad)
    with pytest.raises(InputError, match="no place"):
        matched(model, bad, partial=True)


@pytest.mark.parametrize(
    ("config", "whole"), [({"peft_type": "LOKR", "alpha": 6, "r": 4}, 1.5), ({"peft_type": "LOKR"}, 1.0)]
)
def test_pefts_scale_of_a_lokr(
    model: AnimateTransformer, config: dict[str, object], whole: float, tmp_path: Path
) -> None:
    tensors, change = lokr(model, "full")
    named = {
        f"base_model.model.{Q}.{k.rpartition('.')[2]}": v.contiguous() for k, v in tensors.items() if "alpha" not in k
    }
    save_file(named, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    lora = match_lora(read_lora(tmp_path / "adapter_model.safetensors"), model)
    view = with_loras(model, [(lora, 1.0)])
    check(view.get_parameter(f"{Q}.weight"), model.get_parameter(f"{Q}.weight") + whole * change)


PEFT: dict[str, PeftConfig] = {
    "DoRA": LoraConfig(r=4, lora_alpha=2, use_dora=True, target_modules=[Q, FFN]),
    "LoHa": LoHaConfig(r=4, alpha=2, target_modules=[Q, FFN]),
    "LoKr, low": LoKrConfig(r=2, alpha=6, target_modules=[Q, FFN]),
    "LoKr, whole": LoKrConfig(r=64, alpha=6, target_modules=[Q, FFN]),
}


@pytest.mark.parametrize("kind", PEFT)
def test_adapters_that_peft_writes_do_what_they_do_there(kind: str, model: AnimateTransformer, tmp_path: Path) -> None:
    theirs = get_peft_model(copy.deepcopy(model), PEFT[kind])
    for name, parameter in theirs.named_parameters():
        if parameter.requires_grad:
            parameter.data = 0.3 * torch.randn(parameter.shape) + ("magnitude" in name)
    theirs.save_pretrained(tmp_path)
    lora = match_lora(read_lora(tmp_path / "adapter_model.safetensors"), model)
    view, x = with_loras(model, [(lora, 1.0)]), torch.randn(3, OWN.dim)
    for module in (Q, FFN):
        expected = theirs.base_model.model.get_submodule(module)(x).detach()
        assert (view.get_submodule(module)(x) - expected).abs().max() < 1e-5
        assert (model.get_submodule(module)(x) - expected).abs().max() > 0.1


def test_a_dora_by_its_configuration_alone(tmp_path: Path, model: AnimateTransformer) -> None:
    down, up = pair(model)
    save_file({f"{Q}.lora_A.weight": down, f"{Q}.lora_B.weight": up}, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"use_dora": True}))
    with pytest.raises(InputError, match="says DoRA, and it holds no magnitudes"):
        read_lora(tmp_path / "adapter_model.safetensors")


def test_differences_of_norms_by_lycoris(model: AnimateTransformer) -> None:
    tensors = {"blocks.1.norm3.w_norm": torch.randn(OWN.dim), "blocks.1.norm3.b_norm": torch.randn(OWN.dim)}
    view = with_loras(model, [(matched(model, tensors), 0.5)])
    for end, leaf in (("w_norm", "weight"), ("b_norm", "bias")):
        check(
            view.get_parameter(f"blocks.1.norm3.{leaf}"),
            model.get_parameter(f"blocks.1.norm3.{leaf}") + 0.5 * tensors[f"blocks.1.norm3.{end}"],
        )
