"""`wanimate generate --lora` with files that cannot be used: exit 2, one sentence of what, why and what to do, nothing left."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "weights"))
from tiny_checkpoints import OWN, own_checkpoint, write_guides

from wanimate.cli.main import app

WIDTH = OWN.dim


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options of a job that works, but for its LoRA."""
    folder = tmp_path_factory.mktemp("job")
    checkpoint, guides = own_checkpoint(folder / "tiny"), write_guides(folder / "guides", 5)
    return ["generate", str(guides), "--checkpoint", str(checkpoint), "--steps", "1", "--seed", "1"]


def pair(down: tuple[int, ...], up: tuple[int, ...], module: str = "blocks.0.self_attn.q") -> dict[str, Tensor]:
    return {f"{module}.lora_A.weight": torch.ones(down) / 100, f"{module}.lora_B.weight": torch.ones(up) / 100}


def refused(made: list[str], folder: Path, text: str, *parts: str) -> None:
    before = sorted(os.listdir(folder))
    out = str(folder / "out.mp4")
    done = CliRunner().invoke(app, [*made, "--out", out, "--lora", text], env={"COLUMNS": "500", "NO_COLOR": "1"})
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("error ")
    for part in parts:
        assert part in line
    assert sorted(os.listdir(folder)) == before


@pytest.mark.parametrize(
    ("tensors", "parts"),
    [
        (pair((4, 5120), (5120, 4)), ("lora_A.weight has the shape [4, 5120]", f"needs [4, {WIDTH}]", "architecture")),
        (pair((4, WIDTH), (WIDTH, 8)), ("lora_B.weight has the shape", f"[{WIDTH}, 8]", f"needs [{WIDTH}, 4]")),
        (pair((4, WIDTH), (WIDTH, 4), "blocks.39.ffn.0"), ("blocks.39.ffn.0", "no place", "--lora-partial")),
        (pair((4, WIDTH), (WIDTH, 4), "down_blocks.0.attn.to_q"), ("down_blocks.0.attn.to_q", "no place")),
        ({k: v * torch.nan for k, v in pair((4, WIDTH), (WIDTH, 4)).items()}, ("is not finite", "another copy")),
        ({}, ("holds no LoRA (it is empty)",)),
        (pair((0, WIDTH), (WIDTH, 0)), ("is empty",)),
    ],
    ids=["width", "rank", "depth", "other network", "nan", "empty", "rank 0"],
)
def test_tensors(made: list[str], tmp_path: Path, tensors: dict[str, Tensor], parts: tuple[str, ...]) -> None:
    file = tmp_path / "bad.safetensors"
    save_file(tensors, file)
    refused(made, tmp_path, str(file), f"lora = {file}", *parts)


def test_pickled_code_is_not_run(made: list[str], tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    torch.save({"state_dict": {"a": Trap()}}, tmp_path / "code.ckpt")
    refused(made, tmp_path, str(tmp_path / "code.ckpt"), "code.ckpt", "run code")


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        (":strong", ("'strong' is not a number", "FILE:0.8")),
        (":nan", ("finite",)),
        (":", ("'' is not a number",)),
        (":1@50-20%", ("ends before it starts",)),
        ("@150-200%", ("--lora",)),
    ],
)
def test_strengths(made: list[str], tmp_path: Path, more: str, parts: tuple[str, ...]) -> None:
    file = tmp_path / "good.safetensors"
    save_file(pair((4, WIDTH), (WIDTH, 4)), file)
    refused(made, tmp_path, f"{file}{more}", "--lora", *parts)


def test_a_good_one_passes(made: list[str], tmp_path: Path) -> None:
    file = tmp_path / "good.safetensors"
    save_file(pair((4, WIDTH), (WIDTH, 4)), file)
    words = [*made, "--out", str(tmp_path / "out.mp4"), "--lora", f"{file}:0.5", "--lora-fuse"]
    assert CliRunner().invoke(app, words).exit_code == 0
    assert (tmp_path / "out.mp4").is_file()
