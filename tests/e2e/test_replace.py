"""The whole road of replacement on a cut of a rendered clip, with the real detectors and tiny random networks."""

from __future__ import annotations

import json
import sys
from fractions import Fraction
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "weights"))
from tiny_checkpoints import OWN, own_checkpoint

import wanimate
from wanimate.cli.main import app
from wanimate.media.probe import probe
from wanimate.media.resize import cover
from wanimate.media.video import LosslessWriter, VideoFrames, iter_indices
from wanimate.preprocess.guides import load_guides
from wanimate.types import Frames

SHIPPED = Path(str(files("wanimate.weights") / "embedded" / "demo"))
IMAGE, VIDEO = SHIPPED / "character-2.png", Path(__file__).parents[1] / "data" / "performer-wide.mp4"
FEW = ["--fps", "3", "--area", "128x128", "--face-size", "64", "--steps", "1", "--clip-length", "5", "--overlap", "1"]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny one with a relighting LoRA that changes one matrix a lot."""
    folder = own_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")
    name = "blocks.0.self_attn.q"
    pair = {f"{name}.lora_A.weight": torch.ones(2, OWN.dim), f"{name}.lora_B.weight": torch.ones(OWN.dim, 2)}
    save_file(pair, folder / "relighting_lora.safetensors")
    return folder


def command(*words: object) -> Result:
    return CliRunner().invoke(app, [str(w) for w in words], env={"COLUMNS": "500", "NO_COLOR": "1"})


@pytest.fixture(scope="module")
def done(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with out.mkv and the guides it was made from."""
    folder = tmp_path_factory.mktemp("job")
    job = ["--image", IMAGE, "--video", VIDEO, "--out", folder / "out.mkv", "--checkpoint", checkpoint]
    result = command("replace", *job, "--codec", "ffv1", "--seed", 1, "--keep-guides", folder / "guides", *FEW)
    assert result.exit_code == 0, result.output
    return folder


def scene_of(folder: Path) -> Frames:
    """The clip's frames at the size of the result."""
    guides = load_guides(folder / "guides")
    frames = iter_indices(probe(VIDEO), guides.manifest["source"]["frames"])
    return np.stack([cover(frame, *guides.size) for frame in frames])


def every(path: Path) -> Frames:
    video = VideoFrames(path)
    return video.take(range(video.count))


def beyond(mask: Frames, feather: int) -> np.ndarray:
    """Pixels [n, H, W] farther than the seam from the hole."""
    square = np.ones((2 * feather + 1,) * 2, np.uint8)
    return np.stack([cv2.dilate(m[..., 0], square) == 0 for m in mask])


def test_the_scene_stays_bit_for_bit(done: Path) -> None:
    out, scene = every(done / "out.mkv"), scene_of(done)
    mask = load_guides(done / "guides").mask
    assert mask is not None
    far = beyond(mask.take(range(len(out))), 8)
    assert out.shape == (10, 128, 128, 3)
    assert far.mean() > 0.15
    np.testing.assert_array_equal(out[far], scene[far])
    inside = mask.take(range(len(out)))[..., 0] > 0
    assert np.abs(out[inside].astype(int) - scene[inside]).mean() > 10  # random networks draw something else


def test_the_hole_holds_the_performer_and_little_else(done: Path) -> None:
    """The performer stands before a plain bluish wall: skin, shirt and trousers tell the true outline."""
    mask = load_guides(done / "guides").mask
    assert mask is not None
    scene, hole = scene_of(done).astype(int), mask.take(range(10))[..., 0] > 0
    wall = np.median(scene[:, :, :4], axis=(0, 1, 2))
    person = np.abs(scene - wall).max(axis=-1) > 60
    assert 0.1 < person.mean() < 0.5
    assert hole[person].mean() > 0.99
    assert hole.mean() < 0.7
    grown = np.stack([cv2.dilate(p.astype(np.uint8), np.ones((27, 27), np.uint8)) for p in person])
    assert (hole & (grown == 0)).sum() < 0.03 * hole.sum()


def test_the_record(done: Path) -> None:
    record = json.loads((done / "out.json").read_text())
    assert record["output"]["composite"] is True
    assert record["size"] == [128, 128]
    manifest = json.loads((done / "guides" / "manifest.json").read_text())
    assert (manifest["mode"], manifest["mask"]["backend"]) == ("replacement", "offline")


