"""`wanimate replace` with bad files and settings: exit 2, one sentence of what, why and what to do, nothing left."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_bad_input import Job, contents
from typer.testing import CliRunner

from wanimate.cli.main import app
from wanimate.config import Job as JobSettings
from wanimate.config import PreprocessSettings
from wanimate.errors import InputError
from wanimate.pipeline import Animator


class Replacing(Job):
    command = "replace"


@pytest.fixture
def job(tmp_path: Path) -> Replacing:
    return Replacing(tmp_path)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (("--iterations", "-1"), ("--iterations = -1", "greater than or equal to 0", "--help")),
        (("--k", "0"), ("--k = 0", "greater than or equal to 1")),
        (("--w-len", "0"), ("--w-len = 0", "greater than or equal to 1")),
        (("--h-len", "-3"), ("--h-len = -3", "greater than or equal to 1")),
        (("--feather", "-1"), ("--feather = -1", "greater than or equal to 0")),
        (("--models", "nowhere"), ("models = nowhere", "selfie_segmentation.tflite", "not found", "Run `python -m")),
    ],
)
def test_settings(job: Replacing, options: tuple[str, ...], parts: tuple[str, ...]) -> None:
    job.refused(*parts, options=options)


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
    with pytest.raises(InputError, match=r"--retarget = published: the character has to fit.*Leave it out"):
        list(Animator.from_checkpoint().run(made))
    assert contents(job.folder) == before


def test_an_unknown_mode(job: Replacing) -> None:
    files = ["--image", str(job.image), "--video", str(job.video), "--out", str(job.folder / "guides")]
    done = CliRunner().invoke(app, ["preprocess", *files, "--mode", "relight"], env={"COLUMNS": "500"})
    assert done.exit_code == 2
    assert "--mode = relight: there is no such mode. Give animation or replacement." in done.stderr


def test_nobody_in_the_clip(job: Replacing) -> None:
    files = ["--image", str(job.image), "--video", str(job.video), "--out", str(job.folder / "guides")]
    done = CliRunner().invoke(app, ["preprocess", *files, "--mode", "replacement"], env={"COLUMNS": "500"})
    assert done.exit_code == 2
    assert "nobody was found in any of its 60 frames" in done.stderr
    assert not (job.folder / "guides").exists()
