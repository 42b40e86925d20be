"""The order of a job: whatever can be known without the weights is said before they are read."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parents[1] / "media"))
from make_clips import make_clip

from wanimate.api import Animator
from wanimate.config import Job
from wanimate.engines.base import State
from wanimate.errors import CheckpointError, InputError, OutputError, WanimateError
from wanimate.events import Notice, StageStarted
from wanimate.jobs import run as jobs
from wanimate.runtime import placement
from wanimate.weights.locate import find_vae


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Any]:
    """A clip with nobody in it, and a picture."""
    Image.new("RGB", (64, 96), (200, 30, 60)).save(tmp_path / "hero.png")
    clip = make_clip(tmp_path / "dance.mp4")
    return {"image": tmp_path / "hero.png", "video": clip, "out": tmp_path / "out.mp4", "area": 64 * 96}


@pytest.fixture
def unread(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Animator:
    """An animator whose weights nobody may read."""
    monkeypatch.setattr(placement, "opening", lambda *_: pytest.fail("weights were read"))
    return Animator.from_checkpoint(checkpoint, "cpu")


def refused(animator: Animator, job: Job, kind: type[WanimateError], message: str) -> list[Any]:
    """The stages that had begun by then."""
    before = sorted(os.listdir(job.out.parent))
    seen = []
    with pytest.raises(kind, match=message):
        seen += [event.stage for event in animator.run(job) if isinstance(event, StageStarted)]
    assert animator.engine.state is State.CLOSED
    assert sorted(os.listdir(job.out.parent)) == before
    return seen


def test_a_clip_with_nobody_in_it(unread: Animator, files: dict[str, Any]) -> None:
    refused(unread, Job.of(**files), InputError, "nobody was found in any of its")


def test_what_is_odd_about_a_picture_is_told(unread: Animator, files: dict[str, Any]) -> None:
    Image.new("RGB", (64, 96), (200, 30, 60)).save(files["image"], icc_profile=b"no profile")
    told: list[str] = []
    with suppress(InputError):  # nobody is in the clip
        for event in unread.run(Job.of(**files)):
            told += [event.message] if isinstance(event, Notice) else []
    assert any("the colour profile of hero.png cannot be used" in text for text in told)


def test_places_that_cannot_be_written(
    unread: Animator, files: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even the performer is looked for."""
    monkeypatch.setattr(jobs.drive, "preprocess", lambda *_: pytest.fail("the performer was looked for"))
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("mine")
    refused(unread, Job.of(**files, keep_guides=tmp_path / "taken"), OutputError, "the name is taken")
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("wanimate.jobs.workspace.shutil.disk_usage", lambda path: usage)
    refused(unread, Job.of(**files), OutputError, r"the disk has 0\.0 MB free, and the job needs at least")


def test_files_of_the_checkpoint_and_loras(
    unread: Animator, files: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs.drive, "preprocess", lambda *_: pytest.fail("the performer was looked for"))
    wrong = tmp_path / "wrong.safetensors"
    save_file(
        {"blocks.0.ffn.0.lora_A.weight": torch.ones(4, 9), "blocks.0.ffn.0.lora_B.weight": torch.ones(48, 4)}, wrong
    )
    refused(unread, Job.of(**files, lora=str(wrong)), InputError, r"has the shape \[4, 9\]")
    folder = unread.engine.folder
    vae = find_vae(folder)
    monkeypatch.setattr("wanimate.weights.checkpoint.find_vae", lambda folder: vae.with_name("gone.safetensors"))
    refused(unread, Job.of(**files), CheckpointError, "there is no such file")


def test_the_sequence(
    checkpoint: Path, files: dict[str, Any], guides: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inputs, performer, plan, weights, segments, record, and only then the video's name."""
    order: list[str] = []

    def noted(owner: Any, name: str, word: str) -> None:
        real = getattr(owner, name)

        def watched(*args: Any, **more: Any) -> Any:
            order.append(word)
            return real(*args, **more)

        monkeypatch.setattr(owner, name, watched)

    animator = Animator.from_checkpoint(checkpoint, "cpu")
    from wanimate.finish.encode import OutputWriter
    from wanimate.preprocess.guides import load_guides

    def drawn(*_: Any) -> Any:
        order.append("performer")
        yield from ()
        return load_guides(guides(11))

    monkeypatch.setattr(jobs.drive, "preprocess", drawn)
    noted(jobs, "_look", "inputs")
    noted(animator.engine, "check", "headers")
    noted(animator.engine, "plan", "plan")
    noted(placement, "opening", "weights")
    noted(animator.engine, "segment", "segment")
    noted(jobs, "commit", "record")
    noted(OutputWriter, "close", "name")
    list(animator.run(Job.of(**files, steps=1, seed=1)))
    assert order == [
        "inputs", "headers", "performer", "plan", "weights", "segment", "segment", "record", "name"
    ]  # fmt: skip
    record = json.loads(files["out"].with_suffix(".json").read_text())
    assert set(record["inputs"]) == {"image", "video"}
