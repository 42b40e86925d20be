"""What a job takes over is its own: of its result, its guides, its checkpoint; and no store is ever half of one."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import pytest
from resumed_jobs import KEPT, SETTINGS, Job
from tiny_checkpoints import published_checkpoint, write_guides

from wanimate.api import Animator
from wanimate.config import OutputSettings
from wanimate.errors import InputError, OutputError
from wanimate.events import Event
from wanimate.finish.lock import STORE_MARK, record_path, work_path
from wanimate.finish.record import Hashes
from wanimate.jobs import segments as loop
from wanimate.jobs.store import Store, kept_words, read_store
from wanimate.media.video import LosslessWriter
from wanimate.preprocess.guides import load_guides
from wanimate.types import Frames, FrameSource
from wanimate.weights.fingerprint import file_hash
from wanimate.weights.tools.convert import convert

REDRAWN = SETTINGS.model_copy(update={"redraw": 3, "seed": 5})


@pytest.mark.parametrize("other", [{"redraw": 1, "seed": 9}, {"seed": 8}, {"steps": 3}])
def test_a_redraw_is_of_the_result_and_not_of_a_job_broken_off_since(
    job: Job, straight: Frames, monkeypatch: pytest.MonkeyPatch, other: dict[str, int]
) -> None:
    monkeypatch.setattr(loop, "NEAR", -1.0)
    job.done()
    job.broken_off(2, SETTINGS.model_copy(update=other))
    result, _, notices = job.done(REDRAWN)
    assert (job.frames[:17] == straight[:17]).all()
    assert result.manifest["redraws"] == {"3": {"seed": 5, "blended": False}}
    assert result.seed == 7
    assert any("another job" in text for text in notices) == ("redraw" not in other)


@pytest.mark.slow
def test_a_redraw_is_of_the_last_result(job: Job, straight: Frames) -> None:
    """What an older one was redrawn with is in the kept segments still, and in the new result no more."""
    job.done(output=KEPT)
    job.done(SETTINGS.model_copy(update={"redraw": 1, "seed": 9}))
    job.done()
    assert (job.frames == straight).all()
    result, _, _ = job.done(REDRAWN)
    assert list(result.manifest["redraws"]) == ["3"]
    assert (job.frames[:17] == straight[:17]).all()


@pytest.mark.slow
def test_a_drawn_seed_of_a_redraw_stays_until_it_is_done(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "NEAR", -1.0)
    drawn = SETTINGS.model_copy(update={"redraw": 1, "seed": None})
    job.done()
    job.broken_off(2, drawn)
    stored = read_store(work_path(job.out))
    assert stored is not None
    assert stored.job is not None
    seed = stored.job.redraws["0"].seed
    assert job.done(drawn)[0].manifest["redraws"]["1"]["seed"] == seed
    job.broken_off(2, REDRAWN)
    assert job.done(drawn)[0].manifest["redraws"]["1"]["seed"] != seed


def test_a_redraw_that_cannot_be_is_refused_before_anything_is_loaded(job: Job) -> None:
    seen: list[Event] = []
    with pytest.raises(InputError):
        seen += job.events(REDRAWN)
    job.done()
    in_memory = dataclasses.replace(load_guides(job.guides), folder=None)
    for guides, rule in ((job.guides, "has 3 segments"), (in_memory, "in memory")):
        job.guides = guides
        with pytest.raises(InputError, match=rule):
            seen += job.events(SETTINGS.model_copy(update={"redraw": 4}))
    assert not seen


@pytest.mark.parametrize("hostile", [{"0": {"seed": 2**70}}, {"x": {"seed": 1}}, {"0": {"seed": -1}}, 7])
def test_a_strangers_redraws_are_no_defect(job: Job, hostile: object) -> None:
    job.done(output=KEPT)
    record, store = record_path(job.out), work_path(job.out) / STORE_MARK
    for path, part in ((record, ()), (store, ("job",))):
        whole = json.loads(path.read_text())
        facts = whole[part[0]] if part else whole
        facts["redraws"] = hostile
        path.write_text(json.dumps(whole))
    with pytest.raises((InputError, OutputError)):
        job.done(REDRAWN)


@pytest.mark.parametrize("change", ["picture", "video", "strange name"])
def test_guides_that_changed_in_memory_or_under_odd_names_start_anew(
    job: Job, guides: Callable[..., Path], tmp_path: Path, change: str
) -> None:
    folder = tmp_path / "guides"
    shutil.copytree(guides(21), folder)
    if change == "strange name":
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["files"]["pose"] = "pose.matroska"
        (folder / "pose.mkv").rename(folder / "pose.matroska")
        (folder / "manifest.json").write_text(json.dumps(manifest))
    found = load_guides(folder)
    job.guides = found
    job.broken_off(2)
    if change == "picture":
        job.guides = dataclasses.replace(found, reference=255 - found.reference)
    elif change == "video":
        job.guides = dataclasses.replace(found, pose=Reversed(found.pose))
    else:
        video = tmp_path / "other.mkv"
        with LosslessWriter(video, found.fps, *found.size) as writer:
            for frame in found.pose.take(range(20, -1, -1)):
                writer.write(frame)
        video.rename(folder / "pose.matroska")
        job.guides = load_guides(folder)
    assert job.done()[1] == [0, 1, 2]


class Reversed:
    def __init__(self, source: FrameSource) -> None:
        self.source, self.count, self.size = source, source.count, source.size

    def take(self, indices: Sequence[int]) -> Frames:
        return self.source.take([self.count - 1 - i for i in indices])


def test_files_of_one_name_in_two_folders_are_two_files(tmp_path: Path) -> None:
    """diffusers' layout has transformer/diffusion_pytorch_model.safetensors and vae/diffusion_pytorch_model.safetensors."""
    folder = tmp_path / "diffusers"
    list(convert(published_checkpoint(tmp_path / "published"), folder, layout="diffusers"))
    with Animator.from_checkpoint(folder, "cpu") as animator, Hashes() as hashes:
        files = animator.engine.files
        hashes.add(files)
        found = hashes.by_name(files, animator.engine.facts()["checkpoint"]["path"])
    used = [*folder.rglob("*.safetensors"), *(folder / "tokenizer").iterdir()]
    assert found == {str(file.relative_to(folder)): file_hash(file) for file in used}


