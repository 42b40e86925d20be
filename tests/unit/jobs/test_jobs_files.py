"""No command writes over what it reads, or over what somebody else has made; it says so before it reads anything large."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[1] / "media"))
from make_clips import make_clip

from wanimate.api import Animator
from wanimate.cli.main import app
from wanimate.config import GenerateSettings, Job, OutputSettings, PreprocessSettings
from wanimate.engines.base import State
from wanimate.errors import OutputError
from wanimate.events import Notice
from wanimate.integrations.published import write_published_guides
from wanimate.jobs import run as jobs
from wanimate.media import lock as locks
from wanimate.media.files import sha256
from wanimate.media.probe import probe
from wanimate.preprocess import candidates
from wanimate.preprocess.candidates import write_people
from wanimate.train import own
from wanimate.train.adapters import AdapterSettings
from wanimate.train.lora import LoraTraining
from wanimate.weights.fingerprint import file_hash

ONE = GenerateSettings(steps=1, seed=1)
Files = dict[str, bytes]


def contents(folder: Path) -> Files:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def place(tmp_path: Path, guides: Callable[..., Path]) -> Path:
    """Inputs of every kind."""
    Image.new("RGB", (64, 96), (200, 30, 60)).save(tmp_path / "hero.png")
    make_clip(tmp_path / "dance.mp4", frames=5)
    shutil.copytree(guides(5), tmp_path / "guides")
    manifest = json.loads((tmp_path / "guides" / "manifest.json").read_text())
    clip = tmp_path / "dance.mp4"
    manifest["source"] = {"path": str(clip), "sha256": sha256(clip), "frames": list(range(5))}
    (tmp_path / "guides" / "manifest.json").write_text(json.dumps(manifest))
    return tmp_path


def refused(work: Callable[[], Any], folder: Path, said: str, field: str = "out") -> None:
    before = contents(folder)
    started = time.process_time()
    with pytest.raises(OutputError, match=said) as caught:
        work()
    assert time.process_time() - started < 1
    assert (caught.value.field, caught.value.exit_code) == (field, 2)
    assert contents(folder) == before


def generating(animator: Animator, place: Path, out: Path, output: OutputSettings) -> Callable[[], Any]:
    return lambda: list(animator.generate(place / "guides", out, ONE, output))


def test_the_clip_that_the_guides_name_is_not_written_over(animator: Animator, place: Path) -> None:
    (place / "link.mp4").symlink_to(place / "dance.mp4")
    (place / "twin.mp4").hardlink_to(place / "dance.mp4")
    for name in ("dance.mp4", "link.mp4", "twin.mp4"):
        refused(generating(animator, place, place / name, OutputSettings(overwrite=True)), place, "an input of the job")


@pytest.mark.parametrize("name", ["pose.mkv", "new.mkv"])
def test_the_guides_are_not_written_into(animator: Animator, place: Path, name: str) -> None:
    output = OutputSettings(codec="ffv1", overwrite=True)
    refused(
        lambda: list(animator.generate(place / "guides", place / "guides" / name, ONE, output)), place, "input|is read"
    )


def test_weights_and_loras_are_not_written_over(animator: Animator, place: Path) -> None:
    """Under any name: a hard link to a file of the checkpoint is the file."""
    weights = animator.engine.files[0]
    (place / "hero.mp4").symlink_to(weights)
    (place / "villain.sheet.png").symlink_to(weights)
    before = weights.read_bytes()
    output = OutputSettings(overwrite=True, sheet=True)
    for name in ("hero.mp4", "villain.mp4"):
        refused(generating(animator, place, place / name, output), place, "an input of the job")
    assert weights.read_bytes() == before
    lora = place / "light.mp4"
    lora.write_bytes(b"weights")
    resolved = SimpleNamespace(generate=SimpleNamespace(lora=[SimpleNamespace(path=lora)]))
    engine = cast(Any, SimpleNamespace(resolve=lambda *_: resolved, files=[]))
    refused(lambda: list(jobs.generate(engine, place / "guides", lora, ONE, output)), place, "an input of the job")


@pytest.mark.parametrize("name", ["dance.mp4", "hero.png", "mask.mp4"])
def test_inputs_in_the_folder_for_guides_stay(place: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`preprocess --out .` beside the clip, and the same through a link."""
    monkeypatch.setattr(jobs, "_look", lambda *_: pytest.fail("the clip was read"))
    make_clip(place / "mask.mp4", frames=5)
    inputs = {"hero.png": place / "hero.png", "dance.mp4": place / "dance.mp4", "mask.mp4": place / "mask.mp4"}
    new = place / "new"
    new.mkdir()
    shutil.move(inputs[name], new)
    inputs[name] = new / name
    (place / "link").symlink_to(new)
    settings = PreprocessSettings(mask=inputs["mask.mp4"])
    for folder in (new, place / "link", place / "guides" / ".." / "new"):
        making = jobs.preprocess("replacement", inputs["hero.png"], inputs["dance.mp4"], folder, settings, 2**14)
        refused(lambda: list(making), place, f"{name} in it is an input", "guides")  # noqa: B023


