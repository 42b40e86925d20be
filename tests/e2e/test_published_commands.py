"""Published command lines, end to end on a cut of the packaged clip with the real detectors and tiny random networks."""

from __future__ import annotations

import json
import runpy
import sys
from fractions import Fraction
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "weights"))
from tiny_checkpoints import OWN, own_checkpoint

from wanimate.cli.main import app
from wanimate.media.probe import probe
from wanimate.media.video import VideoFrames
from wanimate.preprocess.guides import load_guides

ROOT = Path(__file__).parents[2]
SHIPPED = Path(str(files("wanimate.weights") / "embedded" / "demo"))
IMAGE, VIDEO = SHIPPED / "character-2.png", SHIPPED / "performer.mp4"
PREPROCESS = ["--video_path", VIDEO, "--refer_path", IMAGE, "--resolution_area", 64, 64, "--fps", 2]
REPLACE = ["--replace_flag", "--iterations", 3, "--k", 7, "--w_len", 1, "--h_len", 1]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny one with a relighting LoRA that changes one matrix a lot."""
    folder = own_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")
    name = "blocks.0.self_attn.q"
    pair = {
        f"{name}.lora_A.default.weight": torch.ones(2, OWN.dim),
        f"{name}.lora_B.default.weight": torch.ones(OWN.dim, 2),
    }
    torch.save({"state_dict": pair}, folder / "relighting_lora.ckpt")
    return folder


def command(*words: object) -> Result:
    return CliRunner().invoke(app, ["compat", *map(str, words)], env={"COLUMNS": "500", "NO_COLOR": "1"})


def script(monkeypatch: pytest.MonkeyPatch, name: str, *words: object) -> int:
    """One of the scripts at the repository's root, as `python name words...` runs it."""
    monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / name), run_name="__main__")
    return int(end.value.code or 0)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Replacement guides, beside a file of the user's."""
    folder = tmp_path_factory.mktemp("scene") / "results"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    done = command("preprocess", *PREPROCESS, "--save_path", folder, *REPLACE)
    assert done.exit_code == 0, done.output
    assert "MediaPipe's detectors" in done.output
    return folder


def every(path: Path) -> np.ndarray:
    video = VideoFrames(path)
    return video.take(range(video.count))


