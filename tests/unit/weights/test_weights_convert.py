"""Inspect, verify and convert: what is there is told, what is wrong is listed, and no bit changes unless it is asked for."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLWan, WanAnimateTransformer3DModel
from published_names import transformer_to_diffusers, vae_to_diffusers
from safetensors.torch import load_file, save_file
from test_weights_layouts import full_size, write_gguf
from test_weights_stored import flow
from tiny_checkpoints import PUBLISHED, own_checkpoint, transformer_tensors
from torch import Tensor
from typer.testing import CliRunner

from wanimate.cli.main import app
from wanimate.errors import InputError, OutputError
from wanimate.media.lock import NameLock
from wanimate.media.names import temporary_name
from wanimate.model.fp8 import FP8
from wanimate.weights.checkpoint import load_checkpoint
from wanimate.weights.formats import open_tensors, read_tensors
from wanimate.weights.locate import CLIP, T5, TRANSFORMER, VAE, open_transformer
from wanimate.weights.quantize import QuantizedLinear, is_quantizable
from wanimate.weights.stored import value
from wanimate.weights.tools import convert as converting
from wanimate.weights.tools.convert import convert, write_safetensors
from wanimate.weights.tools.inspect import find_networks, verify
from wanimate.weights.tools.to_diffusers import diffusers_transformer, diffusers_vae

Copied = Callable[[Path], Path]
SMALL = 60_000
"""Bytes of a shard, so that there are several."""


def run(*words: object) -> Any:
    return CliRunner().invoke(app, ["weights", *map(str, words)])


def bits(folder: Path) -> dict[str, tuple[torch.dtype, bytes]]:
    tensors = {k: value(v) for k, v in open_transformer(folder).items()}
    for file in (VAE, T5, CLIP):
        tensors |= (
            {f"{file}/{k}": v for k, v in read_tensors(folder / file).items()} if (folder / file).is_file() else {}
        )
    return {k: (v.dtype, v.contiguous().flatten().view(torch.uint8).numpy().tobytes()) for k, v in tensors.items()}


def test_names_of_diffusers_at_full_size() -> None:
    for name, ours, theirs in (
        ("transformer", diffusers_transformer, transformer_to_diffusers), ("vae", diffusers_vae, vae_to_diffusers),
    ):  # fmt: skip
        published = full_size(name)
        wanted, got = theirs(published), ours(published)
        assert {k: v.shape for k, v in got.items()} == {k: v.shape for k, v in wanted.items()}


def test_a_round_trip_changes_no_bit(published: Path, tmp_path: Path) -> None:
    """All four networks, in several shards, to diffusers' layout and back."""
    there, back = tmp_path / "diffusers", tmp_path / "back"
    assert len(list(convert(published, there, "diffusers", shard_bytes=SMALL))) > 6
    list(convert(there, back, shard_bytes=SMALL))
    before, after = bits(published), bits(back)
    unused = {k for k in before if k.startswith(f"{CLIP}/textual") or k == f"{CLIP}/visual.head"}
    assert len(unused) == 2
    assert {k: v for k, v in before.items() if k not in unused} == after
    assert not [f for f in tmp_path.iterdir() if f.name.startswith(".")]
    wanted, got = (load_checkpoint(f, "cpu") for f in (published, there))
    torch.testing.assert_close(
        flow(got.transformer), flow(wanted.transformer)
    )  # files of another alignment, other kernels
    torch.testing.assert_close(got.prompts.encode("a person"), wanted.prompts.encode("a person"))


def test_diffusers_opens_what_is_written_for_it(published: Path, tmp_path: Path) -> None:
    params = replace(PUBLISHED, motion=replace(PUBLISHED.motion, layers=5))  # its class has no other depth
    state = transformer_to_diffusers(tensors := transformer_tensors(params))
    write_safetensors(tmp_path / "any.safetensors", tensors)
    list(convert(tmp_path / "any.safetensors", tmp_path / "file", "diffusers", shard_bytes=10 * SMALL))
    theirs = WanAnimateTransformer3DModel.from_pretrained(tmp_path / "file" / "transformer")
    found = theirs.state_dict()
    assert all(torch.equal(found[k], v) for k, v in state.items())
    list(convert(published, tmp_path / "out", "diffusers"))
    vae = AutoencoderKLWan.from_pretrained(tmp_path / "out" / "vae")
    wanted = vae_to_diffusers(read_tensors(published / VAE))
    assert all(torch.equal(vae.state_dict()[k], v) for k, v in wanted.items())


