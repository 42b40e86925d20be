"""LoRA against the published numbers, peft and diffusers, and the published relighting LoRA's key list at full size."""

from __future__ import annotations

from pathlib import Path

import detgen
import peft
import pytest
import torch
from diffusers import WanAnimateTransformer3DModel
from published_names import transformer_to_diffusers
from safetensors.torch import save_file
from test_diffusers import SMALL_FACES, twin
from test_networks import params_of, transformer_inputs
from torch import Tensor

from golden import Golden, check, fill, read_json
from wanimate.errors import InputError
from wanimate.integrations.diffusers import lora_weights
from wanimate.model.params import TransformerParams
from wanimate.model.transformer import AnimateTransformer
from wanimate.train.adapters import ALL, AdapterSettings, write_lora
from wanimate.weights.lora import LoraFile, match_lora, read_lora
from wanimate.weights.lora_view import with_loras

TARGETS = (
    *(f"self_attn.{x}" for x in "qkvo"), *(f"cross_attn.{x}" for x in ("q", "k", "v", "o", "k_img", "v_img")), "ffn.0", "ffn.2",
)  # fmt: skip
SMALL = TransformerParams(
    dim=128, ffn_dim=160, num_heads=2, num_layers=4, text_width=48, image_width=1280, face_width=96, face_every=2,
    motion=SMALL_FACES, time_width=128,
)  # fmt: skip


def adapter(model: AnimateTransformer, rank: int, names: tuple[str, ...] = TARGETS) -> dict[str, Tensor]:
    """LoRA tensors for these modules of every block, each made from its name."""
    tensors: dict[str, Tensor] = {}
    for i in range(model.params.num_layers):
        for name in (f"blocks.{i}.{target}" for target in names):
            rows, columns = model.get_parameter(f"{name}.weight").shape
            tensors[f"{name}.lora_A.weight"] = detgen.param(f"{name}.lora_A.weight", (rank, columns))
            tensors[f"{name}.lora_B.weight"] = detgen.param(f"{name}.lora_B.weight", (rows, rank))
    return tensors


def inputs(params: TransformerParams) -> dict[str, Tensor]:
    size = params.motion.size
    face = detgen.smooth_video("lora/face", 5, size, size).transpose(0, 1)[None]
    return {
        "x": detgen.randn("lora/x", (1, 16, 3, 4, 6)), "y": detgen.randn("lora/y", (1, 20, 3, 4, 6)),
        "pose": detgen.randn("lora/pose", (1, 16, 2, 4, 6)), "face": face,
        "text": detgen.randn("lora/text", (1, params.text_length, params.text_width)),
        "image": detgen.randn("lora/image", (1, 257, 1280)), "t": torch.tensor([611]),
    }  # fmt: skip


def run(model: AnimateTransformer, given: dict[str, Tensor], t: str = "t") -> Tensor:
    context = model.prepare(given["text"], given["image"], given["face"], given["pose"])
    return model(given["x"], given[t], given["y"], context)


