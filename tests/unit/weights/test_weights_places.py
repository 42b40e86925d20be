"""Networks in files of any name, in one folder or spread over ComfyUI's folders, told by their content."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from io import BytesIO
from pathlib import Path

import detgen
import pytest
import sentencepiece
import torch
from published_shapes import t5_shapes
from safetensors.torch import save_file
from test_weights_layouts import transformers_clip, write_gguf
from tiny_checkpoints import PUBLISHED, transformer_tensors, vae_tensors, write_guides
from torch import Tensor
from transformers import T5Tokenizer

from wanimate.api import Animator
from wanimate.config import GenerateSettings
from wanimate.errors import CheckpointError
from wanimate.finish.lock import record_path
from wanimate.model.params import VaeParams
from wanimate.runtime.planning.sizes import networks
from wanimate.weights.checkpoint import Checkpoint, check_checkpoint, load_checkpoint
from wanimate.weights.formats import quantize_rows, read_tensors
from wanimate.weights.locate import (
    CLIP,
    T5,
    TOKENIZER,
    TRANSFORMER,
    VAE,
    checkpoint_files,
    find_clip,
    find_text_encoder,
    find_vae,
    read_checkpoint_config,
    transformer_files,
)  # fmt: skip
from wanimate.weights.names import umt5_to_transformers
from wanimate.weights.relighting import find_relighting
from wanimate.weights.tokenizer import SentencePiece
from wanimate.weights.tools.convert import convert
from wanimate.weights.tools.inspect import find_networks, verify

PROMPTS = ("a person dances", "the person, dancing  twice", "视频中的人在做动作", "x" * 3000)
VOCABULARY = 64
TEXT_SHAPES = t5_shapes(vocab=VOCABULARY, dim=16, inner=16, ffn=24, heads=2, layers=2)


@cache
def transformer_state() -> dict[str, Tensor]:
    return transformer_tensors(PUBLISHED)


@cache
def vae_state() -> dict[str, Tensor]:
    return vae_tensors(VaeParams(base=8))


@cache
def text_state() -> dict[str, Tensor]:
    return detgen.state_dict(TEXT_SHAPES)


@cache
def sentencepiece_model() -> bytes:
    """A SentencePiece model with umT5's special tokens."""
    texts = ["a person dances in the street", "the dog runs over the hill twice", "视频中的人在做动作"] * 9
    out = BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=out, vocab_size=VOCABULARY, pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
        hard_vocab_limit=False, minloglevel=2, num_threads=1,
    )  # fmt: skip
    return out.getvalue()


@pytest.fixture(scope="module")
def spiece() -> bytes:
    return sentencepiece_model()


def text_tensors(spiece: bytes | None, half: bool = False, scaled: bool = False) -> dict[str, Tensor]:
    """As ComfyUI's files hold umT5: transformers' keys, one table of tokens, the tokenizer's bytes, perhaps fp8."""
    tensors = {k: v for k, v in umt5_to_transformers(text_state()).items() if "embed_tokens" not in k}
    if half:
        tensors = {k: v.half() for k, v in tensors.items()}
    for key in [k for k, v in tensors.items() if scaled and v.ndim == 2 and "SelfAttention.q" in k]:
        scale = tensors[key].float().abs().max() / 448
        tensors[key.replace(".weight", ".scale_weight")] = scale
        tensors[key] = (tensors[key].float() / scale).to(torch.float8_e4m3fn)
    if scaled:
        tensors["scaled_fp8"] = torch.zeros(2, dtype=torch.float8_e4m3fn)
    if spiece is not None:
        tensors["spiece_model"] = torch.frombuffer(bytearray(spiece), dtype=torch.uint8)
    return {k: v.contiguous() for k, v in tensors.items()}


def save(tensors: dict[str, Tensor], file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in tensors.items()}, file)
    return file