def test_float8(published: Path, tmp_path: Path) -> None:
    """A converted folder computes what `--weights-dtype fp8` computes; its layout can change without another bit."""
    list(convert(published, tmp_path / "fp8", dtype="fp8", shard_bytes=SMALL))
    stored = open_transformer(tmp_path / "fp8")
    kinds = {k: v.quantized.dtype for k, v in stored.items() if hasattr(v, "quantized")}
    assert set(kinds) == {k for k in stored if is_quantizable(k)}
    assert set(kinds.values()) == {FP8}
    plain = {v.dtype for k, v in stored.items() if k not in kinds}
    assert plain == {torch.bfloat16}
    kept = load_checkpoint(tmp_path / "fp8", "cpu", compress="stored").transformer
    wanted = load_checkpoint(published, "cpu", compress="all").transformer
    for name, layer in wanted.named_modules():
        if isinstance(layer, QuantizedLinear):
            assert torch.equal(kept.get_submodule(name).weight.float(), layer.weight.float())
            assert torch.equal(kept.get_submodule(name).weight_scale, layer.weight_scale)
    list(convert(tmp_path / "fp8", tmp_path / "theirs", "diffusers", shard_bytes=SMALL))
    list(convert(tmp_path / "theirs", tmp_path / "back", shard_bytes=SMALL))
    again = load_checkpoint(tmp_path / "back", "cpu", compress="stored").transformer
    assert all(torch.equal(again.state_dict()[k].float(), v.float()) for k, v in kept.state_dict().items())


@pytest.mark.parametrize(
    ("name", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16), ("fp32", torch.float32)]
)
def test_types(name: Any, dtype: torch.dtype, published: Path, tmp_path: Path) -> None:
    list(convert(published, tmp_path / "out", dtype=name))
    state = transformer_tensors(PUBLISHED)
    found = load_file(tmp_path / "out" / f"{TRANSFORMER}.safetensors")
    assert all(found[k].dtype == dtype and torch.equal(found[k], v.to(dtype)) for k, v in state.items())
    assert read_tensors(tmp_path / "out" / VAE)["conv1.weight"].dtype == torch.float32


def test_the_embedded_layout_keeps_its_card_and_levels(tmp_path: Path) -> None:
    source = own_checkpoint(tmp_path / "own", quantized=True)
    list(convert(source, tmp_path / "out"))
    wanted, got = (load_checkpoint(f, "cpu", compress="stored") for f in (source, tmp_path / "out"))
    assert got.config == wanted.config
    torch.testing.assert_close(flow(got.transformer), flow(wanted.transformer))
    assert torch.equal(got.prompts.encode(""), wanted.prompts.encode(""))


def test_a_stopped_conversion_goes_on(published: Path, tmp_path: Path) -> None:
    whole, out, part = tmp_path / "whole", tmp_path / "out", tmp_path / ".out.part"
    total = len(list(convert(published, whole, shard_bytes=SMALL)))
    running = convert(published, out, shard_bytes=SMALL)
    names = [next(running)[2] for _ in range(3)]
    running.close()
    assert not out.exists()
    times = [(part / name).stat().st_mtime_ns for name in names]
    written: list[str] = []
    write = converting._write
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(converting, "_write", lambda path, shard: (written.append(shard.name), write(path, shard)))
        steps = list(convert(published, out, shard_bytes=SMALL))
    assert (len(steps), len(written)) == (total, total - 3)
    assert times == [(out / name).stat().st_mtime_ns for name in names]
    assert bits(out) == bits(whole)
    assert sorted(f.name for f in out.rglob("*")) == sorted(f.name for f in whole.rglob("*"))