def test_a_strangers_file_in_the_kept_guides_is_named(
    animator: Animator, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "_look", lambda *_: pytest.fail("the clip was read"))
    (place / "guides" / "holiday.mp4").write_bytes(b"mine")
    job = Job.of(image=place / "hero.png", video=place / "dance.mp4", out=place / "a.mp4", keep_guides=place / "guides")
    refused(lambda: list(animator.run(job)), place, r"holiday\.mp4 in it", "keep_guides")


def test_a_folder_for_guides_is_held(animator: Animator, place: Path) -> None:
    making = jobs.preprocess(
        "animation", place / "hero.png", place / "dance.mp4", place / "new", PreprocessSettings(), 2**14
    )
    with locks.NameLock(place / "new"):
        refused(lambda: list(making), place, "another job", "guides")
        job = Job.of(
            image=place / "hero.png", video=place / "dance.mp4", out=place / "a.mp4", keep_guides=place / "new"
        )
        refused(lambda: list(animator.run(job)), place, "another job", "keep_guides")


@pytest.mark.parametrize("name", ["dance.png", "hero.png"])
def test_the_picture_of_the_people_takes_no_strangers_place(
    place: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "open_detector", lambda *_: pytest.fail("the detector was loaded"))
    clip = probe(place / "dance.mp4", None)
    (place / "dance.png").hardlink_to(place / "dance.mp4")
    input_too = name == "dance.png"
    refused(
        lambda: write_people(clip, PreprocessSettings(), place / name),
        place,
        "input" if input_too else "nothing proves",
    )
    if input_too:
        refused(lambda: write_people(clip, PreprocessSettings(), place / name, True), place, "input")
    else:
        monkeypatch.setattr(candidates, "_written", lambda *_: "looked")
        assert cast(Any, write_people(clip, PreprocessSettings(), place / name, True)) == "looked"


def test_list_people_says_what_allows_it(place: Path) -> None:
    clip = make_clip(place / "long.mp4")
    words = ["preprocess", "--list-people", "--video", str(clip), "--out", str(place / "hero.png")]
    done = CliRunner().invoke(app, words, env={"COLUMNS": "500"})
    assert done.exit_code == 2
    assert "--overwrite" in done.stderr


def test_several_results_are_refused_before_the_first_is_made(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wanimate.cli.animate.run", lambda *_: pytest.fail("a job began"))
    shutil.copytree(place / "guides", place / "second")
    (place / "week").mkdir()
    (place / "week" / "second.mp4").write_bytes(b"holiday")
    words = ["generate", place / "guides", place / "second", "--out", place / "week"]
    done = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "500"})
    assert done.exit_code == 2
    assert "second.mp4: a file of this name is there already" in done.stderr
    assert os.listdir(place / "week") == ["second.mp4"]