def comfy(root: Path, published: Path, spiece: bytes | None, spread: bool = True) -> Path:
    """ComfyUI's folders, or all in one; returns the transformer's file."""
    at = (lambda name: root / name) if spread else (lambda name: root / Path(name).name)
    clip = {k: v.half() for k, v in transformers_clip(read_tensors(published / CLIP)).items()}
    save(clip | {"visual_projection.weight": torch.zeros(8, 32)}, at("clip_vision/clip_vision_h.safetensors"))
    save(vae_state(), at("vae/wan_2.1_vae.safetensors"))
    save(text_tensors(spiece), at("text_encoders/umt5_xxl_fp16.safetensors"))
    state = transformer_state()
    return save(
        {f"model.diffusion_model.{k}": v for k, v in state.items()}, at("diffusion_models/animate_14B.safetensors")
    )


def reference(published: Path, folder: Path, spiece: bytes) -> Checkpoint:
    """The published layout with the same text encoder and tokenizer."""
    shutil.copytree(published, folder)
    torch.save(text_state(), folder / T5)
    shutil.rmtree(folder / TOKENIZER)
    (folder / TOKENIZER).mkdir()
    (folder / TOKENIZER / "spiece.model").write_bytes(spiece)
    return load_checkpoint(folder, "cpu")


@pytest.mark.parametrize("spread", [True, False])
@pytest.mark.parametrize("given", ["folder", "file"])
def test_comfyuis_folders(given: str, spread: bool, published: Path, tmp_path: Path, spiece: bytes) -> None:
    """The root folder or the transformer's file, spread or in one folder: the same networks as in the published layout."""
    file = comfy(tmp_path / "models", published, spiece, spread)
    root, config = read_checkpoint_config(file if given == "file" else tmp_path / "models")
    loaded, expected = load_checkpoint(root, "cpu"), reference(published, tmp_path / "published", spiece)
    for name in ("transformer", "vae"):
        own, other = (getattr(one, name).state_dict() for one in (loaded, expected))
        assert all(torch.equal(own[k], v) for k, v in other.items())
    for prompt in PROMPTS:
        assert torch.equal(loaded.prompts.encode(prompt), expected.prompts.encode(prompt))
    picture = torch.rand(3, 40, 30) * 2 - 1
    assert loaded.image is not None
    assert expected.image is not None
    assert (loaded.image.encode(picture) - expected.image.encode(picture)).abs().max() < 0.02
    assert check_checkpoint(root, config) == loaded.transformer.params
    assert len(checkpoint_files(root, config)) == 4
    assert networks(root, config, "auto", torch.device("cpu")).text == 4 * sum(
        v.numel() for v in read_tensors(tmp_path / "published" / T5).values()
    )
    if given == "folder":
        found = find_networks(root)
        assert [one.family for one in found] == ["transformer", "VAE", "image encoder", "text encoder"]
        assert all(verify(one) == {} for one in found)


def test_the_folder_of_transformers_itself(published: Path, tmp_path: Path, spiece: bytes) -> None:
    """`diffusion_models/` given as the checkpoint, or a folder in it: the others lie in the folders around it."""
    file = comfy(tmp_path, published, spiece)
    inner = tmp_path / "diffusion_models" / "wan"
    inner.mkdir()
    file.rename(inner / file.name)
    for place in (tmp_path / "diffusion_models", inner, inner / file.name, tmp_path):
        assert transformer_files(place) == [inner.absolute() / file.name]
        assert [find_vae(place).name, find_clip(place).name] == ["wan_2.1_vae.safetensors", "clip_vision_h.safetensors"]
        assert find_text_encoder(place)[0].name == "umt5_xxl_fp16.safetensors"


@pytest.mark.parametrize("form", ["half", "scaled"])
def test_text_encoders_of_other_types(form: str, published: Path, tmp_path: Path, spiece: bytes) -> None:
    """float16, in which umT5 overflows, and scaled fp8 are computed in bfloat16."""
    comfy(tmp_path / "models", published, spiece)
    (tmp_path / "models/text_encoders/umt5_xxl_fp16.safetensors").unlink()
    save(text_tensors(spiece, half=True, scaled=form == "scaled"), tmp_path / "models/text_encoders/any.safetensors")
    expected = reference(published, tmp_path / "published", spiece).prompts.encode(PROMPTS[0])
    loaded = load_checkpoint(tmp_path / "models", "cpu").prompts.encode(PROMPTS[0])
    assert loaded.dtype == torch.bfloat16
    assert (loaded.float() - expected).norm() < 0.1 * expected.norm()


