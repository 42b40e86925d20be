"""A job that was broken off goes on with the same command, and ends with the frames of one that was not."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from resumed_jobs import KEPT, LOSSLESS, SETTINGS, Job
from safetensors.torch import save_file

from wanimate.api import Animator
from wanimate.config import LoraUse, MarkSettings, OutputSettings
from wanimate.errors import InputError, OutputError
from wanimate.events import StageProgress, StepDone
from wanimate.finish.decode import to_pixels
from wanimate.finish.lock import STORE_MARK, work_path
from wanimate.jobs import segments as loop
from wanimate.jobs.store import Store, digest, read_store
from wanimate.media.files import AtomicFile
from wanimate.media.image import load_image
from wanimate.media.levels import from_levels
from wanimate.preprocess.guides import write_png
from wanimate.provenance.label import Label
from wanimate.types import Frames

MakeGuides = Callable[..., Path]


@pytest.mark.parametrize("segments", [1, 2])
def test_a_job_goes_on_where_it_was(job: Job, straight: Frames, segments: int) -> None:
    job.broken_off(segments)
    assert sorted(os.listdir(job.out.parent)) == [".a.mkv.work"], "nothing is left but the finished work"
    result, computed, notices = job.done()
    assert computed == list(range(segments, 3))
    assert (job.frames == straight).all()
    assert f"{segments} of 3 segments are there from an earlier run" in notices
    assert result.manifest["resumed"] == segments
    assert sorted(os.listdir(job.out.parent)) == ["a.json", "a.mkv"]


def test_colours_are_held_across_the_break(job: Job, straight: Frames) -> None:
    """The anchor, which is on, knows the first segment's colours when a job goes on; without it frames are others."""
    assert SETTINGS.anchor
    job.done(SETTINGS.model_copy(update={"anchor": False}))
    without = job.frames
    assert (without[:9] == straight[:9]).all()
    assert (without[9:] != straight[9:]).any()
    job.broken_off(2)
    _, computed, _ = job.done()
    assert computed == [2]
    assert (job.frames == straight).all()


@pytest.mark.parametrize(
    "how",
    [
        "step cache",
        "replacement",
        *(pytest.param(one, marks=pytest.mark.slow) for one in ("scheduled LoRA", "guidance", "compat")),
    ],
)
def test_jobs_of_every_way_go_on(animator: Animator, guides: MakeGuides, tmp_path: Path, how: str) -> None:
    """With the frames of a job that nothing happened to."""
    lora = tmp_path / "lora.safetensors"
    pair = {"blocks.1.ffn.0.lora_A.weight": torch.ones(2, 32) / 8, "blocks.1.ffn.0.lora_B.weight": torch.ones(48, 2)}
    save_file(pair, lora)
    more: dict[str, Any] = {
        "scheduled LoRA": {"lora": (LoraUse(path=lora, stop=0.5),), "steps": 4}, "step cache": {"cache": "taylor", "steps": 12},
        "guidance": {"guidance": 2.0}, "replacement": {}, "compat": {"compat": True},
    }[how]  # fmt: skip
    settings = SETTINGS.model_copy(update=more)
    folder = guides(21, replacement=True) if how == "replacement" else guides(21)
    whole, broken = (Job(animator, folder, tmp_path / name / "a.mkv") for name in ("whole", "broken"))
    whole.done(settings)
    broken.broken_off(1, settings)
    result, computed, _ = broken.done(settings)
    assert computed == [1, 2]
    assert (broken.frames == whole.frames).all()
    if how == "step cache":
        other = json.loads((tmp_path / "whole" / "a.json").read_text())
        assert result.manifest["cache"]["skipped"] == other["cache"]["skipped"]


def test_a_drawn_seed_stays_the_jobs(job: Job) -> None:
    drawn = SETTINGS.model_copy(update={"seed": None})
    job.broken_off(1, drawn)
    stored = read_store(work_path(job.out))
    assert stored is not None
    assert stored.job is not None
    result, computed, _ = job.done(drawn)
    assert (result.seed, computed) == (stored.job.seed, [1, 2])
    again, computed, _ = job.done(drawn)
    assert computed == [0, 1, 2]
    assert again.seed != result.seed


def test_other_settings_start_anew_and_say_what_differs(job: Job) -> None:
    job.broken_off(2)
    _, computed, notices = job.done(SETTINGS.model_copy(update={"seed": 8, "steps": 3}))
    assert computed == [0, 1, 2]
    (told,) = [text for text in notices if "another job" in text]
    assert "steps 2, now 3" in told
    assert "seed 7, now 8" in told