@pytest.mark.slow
def test_the_character_is_relit_unless_told_otherwise(done: Path, checkpoint: Path, tmp_path: Path) -> None:
    (used,) = json.loads((done / "out.json").read_text())["lora"]
    assert used["path"] == str(checkpoint / "relighting_lora.safetensors")
    assert used["strength"] == 1
    job = ["--checkpoint", checkpoint, "--codec", "ffv1", "--seed", 1, "--steps", 1, "--clip-length", 5, "--overlap", 1]
    made = {}
    for name, more in {"plain": ["--no-relight"], "none": ["--relight-strength", 0], "again": ["--relight"]}.items():
        ended = command("generate", done / "guides", "--out", tmp_path / f"{name}.mkv", *job, *more)
        assert ended.exit_code == 0, ended.output
        made[name] = every(tmp_path / f"{name}.mkv")
    assert json.loads((tmp_path / "plain.json").read_text())["lora"] == []
    np.testing.assert_array_equal(made["none"], made["plain"])
    np.testing.assert_array_equal(made["again"], every(done / "out.mkv"))
    assert (made["again"] != made["plain"]).any()


@pytest.mark.slow
def test_relighting_in_animation_is_explained(checkpoint: Path, tmp_path: Path) -> None:
    job = ["--image", IMAGE, "--video", VIDEO, "--checkpoint", checkpoint, "--out", tmp_path / "out.mp4", "--seed", 1]
    ended = command("animate", *job, "--relight", *FEW)
    assert ended.exit_code == 0, ended.output
    assert "relighting has no effect in animation: the character stays in its own picture's light" in ended.stderr
    assert json.loads((tmp_path / "out.json").read_text())["lora"] == []


def test_without_compositing_the_network_draws_everything(done: Path, checkpoint: Path, tmp_path: Path) -> None:
    job = ["--checkpoint", checkpoint, "--codec", "ffv1", "--seed", 1, "--steps", 1, "--clip-length", 5, "--overlap", 1]
    without = command("generate", done / "guides", "--out", tmp_path / "b.mkv", "--no-composite", *job)
    assert without.exit_code == 0, without.output
    a, b = every(done / "out.mkv"), every(tmp_path / "b.mkv")
    mask = load_guides(done / "guides").mask
    assert mask is not None
    inside, far = mask.take(range(10))[..., 0] > 0, beyond(mask.take(range(10)), 8)
    np.testing.assert_array_equal(a[inside], b[inside])
    assert (a[far] != b[far]).any()


@pytest.mark.slow
def test_while_the_performer_is_away_the_frames_are_the_clips(checkpoint: Path, tmp_path: Path) -> None:
    """Two people; the chosen one leaves for three frames while the other stays."""
    video = tmp_path / "pair.mkv"
    frames = [np.hstack([f, f[:, ::-1]]) for f in iter_indices(probe(VIDEO), range(0, 50, 5))]
    for frame in frames[4:7]:
        frame[:, :384] = frame[0, 0]
    with LosslessWriter(video, Fraction(5), 768, 384) as writer:
        for frame in frames:
            writer.write(frame)
    job = [
        "--image",
        IMAGE,
        "--video",
        video,
        "--out",
        tmp_path / "out.mkv",
        "--checkpoint",
        checkpoint,
        "--person",
        "left@0.4",
    ]
    few = [
        "--area",
        "128x64",
        "--face-size",
        "32",
        "--steps",
        "1",
        "--clip-length",
        "5",
        "--overlap",
        "1",
        "--seed",
        "1",
    ]
    done = command("replace", *job, "--codec", "ffv1", *few)
    assert done.exit_code == 0, done.output
    assert "no person was found in 3 of 10 frames (4-6); these keep the clip's own picture" in done.stderr
    out = every(tmp_path / "out.mkv")
    small = np.stack([cover(frame, *out.shape[2:0:-1]) for frame in frames])
    untouched = [bool((a == b).all()) for a, b in zip(out, small, strict=True)]
    assert untouched == [False] * 4 + [True] * 3 + [False] * 3
    np.testing.assert_array_equal(out[:, :, 80:], small[:, :, 80:])  # the other one is never touched


@pytest.mark.slow
def test_from_python_with_the_clips_sound(checkpoint: Path, tmp_path: Path) -> None:
    result = wanimate.replace(
        IMAGE, VIDEO, tmp_path / "out.mp4", checkpoint=checkpoint, fps=2, area=64 * 64, face_size=32, steps=1,
        clip_length=5, overlap=1, seed=1,
    )  # fmt: skip
    assert (result.size, result.count) == ((64, 64), probe(tmp_path / "out.mp4", None).count)
    assert probe(VIDEO).audio
    assert probe(tmp_path / "out.mp4", None).audio