@pytest.mark.parametrize("fuse", [False, True])
@torch.no_grad()
def test_published_numbers(fuse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The face branch, which this LoRA leaves alone and `test_transformer` measures, is taken as measured, for speed."""
    golden, base = Golden("lora"), Golden("transformer")
    monkeypatch.setattr(AnimateTransformer, "encode_face", lambda _, face: base["tap.face_tokens"])
    model = AnimateTransformer(params_of(base.meta["config"]))
    fill(model)
    file = LoraFile(Path("golden"), adapter(model, golden.meta["rank"]))
    lora = match_lora(file, model)
    assert lora.targets == 120
    given = transformer_inputs(base)
    check("out_t0", run(with_loras(model, [(lora, 1.0)], fuse), given, "t0")[0], golden["out_t0"], 2e-4, 5e-5)
    assert (golden["out_t0"] - base["out_t0"]).norm() > 0.1 * base["out_t0"].norm()


@pytest.mark.parametrize("stabilised", [False, True])
@torch.no_grad()
def test_equals_peft(tmp_path: Path, stabilised: bool) -> None:
    """peft wraps one copy and saves its adapter; that file on another copy gives the same, at peft's alpha."""
    model, theirs = AnimateTransformer(SMALL), AnimateTransformer(SMALL)
    fill(model)
    fill(theirs)
    config = peft.LoraConfig(
        r=4, lora_alpha=6, target_modules=r"blocks\.\d+\.(self_attn|cross_attn|ffn)\.(q|k|v|o|k_img|v_img|0|2)",
        use_rslora=stabilised,
        init_lora_weights=False,
    )  # fmt: skip
    wrapped = peft.get_peft_model(theirs, config).eval()  # type: ignore[arg-type]
    wrapped.save_pretrained(str(tmp_path))
    lora = match_lora(read_lora(tmp_path / "adapter_model.safetensors"), model)
    assert lora.dialect == "peft"
    given = inputs(SMALL)
    expected = run(wrapped.base_model.model, given)  # type: ignore[arg-type]
    plain = run(model, given)
    assert (expected - plain).norm() > 0.01 * plain.norm()
    for fuse in (False, True):
        check(f"fuse {fuse}", run(with_loras(model, [(lora, 1.0)], fuse), given), expected, 5e-5, 2e-5)


@torch.no_grad()
def test_equals_diffusers(tmp_path: Path) -> None:
    """One file under diffusers' names, face adapter and time included, into its twin and into ours."""
    model = AnimateTransformer(SMALL)
    fill(model)
    theirs: WanAnimateTransformer3DModel = twin(SMALL).eval()
    theirs.load_state_dict(transformer_to_diffusers(model.state_dict()), strict=True)
    tensors: dict[str, Tensor] = {}
    for name, module in theirs.named_modules():
        if isinstance(module, torch.nn.Linear) and not name.startswith(("motion_encoder", "face_encoder")):
            down, up = f"transformer.{name}.lora_A.weight", f"transformer.{name}.lora_B.weight"
            tensors[down] = detgen.param(down, (3, module.in_features))
            tensors[up] = detgen.param(up, (module.out_features, 3))
    assert any("face_adapter.0.to_v" in key for key in tensors)
    assert any("time_proj" in key for key in tensors)
    save_file(tensors, tmp_path / "theirs.safetensors")
    lora = match_lora(read_lora(tmp_path / "theirs.safetensors"), model)
    assert lora.dialect == "diffusers"
    given = inputs(SMALL)
    theirs.load_lora_adapter(dict(tensors), prefix="transformer")
    expected = theirs(
        torch.cat((given["x"], given["y"]), 1), given["t"], given["text"], given["image"], given["pose"], given["face"],
        return_dict=False,
    )[0]  # fmt: skip
    for fuse in (False, True):
        check(f"fuse {fuse}", run(with_loras(model, [(lora, 1.0)], fuse), given), expected, 5e-5, 2e-5)


@torch.no_grad()
def test_a_trained_lora_in_diffusers(tmp_path: Path) -> None:
    """What `wanimate train lora` writes, alpha other than rank, into diffusers' twin and into ours."""
    model = AnimateTransformer(SMALL)
    fill(model)
    theirs: WanAnimateTransformer3DModel = twin(SMALL).eval()
    theirs.load_state_dict(transformer_to_diffusers(model.state_dict()), strict=True)
    settings = AdapterSettings(rank=3, alpha=4.5)
    tensors = {f"base_model.model.{k}": v for k, v in adapter(model, settings.rank, ALL).items()}
    write_lora(tensors, settings, tmp_path / "own.safetensors", torch.float32, {})
    lora = match_lora(read_lora(tmp_path / "own.safetensors"), model)
    given = inputs(SMALL)
    plain = run(model, given)
    named = lora_weights(tmp_path / "own.safetensors")
    theirs.load_lora_adapter(named, prefix="transformer")
    loaded = [name for name, _ in theirs.named_parameters() if "lora_" in name]
    assert len(loaded) == len(named) == len(tensors)
    expected = theirs(
        torch.cat((given["x"], given["y"]), 1), given["t"], given["text"], given["image"], given["pose"], given["face"],
        return_dict=False,
    )[0]  # fmt: skip
    ours = run(with_loras(model, [(lora, 1.0)]), given)
    assert (ours - plain).abs().max() > 0.05
    check("trained", ours, expected, 5e-5, 2e-5)


def test_other_dialects_are_not_for_lora_weights(tmp_path: Path) -> None:
    file = tmp_path / "other.safetensors"
    save_file({"lora_unet_blocks_0_ffn_0.lora_down.weight": torch.ones(2, 3)}, file)
    with pytest.raises(InputError, match="none of the keys that `wanimate train lora` writes"):
        lora_weights(file)


@pytest.mark.parametrize("spelling", ["{}.lora_{}.default.weight", "base_model.model.{}.lora_{}.weight"])
def test_published_relighting_lora_is_used_whole(spelling: str) -> None:
    shapes: dict[str, list[int]] = read_json("keys/relighting_lora.json")
    with torch.device("meta"):
        model = AnimateTransformer(TransformerParams())
        tensors = {}
        for key, shape in shapes.items():
            module, letter = key.removesuffix(".weight").rsplit(".lora_", 1)
            tensors[spelling.format(module, letter)] = torch.empty(shape)
    lora = match_lora(LoraFile(Path("relighting_lora.ckpt"), tensors), model)
    assert (len(tensors), lora.targets, lora.unused) == (960, 480, ())
    assert all(part.scale == 1.0 for part in lora.low_rank)
    assert sum(t.numel() for t in tensors.values()) == 718_274_560
    assert {part.module for part in lora.low_rank} == {f"blocks.{i}.{target}" for i in range(40) for target in TARGETS}