def test_output_settings_do_not_decide_segments(job: Job, straight: Frames) -> None:
    job.broken_off(2)
    _, computed, _ = job.done(output=OutputSettings(codec="ffv1", sheet=True))
    assert computed == [2]
    assert (job.frames == straight).all()


def test_a_watermark_is_on_every_frame_of_a_job_that_goes_on(job: Job, straight: Frames) -> None:
    """Stored segments are without it, so that a job can go on with it or without."""
    job.broken_off(2)
    result, computed, _ = job.done(output=LOSSLESS.model_copy(update={"watermark": True}))
    assert computed == [2]
    marked = to_pixels(Label(*result.size, MarkSettings(label="plain")).on(from_levels(straight))[0])
    assert np.abs(job.frames.astype(int) - marked).max() <= 1  # the mark is laid over frames that are not yet rounded
    assert (job.frames != straight).any(axis=(1, 2, 3)).all()
    assert result.manifest["output"]["watermark"] is True


@pytest.mark.slow
def test_fresh_ignores_what_is_there(job: Job, straight: Frames) -> None:
    job.broken_off(2)
    _, computed, _ = job.done(output=OutputSettings(codec="ffv1", fresh=True))
    assert computed == [0, 1, 2]
    assert (job.frames == straight).all()


@pytest.mark.parametrize("change", ["guides", "checkpoint"])
def test_other_files_start_anew(job: Job, tmp_path: Path, change: str, checkpoint: Path) -> None:
    copy, weights = tmp_path / "guides", tmp_path / "tiny"
    shutil.copytree(job.guides, copy)
    shutil.copytree(checkpoint, weights)
    job = Job(Animator.from_checkpoint(weights, "cpu"), copy, tmp_path / "a.mkv")
    job.broken_off(1)
    if change == "guides":
        picture = load_image(copy / "reference.png")
        (copy / "reference.png").unlink()
        write_png(copy / "reference.png", picture[::-1])
    else:
        file = next(weights.glob("*.safetensors"))
        file.write_bytes(file.read_bytes()[:-1] + b"\1")
        job.animator = Animator.from_checkpoint(weights, "cpu")
    _, computed, notices = job.done()
    assert computed == [0, 1, 2]
    name = "reference.png" if change == "guides" else file.name
    assert any(f"another job ({change}: {name} is another)" in text for text in notices)


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_damaged_segment_is_made_again(job: Job, straight: Frames, damage: str) -> None:
    job.broken_off(2)
    (file,) = work_path(job.out).glob("segment-0001-*")
    data = bytearray(file.read_bytes())
    if damage == "flipped":
        data[-100] ^= 4
    file.write_bytes({"cut": data[:-7], "flipped": data, "empty": b""}[damage])
    _, computed, _ = job.done()
    assert computed == [1, 2]
    assert (job.frames == straight).all()


def test_a_strangers_folder_of_that_name_is_left_alone(job: Job) -> None:
    folder = work_path(job.out)
    folder.mkdir()
    (folder / "diary.txt").write_text("dear diary")
    for output in (LOSSLESS, OutputSettings(codec="ffv1", fresh=True)):
        with pytest.raises(OutputError):
            job.done(output=output)
    assert (folder / "diary.txt").read_text() == "dear diary"


