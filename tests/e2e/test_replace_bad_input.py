"""`wanimate replace` with bad files and settings: exit 2, one sentence of what, why and what to do, nothing left."""

from __future__ import annotations

import sys
from fractions import Fraction
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_bad_input import Job, contents, make_clip
from typer.testing import CliRunner, Result

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "weights"))
from tiny_checkpoints import own_checkpoint

from wanimate.api import Animator
from wanimate.cli.main import app
from wanimate.config import Job as JobSettings
from wanimate.config import PreprocessSettings
from wanimate.errors import InputError
from wanimate.media.probe import probe
from wanimate.media.video import LosslessWriter

DEMO = Path(str(files("wanimate.weights") / "embedded" / "demo"))


class Replacing(Job):
    command = "replace"

    def run(self, *more: str) -> Result:
        return super().run("--area", "96x96", *more)


@pytest.fixture
def job(tmp_path: Path) -> Replacing:
    """With a checkpoint whose headers are right: they are looked at before masks and models are."""
    made = Replacing(tmp_path)
    made.checkpoint.rmdir()
    own_checkpoint(made.checkpoint)
    return made


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (("--iterations", "-1"), ("--iterations = -1", "greater than or equal to 0", "Give 3")),
        (("--k", "0"), ("--k = 0", "greater than or equal to 1")),
        (("--w-len", "0"), ("--w-len = 0", "greater than or equal to 1")),
        (("--h-len", "-3"), ("--h-len = -3", "greater than or equal to 1")),
        (("--feather", "-1"), ("--feather = -1", "greater than or equal to 0")),
        (("--relight-strength", "1.6"), ("--relight-strength = 1.6", "less than or equal to 1.5")),
        (("--mask", "nowhere.mkv"), ("--mask = nowhere.mkv", "no such file")),
        (("--mask", "m.mkv", "--sam2", "s"), ("--sam2 = s", "the masks are given with --mask already")),
        (("--sam2", "nowhere"), ("--sam2 = nowhere", "there is no such folder", "config.json and model.safetensors")),
        (("--models", "nowhere"), ("models = nowhere", "selfie_segmentation.tflite", "not found", "Run `python -m")),
    ],
)
def test_settings(job: Replacing, options: tuple[str, ...], parts: tuple[str, ...]) -> None:
    job.refused(*parts, options=options)


@pytest.mark.parametrize(
    ("made", "found"),
    [
        ({"frames": 59}, "320x240 pixels and 59 frames"),
        ({"size": (240, 320)}, "240x320 pixels and 60 frames"),
        ({"rotation": 90}, "320x240 pixels and 60 frames"),
    ],
    ids=["length", "size", "turned"],
)
def test_masks_that_do_not_fit(job: Replacing, made: dict[str, Any], found: str) -> None:
    if "rotation" in made:  # a mask counts as it is shown, not as it is stored
        make_clip(job.video, size=(240, 320))
    mask = make_clip(job.folder / "mask.mp4", **made)
    frames = "240x320 pixels" if "rotation" in made else "320x240 pixels"
    job.refused(
        "--mask", "mask.mp4", f"has {found}, but the clip dance.mp4 has {frames} and 60 frames", "Give one mask frame",
        options=("--mask", str(mask)),
    )  # fmt: skip


def test_a_result_over_the_mask(job: Replacing) -> None:
    make_clip(job.out)
    job.refused("--out", "an input of the job", "another name", options=("--mask", str(job.out)))


def test_an_inverted_mask(tmp_path: Path) -> None:
    """With the packaged performer and the real detectors."""
    mask, count = tmp_path / "mask.mkv", probe(DEMO / "performer.mp4").count
    with LosslessWriter(mask, Fraction(15), 384, 384) as writer:
        for _ in range(count):
            frame = np.full((384, 384, 3), 255, np.uint8)
            frame[40:, 80:300] = 0
            writer.write(frame)
    files = ["--image", str(DEMO / "character-2.png"), "--video", str(DEMO / "performer.mp4"), "--mask", str(mask)]
    words = [
        "preprocess",
        *files,
        "--mode",
        "replacement",
        "--fps",
        "2",
        "--area",
        "64x64",
        "--out",
        str(tmp_path / "guides"),
    ]
    done = CliRunner().invoke(app, words, env={"COLUMNS": "500"})
    assert done.exit_code == 2, done.output
    assert (
        "% of the performer's keypoints lie in its white part: it is inverted. Make the performer white" in done.stderr
    )
    assert [p.name for p in tmp_path.iterdir()] == ["mask.mkv"]


def test_masks_are_of_no_use_in_animation(job: Replacing) -> None:
    files = ["--image", str(job.image), "--video", str(job.video), "--out", str(job.folder / "guides")]
    for option in ("--mask", "--sam2"):
        done = CliRunner().invoke(app, ["preprocess", *files, option, "m"], env={"COLUMNS": "500"})
        assert done.exit_code == 2
        rule = "animation cuts nobody out of the clip, so it takes no masks. Leave it out, or take replacement"
        assert f"{option} = m: {rule}" in done.stderr


def test_files(job: Replacing) -> None:
    job.video.write_text("these are words, not pictures\n" * 100)
    job.refused("--video", "not a video file", "Give an mp4")
    job.image.unlink()
    job.refused("--video")


def test_retargeting_is_no_option_of_replacement(job: Replacing) -> None:
    done = job.run("--retarget", "auto")
    assert done.exit_code == 2
    assert "--retarget" in done.stderr


def test_retargeting_from_python(job: Replacing) -> None:
    made = JobSettings(
        image=job.image, video=job.video, out=job.out, mode="replacement",
        preprocess=PreprocessSettings(retarget="published"),
    )  # fmt: skip
    before = contents(job.folder)
    with pytest.raises(InputError, match=r"^retarget = published: the character has to fit.*Leave it out"):
        list(Animator.from_checkpoint().run(made))
    assert contents(job.folder) == before


def test_an_unknown_mode(job: Replacing) -> None:
    files = ["--image", str(job.image), "--video", str(job.video), "--out", str(job.folder / "guides")]
    done = CliRunner().invoke(app, ["preprocess", *files, "--mode", "relight"], env={"COLUMNS": "500"})
    assert done.exit_code == 2
    assert "--mode = relight: there is no such choice. Give 'animation' or 'replacement'." in done.stderr


def test_nobody_in_the_clip(job: Replacing) -> None:
    files = ["--image", str(job.image), "--video", str(job.video), "--out", str(job.folder / "guides")]
    done = CliRunner().invoke(app, ["preprocess", *files, "--mode", "replacement"], env={"COLUMNS": "500"})
    assert done.exit_code == 2
    assert "nobody was found in any of its 60 frames" in done.stderr
    assert not (job.folder / "guides").exists()