@pytest.mark.parametrize("name", ["encoders/no.safetensors", "text_encoders/any.pt", "text_encoders/no_pickle.ckpt"])
def test_pickled_files_count_where_nothing_else_is_there(
    name: str, published: Path, tmp_path: Path, spiece: bytes
) -> None:
    comfy(tmp_path, published, spiece)
    (tmp_path / "text_encoders/umt5_xxl_fp16.safetensors").unlink()
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / "text_encoders" / "spiece.model").write_bytes(spiece)
    tensors = text_state()
    if name.endswith(".pt"):
        torch.save(tensors, tmp_path / name)
        assert len(load_checkpoint(tmp_path, "cpu").prompts.encode(PROMPTS[0]))
        return
    save(tensors, tmp_path / name)
    if name.endswith(".ckpt"):  # safetensors under another name
        assert len(load_checkpoint(tmp_path, "cpu").prompts.encode(PROMPTS[0]))
        return
    with pytest.raises(CheckpointError, match="no such file"):
        load_checkpoint(tmp_path, "cpu")


def others(tmp_path: Path) -> None:
    """What lies beside such networks in ComfyUI's folders: other programmes' T5, CLIP, VAE and transformers."""
    t5 = {k: v for k, v in text_tensors(None).items() if "block.1.layer.0.SelfAttention.relative" not in k}
    save(t5, tmp_path / "text_encoders/t5xxl_fp16.safetensors")
    save(
        {"text_model.embeddings.token_embedding.weight": torch.zeros(4, 4)},
        tmp_path / "text_encoders/clip_l.safetensors",
    )
    image = {"decoder.conv_in.weight": torch.zeros(4, 16, 3, 3), "post_quant_conv.weight": torch.zeros(4, 4, 1, 1)}
    save(image, tmp_path / "vae/ae.safetensors")
    wider = vae_state() | {"conv2.weight": torch.zeros(48, 48, 1, 1, 1)}
    save(wider, tmp_path / "vae/wan2.2_vae.safetensors")
    save(
        {"vision_model.embeddings.class_embedding": torch.zeros(48)}, tmp_path / "clip_vision/clip_vision_l.safetensors"
    )
    save({"blocks.0.self_attn.q.weight": torch.zeros(4, 4)}, tmp_path / "diffusion_models/wan_t2v.safetensors")
    (tmp_path / "vae/broken.safetensors").write_bytes(b"x" * 100)
    (tmp_path / "vae/put_vae_here").write_text("")


@pytest.mark.parametrize("packed", [False, True])
def test_other_networks_beside_them_are_passed_over(
    packed: bool, published: Path, tmp_path: Path, spiece: bytes
) -> None:
    """Also where the transformer is a GGUF file, which stores five axes flat."""
    file = comfy(tmp_path, published, spiece)
    if packed:
        file.unlink()
        write_gguf(file.with_suffix(".gguf"), transformer_state(), "Q8_0")
    others(tmp_path)
    root, config = read_checkpoint_config(tmp_path)
    assert len(load_checkpoint(root, "cpu").prompts.encode(PROMPTS[0]))
    assert {file.name for file in checkpoint_files(root, config)} == {
        f"animate_14B.{'gguf' if packed else 'safetensors'}", "wan_2.1_vae.safetensors", "umt5_xxl_fp16.safetensors",
        "clip_vision_h.safetensors",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("file", "family"),
    [
        ("vae/wan_2.1_vae.safetensors", "VAE"), ("text_encoders/umt5_xxl_fp16.safetensors", "text encoder"),
        ("clip_vision/clip_vision_h.safetensors", "image encoder"), ("diffusion_models/animate_14B.safetensors", "transformer"),
    ],
)  # fmt: skip
def test_several_and_none(file: str, family: str, published: Path, tmp_path: Path, spiece: bytes) -> None:
    """Two that could be meant are both named, with what to do; none at all names every layout."""
    comfy(tmp_path, published, spiece)
    second = Path(file).with_name("second.safetensors")
    shutil.copy(tmp_path / file, tmp_path / second)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(tmp_path, "cpu")
    said = str(caught.value)
    assert f"several files hold a {family} ({', '.join(sorted((file, str(second))))})" in said
    assert "keep one of them" in said
    if family == "transformer":
        assert load_checkpoint(tmp_path / second, "cpu").image is not None
    (tmp_path / file).unlink()
    (tmp_path / second).unlink()
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(tmp_path, "cpu")
    said = str(caught.value)
    assert family in said
    assert all(layout in said for layout in ("published", "diffusers", "ComfyUI"))
    assert Path(file).parent.name in said