def test_a_store_that_cannot_be_written_stops_nobody(
    job: Job, straight: Frames, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = AtomicFile.write

    def full(file: AtomicFile, data: bytes) -> int:
        if "segment-" in file.path.name:
            raise OSError(28, "No space left on device")
        return write(file, data)

    monkeypatch.setattr(AtomicFile, "write", full)
    _, computed, notices = job.done()
    assert computed == [0, 1, 2]
    assert (job.frames == straight).all()
    assert sum("could not be stored" in text and "disk is full" in text for text in notices) == 3


def test_a_segment_is_on_disk_before_the_next_begins(job: Job) -> None:
    seen = {}
    for event in job.events():
        if isinstance(event, StepDone) and event.step == 1:
            seen[event.segment] = len(list(work_path(job.out).glob("segment-*")))
    assert seen == {0: 0, 1: 1, 2: 2}


def test_the_store_is_private(job: Job) -> None:
    job.broken_off(1)
    assert work_path(job.out).stat().st_mode & 0o777 == 0o700


def test_another_machine_is_told(job: Job) -> None:
    job.broken_off(1)
    threads = torch.get_num_threads()
    file = work_path(job.out) / STORE_MARK
    facts = json.loads(file.read_text())
    facts["job"]["circumstances"]["threads"] = threads + 1
    file.write_text(json.dumps(facts))
    _, computed, notices = job.done()
    assert computed == [1, 2]
    assert any(f"threads {threads + 1}, now {threads}" in text for text in notices)


@pytest.mark.parametrize("near", [1e9, -1.0])
@pytest.mark.parametrize("kept", [True, False])
def test_a_segment_is_redrawn(
    job: Job, straight: Frames, monkeypatch: pytest.MonkeyPatch, near: float, kept: bool
) -> None:
    """Blended back into the frames it replaces, or followed by what is made anew from it."""
    monkeypatch.setattr(loop, "NEAR", near)
    job.done(output=KEPT if kept else LOSSLESS)
    assert work_path(job.out).exists() == kept
    result, computed, notices = job.done(SETTINGS.model_copy(update={"redraw": 2, "seed": 9}))
    frames = job.frames
    first, second, third = (slice(0, 9), slice(9, 17), slice(17, 21))
    assert (frames[first] == straight[first]).all()
    assert (frames[second] != straight[second]).any()
    blended = near > 0
    assert (frames[third] == straight[third]).all() == blended
    assert (frames[16] == straight[16]).all() == blended
    if kept:
        assert computed == ([1] if blended else [1, 2])
    assert any(("fades into them" in text) == blended for text in notices if "is redrawn with seed 9" in text)
    assert result.seed == 7
    assert result.manifest["redraws"] == {"2": {"seed": 9, "blended": blended}}
    assert result.manifest["settings"]["seed"] == 7
    assert work_path(job.out).exists() == kept


@pytest.mark.slow
def test_a_redrawn_job_that_was_broken_off_goes_on(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "NEAR", -1.0)
    again = SETTINGS.model_copy(update={"redraw": 1, "seed": 9})
    job.done(output=KEPT)
    shutil.copytree(job.out.parent, job.out.parent / "copy")
    job.broken_off(2, again)
    _, computed, _ = job.done(again)
    assert computed == [2]
    frames, other = job.frames, Job(job.animator, job.guides, job.out.parent / "copy" / "a.mkv")
    other.done(again)
    assert (frames == other.frames).all()


@pytest.mark.slow
def test_a_second_redraw_keeps_the_first(job: Job, straight: Frames, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "NEAR", 1e9)
    job.done(output=KEPT)
    job.done(SETTINGS.model_copy(update={"redraw": 1, "seed": 9}))
    first = job.frames
    result, _, _ = job.done(SETTINGS.model_copy(update={"redraw": 3, "seed": 4}))
    frames = job.frames
    assert (frames[:17] == first[:17]).all()
    assert (frames[17:] != straight[17:]).any()
    assert list(result.manifest["redraws"]) == ["1", "3"]


def test_a_redraw_that_cannot_be_is_refused(job: Job) -> None:
    again = {"redraw": 2, "seed": 9}
    with pytest.raises(InputError, match=r"there is no a\.mkv with its record"):
        job.done(SETTINGS.model_copy(update=again))
    job.done()
    with pytest.raises(InputError, match="steps 2, now 3"):
        job.done(SETTINGS.model_copy(update={**again, "steps": 3}))
    with pytest.raises(InputError, match="the job has 3 segments"):
        job.done(SETTINGS.model_copy(update={**again, "redraw": 4}))


def test_names_that_are_no_text_are_kept_apart() -> None:
    assert digest("\udcff") != digest("\udcfe")


def test_a_store_without_finished_work_goes(tmp_path: Path) -> None:
    store = Store(tmp_path / "a.mkv")
    assert not store.tidy()
    assert not list(tmp_path.iterdir())


def test_progress_counts_what_is_there(job: Job) -> None:
    """A job that goes on is not said to be at its beginning for long."""
    job.broken_off(2)
    fractions = [event.fraction for event in job.events() if isinstance(event, StageProgress | StepDone)]
    assert fractions == sorted(fractions)


def test_a_package_that_was_never_installed_goes_on_too(
    job: Job, straight: Frames, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sources on the path are enough; they have no version."""
    monkeypatch.setattr("wanimate.versions.version", _none)
    job.broken_off(1)
    _, computed, _ = job.done()
    assert computed == [1, 2]
    assert (job.frames == straight).all()


def _none(name: str) -> str:
    raise PackageNotFoundError(name)
