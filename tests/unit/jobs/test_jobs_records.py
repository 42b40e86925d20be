"""The record: complete, written first, and good for making the job again."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_checkpoints import published_checkpoint

from wanimate.api import Animator
from wanimate.config import GenerateSettings, OutputSettings, ParallelSettings, RuntimeSettings
from wanimate.errors import OutputError
from wanimate.events import Finished, StageProgress, StepDone
from wanimate.finish.encode import OutputWriter
from wanimate.finish.record import SCHEMA, Hashes
from wanimate.jobs import run as jobs
from wanimate.media.video import VideoFrames
from wanimate.types import Result
from wanimate.weights import fingerprint as fingerprints
from wanimate.weights.fingerprint import Stopped, file_hash, fingerprint

LOSSLESS = OutputSettings(codec="ffv1")
MakeGuides = Callable[..., Path]


def made(animator: Animator, guides: Path, out: Path, settings: GenerateSettings | None = None) -> Result:
    *_, last = animator.generate(guides, out, settings or GenerateSettings(steps=2, seed=7), LOSSLESS)
    assert isinstance(last, Finished)
    return last.result


def test_the_result_holds_the_record_as_it_was_written(animator: Animator, guides: MakeGuides, tmp_path: Path) -> None:
    result = made(animator, guides(5), tmp_path / "a.mkv")
    assert result.manifest == json.loads((tmp_path / "a.json").read_text())
    assert result.manifest["schema"] == SCHEMA
    assert result.manifest["memory"]["host"] > 0


def test_what_attention_leaves_out_is_in_the_record(checkpoint: Path, guides: MakeGuides, tmp_path: Path) -> None:
    """For every step of every segment, also of those that an earlier run has finished."""
    runtime = RuntimeSettings(speed="fast", attention_error=0.1)
    settings = GenerateSettings(steps=2, seed=7)
    with Animator.from_checkpoint(checkpoint, "cpu", runtime) as animator:
        record = made(animator, guides(11), tmp_path / "a.mkv").manifest
        broken = animator.generate(guides(11), tmp_path / "b.mkv", settings, LOSSLESS)
        for event in broken:
            if isinstance(event, StepDone) and event.segment == 1:
                broken.close()
                break
        again = made(animator, guides(11), tmp_path / "b.mkv").manifest
    found = record["sparse_attention"]
    assert [len(steps) for steps in found["density"]] == [len(steps) for steps in found["error"]] == [2, 2]
    assert all(0 < density <= 1 for steps in found["density"] for density in steps)
    assert record["runtime"]["attention_error"] == 0.1
    assert record["patches"]["transformer"] == ["attention (torch, error 0.1)"]
    assert again["resumed"] == 1
    assert again["sparse_attention"] == found


def test_the_record_of_whole_attention_says_so(animator: Animator, guides: MakeGuides, tmp_path: Path) -> None:
    record = made(animator, guides(5), tmp_path / "a.mkv").manifest
    assert record["sparse_attention"] is None
    assert record["runtime"]["attention_error"] == 0.0


def test_the_record_is_there_before_the_video_has_its_name(
    animator: Animator, guides: MakeGuides, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, bool]] = []
    close = OutputWriter.close

    def watched(writer: OutputWriter) -> None:
        seen.append(((tmp_path / "a.json").exists(), (tmp_path / "a.mkv").exists()))
        close(writer)

    monkeypatch.setattr(OutputWriter, "close", watched)
    made(animator, guides(5), tmp_path / "a.mkv")
    assert seen == [(True, False)]

    def full(*_: object) -> None:
        raise OutputError("out", tmp_path / "b.mkv", "the disk is full", "Free some space.")

    monkeypatch.setattr(jobs, "commit", full)
    with pytest.raises(OutputError, match="the disk is full"):
        made(animator, guides(5), tmp_path / "b.mkv")
    assert sorted(os.listdir(tmp_path)) == [".b.mkv.work", "a.json", "a.mkv"], "never a video without its record"


def test_settings_and_hashes_of_the_guides_are_in_the_record(
    animator: Animator, guides: MakeGuides, tmp_path: Path
) -> None:
    folder = tmp_path / "guides"
    folder.mkdir()
    for file in guides(5).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    manifest = json.loads((folder / "manifest.json").read_text())
    settings = {"retarget": "off", "person": "left"}
    more = {"settings": settings, "warnings": ["no person was found in 1 of 5 frames (3)"]}
    (folder / "manifest.json").write_text(json.dumps(manifest | more))
    record = made(animator, folder, tmp_path / "a.mkv").manifest
    assert record["preprocess"] == settings
    assert record["warnings"] == more["warnings"]
    hashes = record["inputs"]["guides"]["files"]
    assert set(hashes) == {file.name for file in folder.iterdir()}
    for file in folder.iterdir():
        assert hashes[file.name] == f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"


def test_every_file_of_a_published_checkpoint_has_its_hash(guides: MakeGuides, tmp_path: Path) -> None:
    folder = published_checkpoint(tmp_path / "tiny-14b")
    with Animator(folder, RuntimeSettings(device="cpu")) as animator:
        record = made(animator, guides(5), tmp_path / "a.mkv", GenerateSettings(steps=1, seed=7, prompt="x")).manifest
    hashes = record["checkpoint"]["hashes"]
    weights = [file for file in folder.iterdir() if file.suffix in (".safetensors", ".pth")]
    assert {file.name for file in weights} <= set(hashes)
    assert all(hashes[file.name] == file_hash(file) for file in weights)


def test_a_record_makes_the_same_frames_again(animator: Animator, guides: MakeGuides, tmp_path: Path) -> None:
    settings = GenerateSettings(steps=3, seed=None, solver="euler", clip_length=9)
    first = made(animator, guides(11), tmp_path / "a.mkv", settings).manifest
    assert first["attention"] == first["runtime"]["attention"] == "torch"
    runtime, parallel = RuntimeSettings(**first["runtime"]), ParallelSettings(**first["parallel"])
    again = Animator(first["checkpoint"]["path"], runtime, parallel)
    given = GenerateSettings.model_validate(first["settings"])
    second = made(again, guides(11), tmp_path / "b.mkv", given).manifest
    assert second["settings"] == first["settings"]
    frames = [VideoFrames(tmp_path / name).take(range(11)) for name in ("a.mkv", "b.mkv")]
    assert (frames[0] == frames[1]).all()


def test_patches_on_the_networks_are_recorded(animator: Animator, guides: MakeGuides, tmp_path: Path) -> None:
    record = made(animator, guides(5), tmp_path / "a.mkv").manifest
    assert record["patches"]["transformer"] == []
    assert record["patches"]["vae"] == animator.engine.patches()["vae"]


def test_the_fingerprint_of_a_large_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole up to a size; beyond, a change of size, of the head, of the end or of the weights is seen."""
    for name, value in (("WHOLE", 1000), ("HEAD", 100), ("BLOCK", 10), ("SAMPLES", 16)):
        monkeypatch.setattr(fingerprints, name, value)
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(b"x" * 1000)
    assert fingerprint(small) == f"sha256:{hashlib.sha256(b'x' * 1000).hexdigest()}"
    bytes_ = bytearray(os.urandom(5000))
    large.write_bytes(bytes_)
    first = fingerprint(large)
    assert first.startswith("sampled:")
    assert fingerprint(large) == first
    for change in (0, 99, 4999):
        other = bytearray(bytes_)
        other[change] ^= 1
        large.write_bytes(other)
        assert fingerprint(large) != first, f"byte {change}"
    large.write_bytes(bytes_ + b"x")
    assert fingerprint(large) != first
    large.write_bytes(bytes_[:100] + bytes(4900))
    assert fingerprint(large) != first


def test_hashing_ends_with_a_job_that_is_broken_off(
    animator: Animator, guides: MakeGuides, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, pieces = threading.Event(), []

    def endless(path: Path, stopped: Callable[[], bool]) -> str:
        begun.set()
        while not stopped():
            pieces.append(path)
            time.sleep(0.001)
        raise Stopped

    monkeypatch.setattr("wanimate.finish.record.fingerprint", endless)
    events = animator.generate(guides(5), tmp_path / "a.mkv", GenerateSettings(steps=2, seed=7), LOSSLESS)
    for event in events:
        if isinstance(event, StageProgress) and begun.wait(5):
            break
    events.close()
    done = len(pieces)
    assert done
    time.sleep(0.05)
    assert len(pieces) == done
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("hashes")]
    assert os.listdir(tmp_path) == []


def test_hashes_are_made_once_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    with Hashes() as hashes:
        hashes.add([tmp_path / "a", tmp_path / "a", tmp_path / "nothing"])
        assert hashes.of(tmp_path / "a")["sha256"] == file_hash(tmp_path / "a")
        assert hashes.of(tmp_path / "nothing") == {"path": str(tmp_path / "nothing")}