def test_animation_by_the_two_scripts(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert script(monkeypatch, "preprocess_data.py", *PREPROCESS, "--save_path", "results", "--retarget_flag") == 0
    assert {f.name for f in (tmp_path / "results").iterdir()} == {
        "src_pose.mp4", "src_face.mp4", "src_ref.png", "manifest.json", "keypoints.npz",
    }  # fmt: skip
    assert json.loads((tmp_path / "results" / "manifest.json").read_text())["retarget"]["mode"] == "auto"
    words = ["--task", "animate-14B", "--ckpt_dir", checkpoint, "--src_root_path", "results", "--refert_num", 1]
    few = ["--base_seed", 3, "--sample_steps", 1, "--frame_num", 5, "--prompt", "a/b c"]
    assert script(monkeypatch, "generate.py", *words, *few) == 0
    (video,) = tmp_path.glob("animate-14B_1280x720_1_a_b_c_*.mp4")
    clip = probe(video, None)
    assert (clip.count, clip.fps) == (load_guides(tmp_path / "results").count, Fraction(2))
    assert clip.audio  # the manifest knows the clip
    record = json.loads(video.with_suffix(".json").read_text())
    assert (record["seed"], record["settings"]["solver"], record["settings"]["overlap"]) == (3, "unipc", 1)


def test_replacement_guides_are_lossless_under_the_published_names(scene: Path, tmp_path: Path) -> None:
    assert (scene / "notes.txt").read_text() == "mine"
    mask, background = every(scene / "src_mask.mp4"), every(scene / "src_bg.mp4")
    assert set(np.unique(mask)) == {0, 255}
    assert (background[mask > 0] == 0).all()
    boxes = mask[:, :, :, 0] > 0
    for box in boxes:  # w_len and h_len 1 fill the box, but for its last row and column
        ys, xs = np.nonzero(box)
        assert box[ys.min() : ys.max(), xs.min() : xs.max()].all()
    assert load_guides(scene).mode == "replacement"


def test_replacement_with_the_relighting_lora(scene: Path, checkpoint: Path, tmp_path: Path) -> None:
    words = ["generate", "--ckpt_dir", checkpoint, "--src_root_path", scene, "--replace_flag", "--base_seed", 1]
    few = ["--sample_steps", 1, "--frame_num", 5, "--sample_solver", "dpm++", "--sample_shift", 3]
    plain = command(*words, *few, "--save_file", tmp_path / "a.mp4")
    lit = command(*words, *few, "--save_file", tmp_path / "b.mp4", "--use_relighting_lora", "--refert_num", 1)
    assert plain.exit_code == lit.exit_code == 0, plain.output + lit.output
    assert "--refert_num was not given: 1 is taken" in plain.output
    assert (every(tmp_path / "a.mp4") != every(tmp_path / "b.mp4")).any()
    assert json.loads((tmp_path / "a.json").read_text())["lora"] == []
    assert json.loads((tmp_path / "b.json").read_text())["lora"][0]["path"].endswith("relighting_lora.ckpt")


def test_the_relighting_lora_has_to_be_there(scene: Path, tmp_path: Path) -> None:
    words = ["--ckpt_dir", own_checkpoint(tmp_path / "bare"), "--src_root_path", scene, "--replace_flag"]
    done = command("generate", *words, "--save_file", tmp_path / "a.mp4", "--use_relighting_lora")
    assert done.exit_code == 2
    assert "--use_relighting_lora = True: " in done.output
    assert "holds no relighting LoRA (relighting_lora.safetensors, relighting_lora.ckpt" in done.output
    assert not (tmp_path / "a.mp4").exists()


def test_replacement_guides_serve_animation(scene: Path, checkpoint: Path, tmp_path: Path) -> None:
    words = ["--ckpt_dir", checkpoint, "--src_root_path", scene, "--refert_num", 1, "--sample_steps", 1]
    done = command("generate", *words, "--frame_num", 5, "--save_file", tmp_path / "a.mp4")
    assert done.exit_code == 0, done.output
    assert "--replace_flag was not given" in done.output


@pytest.mark.slow
def test_compat_keeps_what_was_published(checkpoint: Path, tmp_path: Path) -> None:
    made = command("preprocess", *PREPROCESS, "--save_path", tmp_path / "r", *REPLACE, "--compat")
    assert made.exit_code == 0, made.output
    again = command("preprocess", *PREPROCESS, "--save_path", tmp_path / "r", *REPLACE, "--compat")
    assert again.exit_code == 0, again.output
    assert {f.name for f in (tmp_path / "r").iterdir()} == {
        "src_pose.mp4", "src_face.mp4", "src_bg.mp4", "src_mask.mp4", "src_ref.png",
    }  # fmt: skip
    assert len(np.unique(every(tmp_path / "r" / "src_mask.mp4"))) > 2  # lossy
    words = ["generate", "--ckpt_dir", checkpoint, "--src_root_path", tmp_path / "r", "--replace_flag", "--compat"]
    refused = command(*words, "--save_file", tmp_path / "a.mp4")
    assert refused.exit_code == 2
    assert "--refert_num = 77" in refused.output
    few = ["--refert_num", 1, "--sample_steps", 1, "--frame_num", 5]
    done = command(*words, *few, "--save_file", tmp_path / "a.mp4")
    assert done.exit_code == 0, done.output
    clip = probe(tmp_path / "a.mp4", None)
    assert (clip.fps, clip.audio) == (Fraction(30), ())
    assert json.loads((tmp_path / "a.json").read_text())["output"]["composite"] is False


def test_an_input_in_the_folder_is_not_overwritten(tmp_path: Path) -> None:
    mine = tmp_path / "src_ref.png"
    mine.write_bytes(IMAGE.read_bytes())
    words = ["--video_path", VIDEO, "--refer_path", mine, "--save_path", tmp_path, "--fps", 1]
    refused = command("preprocess", *words)
    assert refused.exit_code == 2
    assert "is an input of the job" in refused.output
    assert mine.read_bytes() == IMAGE.read_bytes()