def test_other_arguments_begin_anew(published: Path, tmp_path: Path) -> None:
    running = convert(published, tmp_path / "out", shard_bytes=SMALL)
    next(running)
    running.close()
    list(convert(published, tmp_path / "out", dtype="bf16", shard_bytes=SMALL))
    assert all(v.dtype == torch.bfloat16 for v in open_transformer(tmp_path / "out").values())


KILLED = """
import sys, time
from pathlib import Path
from wanimate.weights.tools import convert as c
write = c._write
def slow(path, shard):
    write(path, shard)
    print(shard.name, flush=True)
    time.sleep(0.3)
c._write = slow
list(c.convert(Path(sys.argv[1]), Path(sys.argv[2]), shard_bytes=60000))
"""


@pytest.mark.slow
def test_a_killed_conversion_goes_on(published: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, published, tmp_path / "out"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.1)
    process.kill()
    process.wait()
    assert not (tmp_path / "out").exists()
    assert run("convert", published, tmp_path / "out", "--shard-size", SMALL / 1e9).exit_code == 0
    list(convert(published, tmp_path / "whole", shard_bytes=SMALL))
    assert bits(tmp_path / "out") == bits(tmp_path / "whole")


@pytest.mark.parametrize("after", [False, True], ids=["before it has its name", "after it has its name"])
def test_a_conversion_that_is_killed_at_its_end_goes_on(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    out, rename = tmp_path / "out", os.rename

    def killed(*paths: Path) -> None:
        if after:
            rename(*paths)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(converting.os, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            list(convert(published, out, shard_bytes=SMALL))
    assert out.exists() == after
    if after:
        shutil.rmtree(out)
    list(convert(published, out, shard_bytes=SMALL))
    list(convert(published, tmp_path / "whole", shard_bytes=SMALL))
    assert bits(out) == bits(tmp_path / "whole")
    assert sorted(os.listdir(tmp_path)) == ["out", "whole"]


def test_what_cannot_be_converted(published: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(InputError, match="something of this name already"):
        list(convert(published, tmp_path / "there"))
    with pytest.raises(InputError, match="no such file or folder"):
        list(convert(tmp_path / "nowhere", tmp_path / "out"))
    save_file({"blocks.0.ffn.0.lora_A.weight": torch.zeros(2, 2)}, tmp_path / "lora.safetensors")
    with pytest.raises(InputError, match=r"lora\.safetensors is a LoRA"):
        list(convert(tmp_path / "lora.safetensors", tmp_path / "out"))
    write_gguf(tmp_path / "x.gguf", transformer_tensors(PUBLISHED), "Q8_0")
    with pytest.raises(InputError, match="no form for"):
        list(convert(tmp_path / "x.gguf", tmp_path / "out"))
    list(convert(tmp_path / "x.gguf", tmp_path / "bf16", dtype="bf16"))
    assert {v.dtype for v in open_transformer(tmp_path / "bf16").values()} == {torch.bfloat16}
    assert run("convert", published, tmp_path / "out", "--layout", "own").exit_code == 2
    assert run("convert", published, tmp_path / "out", "--dtype", "int4").exit_code == 2


def scaled_file(path: Path, prefix: str, ending: str, rows: bool) -> Path:
    tensors: dict[str, Tensor] = {}
    for key, tensor in transformer_tensors(PUBLISHED).items():
        if is_quantizable(key):
            scale = tensor.abs().amax(1, keepdim=True) / 448 if rows else tensor.abs().max() / 448
            tensors[prefix + key] = (tensor / scale).to(FP8)
            tensors[prefix + key.removesuffix("weight") + ending] = scale
        else:
            tensors[prefix + key] = tensor.half().contiguous()
    tensors[f"{prefix}scaled_fp8"] = torch.zeros(2, dtype=FP8)
    save_file(tensors, path)
    return path


def test_every_format_is_told_by_its_content(published: Path, tmp_path: Path) -> None:
    list(convert(published, tmp_path / "theirs", "diffusers"))
    write_gguf(tmp_path / "x.gguf", transformer_tensors(PUBLISHED), "Q8_0")
    save_file({"a.lora_down.weight": torch.zeros(2, 2)}, tmp_path / "l.safetensors")
    save_file(
        {"patch_embedding.weight": torch.zeros(1), "blocks.0.self_attn.q.weight": torch.zeros(1)},
        tmp_path / "w.safetensors",
    )
    save_file({"a": torch.zeros(1)}, tmp_path / "u.safetensors")
    one = scaled_file(tmp_path / "any name.safetensors", "model.diffusion_model.", "scale_weight", rows=False)
    row = scaled_file(tmp_path / "row.safetensors", "", "weight_scale", rows=True)
    four = ["transformer", "VAE", "image encoder", "text encoder"]
    for folder, layout in ((published, "published"), (tmp_path / "theirs", "diffusers")):
        assert [(n.family, n.layout) for n in find_networks(folder)] == [(family, layout) for family in four]
    for file, family, layout, kinds in (
        (tmp_path / "x.gguf", "transformer", "published", {"Q8_0", "F32"}),
        (
            one,
            "transformer",
            "published, 'model.diffusion_model.' before its keys",
            {"float8_e4m3fn, one scale", "float16"},
        ),
        (row, "transformer", "published", {"float8_e4m3fn, a scale a row", "float16"}),
        (tmp_path / "l.safetensors", "LoRA", "see its dialect in a job's record", {"float32"}),
        (tmp_path / "w.safetensors", "Wan transformer without Animate's parts", "published", {"float32"}),
        (tmp_path / "u.safetensors", "unknown", "unknown", {"float32"}),
        (published / CLIP, "image encoder", "published", {"float32"}),
    ):
        (found,) = find_networks(file)
        assert (found.family, found.layout, set(found.types)) == (family, layout, kinds)
        assert found.bytes == file.stat().st_size
    assert find_networks(published)[0].parameters == sum(t.numel() for t in transformer_tensors(PUBLISHED).values())
    shown = run("inspect", published)
    assert shown.exit_code == 0
    assert all(family in shown.stdout for family in four)
    told = json.loads(run("inspect", one, "--json").stdout)
    assert (told["event"], told["networks"][0]["family"]) == ("result", "transformer")


def test_a_whole_checkpoint_is_verified(published: Path, own: Path, tmp_path: Path) -> None:
    file = scaled_file(tmp_path / "fp8.safetensors", "model.", "weight_scale", rows=True)
    for path in (published, own, file):
        assert [verify(n) for n in find_networks(path)] == [{}] * len(find_networks(path))
    done = run("verify", published)
    assert (done.exit_code, done.stdout.count(": whole")) == (0, 4)


def test_everything_that_is_wrong_is_listed(published: Path, copied: Copied) -> None:
    folder = copied(published)
    file = folder / f"{TRANSFORMER}-00001-of-00002.safetensors"
    tensors = load_file(file)
    missing = sorted(tensors)[:7]
    for key in missing:
        del tensors[key]
    tensors["blocks.0.wings"] = torch.zeros(1)
    save_file(tensors, file)
    vae = {k: v.clone() for k, v in read_tensors(folder / VAE).items()}
    vae["conv2.bias"] = torch.full_like(vae["conv2.bias"], float("nan"))
    torch.save(vae, folder / VAE)
    shown = run("verify", folder)
    assert shown.exit_code == 2
    assert all(key in shown.stdout for key in [*missing, "blocks.0.wings", "7 missing", "1 unexpected", "1 not finite"])
    *lines, last = (json.loads(line) for line in run("verify", folder, "--json").stdout.splitlines())
    report = {one["network"]: one["problems"] for one in lines}
    assert (last["event"], last["parameter"], last["exit_code"]) == ("error", "PATH", 2)
    assert "2 of 4 networks are not whole" in last["message"]
    assert report["transformer"] == {"missing": report["transformer"]["missing"], "unexpected": ["blocks.0.wings"]}
    assert sorted(report["transformer"]["missing"]) == missing
    assert report["VAE"] == {"not finite": ["conv2.bias"]}
    assert report["text encoder"] == report["image encoder"] == {}
    assert run("verify", folder / "nowhere").exit_code == 2
    save_file({"a": torch.zeros(1)}, folder / "u.safetensors")
    assert run("verify", folder / "u.safetensors").exit_code == 2


def test_files_written_a_tensor_at_a_time_are_those_of_safetensors(tmp_path: Path) -> None:
    tensors = {
        "a": torch.randn(3, 5).half(),
        "b": torch.zeros(0, 2),
        "c": torch.tensor(7),
        "d": torch.randn(4, 4).to(FP8).T,
    }
    write_safetensors(tmp_path / "x.safetensors", tensors)
    found = load_file(tmp_path / "x.safetensors")
    assert all(found[k].dtype == v.dtype and torch.equal(found[k].double(), v.double()) for k, v in tensors.items())
    assert [f for f in os.listdir(tmp_path) if f.startswith(".")] == []
    assert {k: v.shape for k, v in open_tensors(tmp_path / "x.safetensors").items()} == {
        k: v.shape for k, v in tensors.items()
    }


def stopped(source: Path, out: Path, **more: Any) -> Path:
    """A conversion that was killed while it wrote its third file; returns the folder it leaves."""
    running = convert(source, out, **more)
    next(running), next(running)
    running.close()
    part = out.with_name(f".{out.name}.part")
    for name in ("diffusion_pytorch_model-00003-of-00009.safetensors", T5):
        temporary_name(part / name).write_bytes(b"half a shard")
    return part


@pytest.mark.parametrize(
    "again",
    [{}, {"shard_bytes": 5 * SMALL}, {"dtype": "bf16"}, {"layout": "diffusers"}],
    ids=["same", "size", "type", "layout"],
)
def test_a_stopped_and_repeated_conversion_has_no_stray_file(
    published: Path, tmp_path: Path, again: dict[str, Any]
) -> None:
    stopped(published, tmp_path / "out", shard_bytes=SMALL)
    arguments: dict[str, Any] = {"shard_bytes": SMALL} | again
    list(convert(published, tmp_path / "out", **arguments))
    list(convert(published, tmp_path / "whole", **arguments))
    files = [
        sorted(str(f.relative_to(root)) for f in root.rglob("*") if f.is_file())
        for root in (tmp_path / "out", tmp_path / "whole")
    ]
    assert files[0] == files[1]
    assert sorted(os.listdir(tmp_path)) == ["out", "whole"]


@pytest.mark.parametrize("kind", ["folder", "link", "file", "guest"])
def test_what_no_conversion_made_is_not_removed(published: Path, tmp_path: Path, kind: str) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    part, precious = tmp_path / ".out.part", tmp_path / "mine" / "thesis.txt"
    if kind == "guest":
        precious = stopped(published, tmp_path / "out", shard_bytes=SMALL) / "thesis.txt"
        precious.write_text("precious")
    elif kind == "folder":
        part.mkdir()
        precious = part / "thesis.txt"
        precious.write_text("precious")
    elif kind == "link":
        part.symlink_to(tmp_path / "mine")
    else:
        part.write_text("precious")
        precious = part
    with pytest.raises(OutputError, match="no part of a conversion"):
        list(convert(published, tmp_path / "out", dtype="bf16", shard_bytes=SMALL))
    assert precious.read_text() == "precious"
    assert not (tmp_path / "out").exists()


def test_places_of_a_conversion_are_checked_first(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(converting, "_write", lambda *_: pytest.fail("weights were written"))
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for out, said in (
        (tmp_path / ("n" * 250), "the name is too long"),
        (published / "inside", "which is read"),
        (published, "an input of the job"),
        (Path("/"), "names no folder"),
    ):
        with pytest.raises(OutputError, match=said):
            list(convert(published, out))
    with pytest.raises(InputError, match="something of this name"):
        list(convert(published, tmp_path / "dangling"))
    with NameLock(tmp_path / "out"), pytest.raises(OutputError, match="another job"):
        list(convert(published, tmp_path / "out"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(OutputError, match="the files need"):
        list(convert(published, tmp_path / "out"))


def test_a_conversion_under_names_that_are_not_utf8(published: Path, tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"tiny-\xff")
    list(convert(published, odd))
    list(convert(odd, tmp_path / "again"))
    assert bits(tmp_path / "again") == bits(published)