def refused_everywhere(folder: Path, rule: str) -> None:
    """By a job that begins, and by `weights verify` and its kin."""
    with pytest.raises(CheckpointError, match=rule):
        check_checkpoint(*read_checkpoint_config(folder))
    with pytest.raises(CheckpointError, match=rule):
        find_networks(folder)


@pytest.mark.parametrize("content", [b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", None])
@pytest.mark.parametrize("file", ["vae/wan_2.1_vae.safetensors", "diffusion_models/animate_14B.safetensors"])
def test_a_damaged_file_is_named(
    file: str, content: bytes | None, published: Path, tmp_path: Path, spiece: bytes
) -> None:
    """A pointer of Git LFS in the place of a file, or its first bytes: it is there, and cannot be read."""
    comfy(tmp_path, published, spiece)
    path = tmp_path / file
    path.write_bytes(path.read_bytes()[:900] if content is None else content)
    rule = rf"{path.name}: not a readable safetensors file.*Download it again"
    refused_everywhere(tmp_path, rule)


def test_another_wan_is_called_so(published: Path, tmp_path: Path, spiece: bytes) -> None:
    path = comfy(tmp_path, published, spiece)
    save({k: v for k, v in transformer_state().items() if not k.startswith(("pose_", "motion_", "face_"))}, path)
    rule = rf"{path.name}: it is a Wan transformer without the parts for pose and face"
    refused_everywhere(tmp_path, rule)


def test_guides_wait_for_no_prompt_where_a_network_is_missing(published: Path, tmp_path: Path, spiece: bytes) -> None:
    comfy(tmp_path / "models", published, spiece)
    (tmp_path / "models" / "vae" / "wan_2.1_vae.safetensors").unlink()
    guides, seen = write_guides(tmp_path / "guides", 5), list[object]()
    with Animator.from_checkpoint(tmp_path / "models", "cpu") as animator, pytest.raises(CheckpointError, match="VAE"):
        seen.extend(animator.generate(guides, tmp_path / "a.mp4", GenerateSettings(steps=2)))
    assert seen == []


def test_a_tokenizer_that_is_nowhere(published: Path, tmp_path: Path, spiece: bytes) -> None:
    comfy(tmp_path, published, None)
    with pytest.raises(CheckpointError, match=r"the tokenizer is missing.*spiece\.model beside the text encoder"):
        load_checkpoint(tmp_path, "cpu")
    (tmp_path / "text_encoders" / "spiece.model").write_bytes(spiece)
    assert len(load_checkpoint(tmp_path, "cpu").prompts.encode(PROMPTS[0]))


@pytest.mark.parametrize("damage", [b"no model", None])
def test_a_tokenizer_that_is_damaged(damage: bytes | None, published: Path, tmp_path: Path, spiece: bytes) -> None:
    comfy(tmp_path, published, spiece[:5000] if damage is None else damage)
    with pytest.raises(CheckpointError, match="no readable tokenizer"):
        load_checkpoint(tmp_path, "cpu").prompts.encode("a")


def test_a_tokenizer_of_another_encoder(published: Path, tmp_path: Path, spiece: bytes) -> None:
    comfy(tmp_path, published, spiece)
    small = umt5_to_transformers(detgen.state_dict(t5_shapes(vocab=8, dim=16, inner=16, ffn=24, heads=2, layers=2)))
    small = {k: v for k, v in small.items() if "embed_tokens" not in k}
    small["spiece_model"] = torch.frombuffer(bytearray(spiece), dtype=torch.uint8)
    save(small, tmp_path / "text_encoders/umt5_xxl_fp16.safetensors")
    with pytest.raises(CheckpointError, match="the text encoder knows 8"):
        load_checkpoint(tmp_path, "cpu").prompts.encode(PROMPTS[0])


def test_tokens_are_those_of_transformers(tmp_path: Path, spiece: bytes) -> None:
    (tmp_path / "spiece.model").write_bytes(spiece)
    theirs, own = T5Tokenizer.from_pretrained(tmp_path, extra_ids=0), SentencePiece(spiece)
    for text in (*PROMPTS, "", " Ｆｕｌｌ width ﬁ"):
        for length in (512, 7):
            expected = theirs(text, truncation=True, max_length=length)["input_ids"]
            assert own(text, truncation=True, max_length=length)["input_ids"] == expected


@pytest.mark.slow
def test_conversion_from_comfyuis_folders(published: Path, tmp_path: Path, spiece: bytes) -> None:
    comfy(tmp_path / "models", published, spiece)
    expected = reference(published, tmp_path / "published", spiece).prompts.encode(PROMPTS[0])
    for layout in ("published", "diffusers"):
        list(convert(tmp_path / "models", tmp_path / layout / "out", layout))
        assert torch.equal(load_checkpoint(tmp_path / layout / "out", "cpu").prompts.encode(PROMPTS[0]), expected)


def test_what_belongs_to_a_file_lies_beside_it(own: Path, copied: Callable[[Path], Path], tmp_path: Path) -> None:
    """The transformer's file of a small checkpoint: its config, prompts and relighting LoRA are those of its folder."""
    folder = copied(own)
    (folder / "relighting_lora.safetensors").write_bytes(b"")
    file = folder / "diffusion_pytorch_model.safetensors"
    root, config = read_checkpoint_config(file)
    assert (root, config) == (file, read_checkpoint_config(folder)[1])
    assert find_relighting(root) == folder / "relighting_lora.safetensors"
    assert load_checkpoint(root, "cpu").prompts.encode("any").shape == (3, 8)


def test_one_shard_stands_for_all(published: Path) -> None:
    for name in ("*-00002-of-00002.safetensors", "*.index.json"):
        assert load_checkpoint(next(published.glob(name)), "cpu").transformer.params == PUBLISHED


def test_a_job_with_a_file_as_its_checkpoint(own: Path, tmp_path: Path) -> None:
    """The same frames as with its folder, and a record that names the same files."""
    guides, records = write_guides(tmp_path / "guides", 5), []
    for i, place in enumerate((own, own / f"{TRANSFORMER}.safetensors")):
        with Animator.from_checkpoint(place, "cpu") as animator:
            list(animator.generate(guides, tmp_path / f"{i}.mp4", GenerateSettings(seed=1, steps=1)))
        records.append(json.loads(record_path(tmp_path / f"{i}.mp4").read_text()))
    folder, file = (record["checkpoint"]["hashes"] for record in records)
    assert folder == file
    assert folder.keys() == {f"{TRANSFORMER}.safetensors", "vae.safetensors", "prompts.safetensors", "wanimate.json"}
    assert records[0]["result"]["sha256"] == records[1]["result"]["sha256"]


def test_a_quantised_transformer_of_any_name(published: Path, tmp_path: Path, spiece: bytes) -> None:
    file = comfy(tmp_path, published, spiece)
    tensors = read_tensors(file)
    for key in [k for k in tensors if ".ffn.0.weight" in k]:
        tensors[key], tensors[f"{key}_scale"] = quantize_rows(tensors[key])
    save(tensors, file)
    (tmp_path / "vae/wan_2.1_vae.safetensors").unlink()
    torch.save(vae_state(), tmp_path / VAE)
    assert load_checkpoint(tmp_path, "cpu").image is not None