def test_a_store_is_there_whole_or_not_at_all(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is killed while it removes the store leaves nothing that stops the next one."""

    def killed(path: Path, **_: object) -> None:
        (path / STORE_MARK).unlink(missing_ok=True)
        raise KeyboardInterrupt

    job.broken_off(2)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            job.done()
    assert not work_path(job.out).exists()
    assert job.done(SETTINGS.model_copy(update={"redraw": 3, "seed": 9}))[1] == [0, 1, 2]


@pytest.mark.slow
def test_fresh_takes_nothing_before_there_is_new_work(job: Job, straight: Frames) -> None:
    job.broken_off(2)
    with pytest.raises(InputError):
        job.done(SETTINGS.model_copy(update={"redraw": 99}), OutputSettings(codec="ffv1", fresh=True))
    events = job.events(output=OutputSettings(codec="ffv1", fresh=True))
    next(events)
    events.close()
    assert job.done()[1] == [2]
    assert (job.frames == straight).all()


def test_damaged_guides_in_the_store_are_made_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "a.mkv")
    store.begin()
    write_guides(store.guides_folder, 5)
    store.add_guides(load_guides(store.guides_folder), {})
    (store.guides_folder / "pose.mkv").write_bytes(b"damaged")
    again = Store(tmp_path / "a.mkv")
    assert again.guides(again.guides_folder, {}) is None
    again.begin()
    write_guides(again.guides_folder, 5)
    again.add_guides(load_guides(again.guides_folder), {})
    assert again.guides(again.guides_folder, {}) is not None


def test_what_people_say_of_a_shot_is_no_damage(tmp_path: Path) -> None:
    store = Store(tmp_path / "a.mkv")
    store.begin()
    write_guides(store.guides_folder, 5)
    store.add_guides(load_guides(store.guides_folder), {})
    file = store.guides_folder / "manifest.json"
    manifest = json.loads(file.read_text())
    file.write_text(json.dumps(manifest | {"shot": {"history": ["Ann"]}}))
    found = Store(tmp_path / "a.mkv").guides(store.guides_folder, {})
    assert found is not None
    assert found.manifest["shot"] == {"history": ["Ann"]}
    file.write_text(json.dumps(manifest | {"no_person": [[0, 1]]}))
    assert Store(tmp_path / "a.mkv").guides(store.guides_folder, {}) is None


def test_a_name_that_is_none_has_nothing_kept() -> None:
    for out in (".", "..", "/", ""):
        assert kept_words(Path(out)) is None


@pytest.mark.parametrize("other", [True, False])
def test_what_another_job_is_at_is_not_called_kept(job: Job, other: bool) -> None:
    job.broken_off(1)
    file = work_path(job.out) / STORE_MARK
    facts = json.loads(file.read_text())
    parent = psutil.Process(os.getppid())
    owner = {"pid": parent.pid, "start": int(parent.create_time()) if other else 1}
    file.write_text(json.dumps(facts | {"owner": facts["owner"] | owner}))
    words = kept_words(job.out)
    assert words is None if other else words is not None and words.startswith("1 of 3 segments are kept")