def test_a_folder_without_locks_is_told_once(animator: Animator, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(locks.fcntl, "flock", flock)
    before = set(os.listdir(place))
    events = list(animator.generate(place / "guides", place / "a.mp4", ONE))
    assert len([e for e in events if isinstance(e, Notice) and "knows no locks" in e.message]) == 1
    assert set(os.listdir(place)) - before == {"a.mp4", "a.json"}


def test_a_result_is_ours_again_and_its_hash_is_told(animator: Animator, place: Path) -> None:
    output = OutputSettings(sheet=True)
    for seed in (1, 2):
        last = list(animator.generate(place / "guides", place / "a.mp4", GenerateSettings(steps=1, seed=seed), output))[
            -1
        ]
    record = cast(Any, last).result.manifest
    assert record["result"]["sha256"] == file_hash(place / "a.mp4")
    assert record["sheet"]["sha256"] == file_hash(place / "a.sheet.png")


def odd(name: str, byte: int = 0xFF) -> str:
    return os.fsdecode(os.fsencode(name) + bytes([byte]))


def test_names_that_are_not_utf8(checkpoint: Path, place: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """Guides, checkpoint and result, to the last line of --json and the record."""
    (place / "guides").rename(place / odd("guides"))
    shutil.copytree(checkpoint, place / odd("tiny"))
    out = place / f"{odd('a')}.mp4"
    words = [
        "generate",
        place / odd("guides"),
        "--out",
        out,
        "--checkpoint",
        place / odd("tiny"),
        "--steps",
        "1",
        "--sheet",
    ]
    for more in ([], ["--json"]):
        with pytest.raises(SystemExit) as ended:
            app([str(word) for word in words] + more)
        assert ended.value.code == 0
        said = capfdbinary.readouterr().out
    lines = [json.loads(line) for line in said.decode("utf-8").splitlines()]
    assert (lines[-1]["event"], lines[-1]["out"]) == ("result", str(out))
    record = json.loads((place / f"{odd('a')}.json").read_text("utf-8"))
    assert record["out"] == out.name
    assert record["inputs"]["guides"]["path"] == str(place / odd("guides"))


def train(place: Path, out: str = "light.safetensors", work: str = "work", data: str = "clips") -> Any:
    """A training that must not come to reading weights."""
    none = cast(Any, None)
    job = own.OwnTraining(place / data, place / out, place / work, none, none, none, none)
    return list(own.train_own(job))


@pytest.fixture
def clips(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (place / "clips").mkdir()
    shutil.move(place / "dance.mp4", place / "clips")

    def read(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(own, "load_checkpoint", read)
    return place


def test_a_training_that_could_not_be_written_is_refused(clips: Path) -> None:
    (clips / "file").write_bytes(b"1")
    (clips / "taken.safetensors").symlink_to(clips / "nowhere")
    (clips / "mine").mkdir()
    (clips / "mine" / "loss.png").write_bytes(b"a picture of mine")
    (clips / "plan").mkdir()
    (clips / "plan" / "training.json").write_text('{"monday": "ten miles"}')
    for out, work, field, said in (
        ("file/a.safetensors", "work", "out", "not a folder"),
        ("n" * 240 + ".safetensors", "work", "out", "the name is too long"),
        ("taken.safetensors", "work", "out", "it exists already"),
        ("a.safetensors", "file", "work", "this is not a folder"),
        ("a.safetensors", "file/work", "work", "not a folder"),
        ("a.safetensors", "n" * 250, "work", "the name is too long"),
        ("a.safetensors", "mine", "work", r"loss\.png in it would be written over"),
        ("a.safetensors", "plan", "work", r"training\.json in it would be written over"),
    ):
        refused(lambda: train(clips, out, work), clips, said, field)  # noqa: B023
    with locks.NameLock(clips / "light.safetensors"):
        refused(lambda: train(clips), clips, "another job")
    with locks.NameLock(clips / "work"):
        refused(lambda: train(clips), clips, "another job", "work")


def test_a_training_that_fails_at_once_leaves_nothing(clips: Path) -> None:
    before = contents(clips)
    with pytest.raises(ZeroDivisionError):
        train(clips, work="new/work")
    assert contents(clips) == before
    assert not (clips / "new").exists()


def test_early_refusals_of_a_job(animator: Animator, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is decoded or loaded for a result that could not be written."""
    monkeypatch.setattr(jobs, "_look", lambda *_: pytest.fail("the clip was read"))
    (place / "file").write_bytes(b"1")
    (place / "holiday.mp4").write_bytes(b"mine")
    (place / "b.sheet.png").write_bytes(b"mine")
    (place / "c.mp4").mkdir()

    def ask(out: str, guides: str | None = None, **output: Any) -> Callable[[], Sequence[Any]]:
        keep = None if guides is None else place / guides
        job = Job.of(image=place / "hero.png", video=place / "dance.mp4", out=place / out, keep_guides=keep, **output)
        return lambda: list(animator.run(job))

    refused(ask("file/a.mp4"), place, "not a folder")
    refused(ask("n" * 246 + ".mp4"), place, "the name is too long")
    refused(ask("holiday.mp4"), place, "nothing proves")
    refused(ask("b.mp4", sheet=True), place, r"b\.sheet\.png: a file of this name")
    refused(ask("c.mp4", overwrite=True), place, "this is a folder")
    refused(ask("a.mp4", "n" * 250), place, "the name is too long", "keep_guides")
    refused(ask("a.mp4", "file"), place, "the name is taken", "keep_guides")
    refused(ask("a.mp4", "file/guides"), place, "not a folder", "keep_guides")
    assert animator.engine.state is not State.RUNNING


@pytest.mark.parametrize("name", ["manifest.json", "keypoints.npz"])
def test_published_guides_take_no_strangers_place(place: Path, name: str) -> None:
    """Names that other programs use, too."""
    none = cast(Any, None)
    (place / "set").mkdir()
    (place / "set" / name).write_bytes(b"mine")
    settings = PreprocessSettings(area=2**14)
    making = write_published_guides("animation", none, none, settings, place / "set", none, (), {})
    refused(lambda: list(making), place, "not ours to replace", "guides")


def test_published_guides_are_not_written_over_an_input(place: Path) -> None:
    none = cast(Any, None)
    (place / "set").mkdir()
    (place / "set" / "src_pose.mp4").hardlink_to(place / "dance.mp4")
    inputs = (place / "dance.mp4", place / "hero.png")
    settings = PreprocessSettings(area=2**14)
    making = write_published_guides("animation", none, none, settings, place / "set", none, inputs, {})
    refused(lambda: list(making), place, "an input of the job", "guides")


def test_a_lora_that_comes_while_another_is_trained_is_not_lost(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hours later, the name is taken: the trained one is kept beside it."""
    out = clips / "light.safetensors"

    def trained(*_: object) -> Any:
        out.write_bytes(b"mine")
        yield 1

    def prepared(*_: object) -> Any:
        yield from ()
        return [clips / "window.safetensors"]

    torch_like = SimpleNamespace(device="cpu", vae=None, image=None, face_size=8, transformer=None)
    prompts = SimpleNamespace(encode=lambda *_, **__: torch.zeros(1, 4))
    config = SimpleNamespace(name="tiny", defaults=SimpleNamespace(shift=1.0))
    base = SimpleNamespace(**vars(torch_like), prompts=prompts, config=config)
    monkeypatch.setattr(own, "load_checkpoint", lambda *_: base)
    for name, stub in (
        ("named", lambda _: "tiny"), ("prepare", prepared), ("attach", lambda *_: {}), ("train_adapters", trained),
        ("write_sample", lambda *_: None), ("adapter_state", lambda _: {"a": torch.ones(1)}),
    ):  # fmt: skip
        monkeypatch.setattr(own, name, stub)
    none = cast(Any, None)
    settings = AdapterSettings(1, 1.0, ("q",))
    job = own.OwnTraining(clips / "clips", out, clips / "work", none, none, settings, LoraTraining(steps=1))
    with pytest.raises(OutputError, match=r"somebody has written it meanwhile.*kept as .*light\.kept-\w+\.safetensors"):
        list(own.train_own(job))
    assert out.read_bytes() == b"mine"
    (kept,) = clips.glob("light.kept-*.safetensors")
    assert load_file(kept)["a"].tolist() == [1.0]
