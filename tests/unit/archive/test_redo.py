"""A job runs again from an archive alone, after the archive was moved and everything else was removed."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "weights"))
from finished import finished, noise
from test_verify import resealed
from tiny_checkpoints import own_checkpoint, write_guides

from wanimate.api import Animator
from wanimate.archive.compare import compare
from wanimate.archive.items import item_of
from wanimate.archive.make import Choice, Title, make
from wanimate.archive.redo import Again, Archived, Redone, archived, differences, generate_settings, job_of, redo
from wanimate.config import (
    GenerateSettings,
    Job,
    LoraUse,
    MarkSettings,
    OutputSettings,
    PreprocessSettings,
    RuntimeSettings,
)
from wanimate.errors import InputError
from wanimate.events import Notice
from wanimate.finish.lock import record_path
from wanimate.finish.record import versions
from wanimate.jobs.finish import finish
from wanimate.versions import commit, version_of
from wanimate.weights.fingerprint import fingerprint
from wanimate.weights.relighting import with_relighting

SHIPPED = Path(str(files("wanimate.weights") / "embedded" / "demo"))


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return own_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture(scope="module")
def made(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a result of three segments, its guides beside it, and a redraw of its second segment."""
    folder = tmp_path_factory.mktemp("made")
    guides = write_guides(folder / "guides", 14)
    with Animator(checkpoint, RuntimeSettings(device="cpu")) as animator:
        for settings, codec in ((GenerateSettings(seed=3), "ffv1"), (GenerateSettings(seed=3), "png")):
            out = folder / ("hero.mkv" if codec == "ffv1" else "pictures")
            for _ in animator.generate(guides, out, settings, OutputSettings(codec=codec)):  # type: ignore[arg-type]
                pass
        for name in ("hero.mkv", "hero.json"):
            shutil.copy(folder / name, folder / name.replace("hero", "redrawn"))
        told = json.loads((folder / "redrawn.json").read_text())
        told |= {"out": "redrawn.mkv"}
        (folder / "redrawn.json").write_text(json.dumps(told))
        settings = GenerateSettings(seed=9, redraw=2)
        for _ in animator.generate(guides, folder / "redrawn.mkv", settings, OutputSettings(codec="ffv1")):
            pass
    return folder


def bag_of(result: Path, out: Path, **choice: Any) -> Path:
    return make([item_of(result)], out, Title(result.name, "result", "Ann Lee"), Choice(**choice)).out


def done(bag: Path, out: Path, **again: Any) -> tuple[Redone, list[str]]:
    events, said = redo(bag, out, Again(**again)), []
    while True:
        try:
            event = next(events)
        except StopIteration as end:
            return end.value, said
        if isinstance(event, Notice):
            said.append(event.message)


@pytest.mark.parametrize("name", ["hero.mkv", "redrawn.mkv", "pictures"])
def test_from_the_guides(made: Path, checkpoint: Path, tmp_path: Path, name: str) -> None:
    if name == "redrawn.mkv":
        assert not compare(made / "hero.mkv", made / name).same, "the redraw has changed frames"
    shutil.copytree(made, tmp_path / "work")
    record = record_path(tmp_path / "work" / name)
    record.write_text(record.read_text().replace(str(made), str(tmp_path / "work")))
    bag_of(tmp_path / "work" / name, tmp_path / "bag").rename(tmp_path / "moved")
    shutil.rmtree(tmp_path / "work")
    before = {path: path.read_bytes() for path in (tmp_path / "moved").rglob("*") if path.is_file()}
    redone, said = done(tmp_path / "moved", tmp_path / f"again{Path(name).suffix}", checkpoint=checkpoint)
    assert (redone.way, redone.comparison.same, redone.comparison.frames) == ("guides", True, 14)
    assert redone.comparison.same_file == (name == "pictures"), "Matroska files have an id of their own"
    assert not [text for text in said if text.startswith("not as it was")]
    assert json.loads(record_path(redone.result.out).read_text())["out"] == redone.result.out.name
    assert {path: path.read_bytes() for path in before} == before
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("name", ["hero.mkv", "redrawn.mkv"])
def test_what_is_held_is_made_again_under_a_quarantined_name(
    made: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "policy.toml").write_text('held = ["animation", "replacement"]')
    monkeypatch.setenv("WANIMATE_POLICY", str(tmp_path / "policy.toml"))
    bag = bag_of(made / name, tmp_path / "bag")
    redone, _ = done(bag, tmp_path / "again.mkv", checkpoint=checkpoint)
    assert (redone.result.out, redone.comparison.same) == (tmp_path / "again.quarantined.mkv", True)
    assert {path.name for path in tmp_path.glob("again*")} == {"again.quarantined.mkv", "again.quarantined.json"}
    assert json.loads(record_path(redone.result.out).read_text())["out"] == redone.result.out.name


def test_a_final_gets_its_marks_again(made: Path, checkpoint: Path, tmp_path: Path) -> None:
    out, marks = tmp_path / "work" / "hero.mkv", MarkSettings(label="plain", sign=False)
    with Animator(checkpoint, RuntimeSettings(device="cpu")) as animator:
        output = OutputSettings(codec="ffv1", final=True)
        for _ in animator.generate(made / "guides", out, GenerateSettings(seed=3), output, marks=marks):
            pass
    assert not compare(made / "hero.mkv", out).same, "marks change frames"
    bag = bag_of(out, tmp_path / "bag")
    shutil.rmtree(tmp_path / "work")
    redone, said = done(bag, tmp_path / "again.mkv", checkpoint=checkpoint)
    assert redone.comparison.same
    assert not [text for text in said if "differ" in text]
    first, second = (
        json.loads(path.read_text())["marks"] for path in (*bag.rglob("hero.json"), tmp_path / "again.json")
    )
    assert (first["id"], first["payload"]) == (second["id"], second["payload"])


def test_an_archive_is_named_from_the_folder_where_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bag_of(finished(tmp_path / "work"), tmp_path / "bag")
    monkeypatch.chdir(tmp_path)
    assert archived(Path("bag")).inputs["video"] == tmp_path / "bag" / "data" / "inputs" / "dance.mp4"


def test_another_checkpoint_is_refused(made: Path, tmp_path: Path) -> None:
    bag = bag_of(made / "hero.mkv", tmp_path / "bag")
    with pytest.raises(
        InputError, match=r"checkpoint = mannequin: it is not the checkpoint of the job \(.*\): \d+ files differ"
    ):
        done(bag, tmp_path / "again.mkv")
    assert not (tmp_path / "again.mkv").exists()


def test_what_is_refused_before_any_work(made: Path, tmp_path: Path) -> None:
    bag = bag_of(made / "hero.mkv", tmp_path / "bag")
    with pytest.raises(InputError, match="it does not have both clip and picture"):
        done(bag, tmp_path / "again.mkv", from_inputs=True)
    with pytest.raises(InputError, match="it lies in the archive"):
        done(bag, bag / "again.mkv")
    with pytest.raises(InputError, match="no such result; it has hero"):
        done(bag, tmp_path / "again.mkv", result="villain")
    pose = bag / "data" / "guides" / "guides" / "pose.mkv"
    pose.write_bytes(pose.read_bytes()[:-1] + b"?")
    with pytest.raises(InputError, match=r"it is not whole: data/guides/guides/pose\.mkv"):
        done(bag, tmp_path / "again.mkv")


def test_one_of_several(made: Path, tmp_path: Path) -> None:
    items = [item_of(made / name) for name in ("hero.mkv", "redrawn.mkv")]
    bag = make(items, tmp_path / "bag", Title("both", "folder", "Ann")).out
    with pytest.raises(InputError, match="has 2 results: hero, redrawn"):
        archived(bag)
    found = archived(bag, "redrawn")
    assert found.result == bag / "data/results/redrawn/redrawn.mkv"
    assert found.guides == archived(bag, "hero").guides


def test_what_differs_is_told() -> None:
    now = {"wanimate": version_of("wanimate"), "commit": commit(), "versions": versions()}
    assert differences(now, "cpu", "cpu") == []
    other = now | {"wanimate": "0.0.9", "versions": versions() | {"torch": "1.0"}}
    told = differences(other, "cuda:0", "cpu")
    assert told[0] == f"not as it was: wanimate was 0.0.9 and is {version_of('wanimate') or 'not there'}"
    assert any("torch was 1.0 and is" in text for text in told)
    assert told[-1] == "not as it was: the job ran on cuda:0 and runs on cpu: frames differ by rounding at least"


def test_of_a_master(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "work" / "final.mp4"
    for _ in finish(made / "hero.mkv", out, OutputSettings()):
        pass
    bag = bag_of(out, tmp_path / "bag")
    shutil.rmtree(out.parent)
    redone, _ = done(bag, tmp_path / "again.mp4", device="cpu")
    assert (redone.way, redone.comparison.same) == ("master", True)


def test_frames_that_differ_are_counted(made: Path, tmp_path: Path) -> None:
    found = compare(made / "hero.mkv", made / "redrawn.mkv")
    assert 0 < found.differing < 14
    assert found.first is not None
    assert found.first > 0
    assert "frames differ, from frame" in found.words
    noise(tmp_path / "a.mkv")
    with pytest.raises(InputError, match="it cannot be decoded"):
        compare(tmp_path / "a.mkv", made / "hero.mkv")


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("archive.json", lambda t: t["results"][0].update(record="../../work/hero.json"), "which is not in it"),
        ("archive.json", lambda t: t["results"][0].update(result="/etc/passwd"), "which is not in it"),
        ("archive.json", lambda t: t["results"][0].pop("inputs"), r"cannot be used \(results\.0\.inputs: Field required"),
        ("archive.json", lambda t: t.update(results={}), "results: Input should be a valid list"),
        ("archive.json", lambda t: t.update(format="other"), "it is no archive of this program"),
        ("results/hero/hero.json", lambda t: t.pop("output"), r"hero\.json cannot be used \(output: Field required"),
        ("results/hero/hero.json", lambda t: t.update(redraws={"x": {"seed": 1}}), "redraws"),
        ("results/hero/hero.json", lambda t: t.update(lora=[3]), r"lora\.0"),
    ],
)  # fmt: skip
def test_bags_of_somebody_else(tmp_path: Path, file: str, change: Any, said: str) -> None:
    bag = bag_of(finished(tmp_path / "work"), tmp_path / "bag")
    told = json.loads((bag / "data" / file).read_text())
    change(told)
    resealed(bag, f"data/{file}", json.dumps(told).encode())
    with pytest.raises(InputError, match=said):
        archived(bag)


def test_settings_that_are_none(tmp_path: Path) -> None:
    found = from_record(tmp_path, settings={"steps": "many"})
    with pytest.raises(InputError):
        generate_settings(found, Again(), tmp_path)
    use = LoraUse(path=Path("a.safetensors"))
    other = from_record(tmp_path, settings=GenerateSettings(lora=(use,)).model_dump(mode="json"))
    with pytest.raises(InputError, match="tell of other LoRAs"):
        generate_settings(other, Again(), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["animation", "replacement"])
def test_mannequin(mode: Any, tmp_path: Path) -> None:
    """From the guides, and from clip and picture: the same file on the same machine."""
    work = tmp_path / "work"
    work.mkdir()
    image = shutil.copy(SHIPPED / "character-2.png", work)
    video = shutil.copy(SHIPPED / "performer.mp4", work)
    job = Job.of(
        image,
        video,
        work / "hero.mp4",
        mode=mode,
        fps=4,
        end=2.0,
        area=128 * 128,
        steps=2,
        seed=3,
        keep_guides=work / "guides",
    )
    with Animator(None, RuntimeSettings(device="cpu")) as animator:
        for _ in animator.run(job):
            pass
    bag_of(work / "hero.mp4", tmp_path / "bag").rename(tmp_path / "moved")
    shutil.rmtree(work)
    for from_inputs in (False, True):
        redone, _ = done(tmp_path / "moved", tmp_path / f"again-{from_inputs}.mp4", from_inputs=from_inputs)
        assert redone.way == ("inputs" if from_inputs else "guides")
        assert redone.comparison.same_file


def from_record(folder: Path, **record: Any) -> Archived:
    told = {"mode": "replacement", "settings": GenerateSettings(seed=1).model_dump(mode="json"), "lora": []} | record
    return Archived("hero", told, folder / "hero.json", folder / "hero.mp4", None, {}, (), None)


def test_loras_come_from_the_archive_or_by_their_hash(tmp_path: Path) -> None:
    packed, own = noise(tmp_path / "bag" / "style.safetensors"), noise(tmp_path / "own.safetensors", 777)
    uses = [LoraUse(path=Path("/gone/style.safetensors"), strength=0.5), LoraUse(path=Path("/gone/own.safetensors"))]
    record = {
        "settings": GenerateSettings(seed=1, lora=uses).model_dump(mode="json"),
        "lora": [{"path": str(use.path), "sha256": fingerprint(file)} for use, file in zip(uses, (packed, own), strict=True)],
    }  # fmt: skip
    found = replace(from_record(tmp_path, **record), loras=(packed, None))
    chosen = generate_settings(found, Again(loras=(own,)), tmp_path)
    assert [(use.path, use.strength) for use in chosen.lora] == [(packed, 0.5), (own, 1.0)]
    assert chosen.relight is False, "all LoRAs of the job are among these"
    with pytest.raises(
        InputError, match=r"its LoRA own\.safetensors is not in the archive .* Name the file with loras"
    ):
        generate_settings(found, Again(), tmp_path)


def test_the_relighting_lora_of_the_checkpoint(tmp_path: Path) -> None:
    """It is taken from the checkpoint, so that it is not added a second time."""
    own = noise(tmp_path / "checkpoint" / "relighting_lora.safetensors")
    (tmp_path / "bag").mkdir()
    packed = shutil.copy(own, tmp_path / "bag")
    use = LoraUse(path=Path("/gone/relighting_lora.safetensors"), strength=0.7)
    record = {
        "settings": GenerateSettings(seed=1, lora=(use,)).model_dump(mode="json"),
        "lora": [{"path": str(use.path), "sha256": fingerprint(own)}],
    }
    found = replace(from_record(tmp_path, **record), loras=(Path(packed),))
    chosen = generate_settings(found, Again(), tmp_path / "checkpoint")
    assert [one.path for one in chosen.lora] == [own]
    again, _ = with_relighting(chosen, "replacement", tmp_path / "checkpoint")
    assert again.lora == chosen.lora


def test_what_the_inputs_need(tmp_path: Path) -> None:
    """A hand-made mask, and what has found the performer."""
    given = {"image": noise(tmp_path / "i.png"), "video": noise(tmp_path / "c.mp4")}
    told = PreprocessSettings(mask=Path("/gone/mask.mov"), fps=4).model_dump(mode="json")
    found = replace(from_record(tmp_path, preprocess=told), inputs=given)
    generate, output = GenerateSettings(seed=1), OutputSettings()
    with pytest.raises(InputError, match="its hand-made mask is not in the archive"):
        job_of(found, tmp_path / "a.mp4", generate, output)
    mask = noise(tmp_path / "bag" / "mask.mov")
    job = job_of(replace(found, inputs=given | {"mask": mask}), tmp_path / "a.mp4", generate, output)
    assert (job.preprocess.mask, job.preprocess.fps, job.mode) == (mask, 4, "replacement")
    other = PreprocessSettings(sam2=tmp_path / "gone.pt").model_dump(mode="json")
    with pytest.raises(InputError, match="with which its performer was found, is not on this machine"):
        job_of(replace(from_record(tmp_path, preprocess=other), inputs=given), tmp_path / "a.mp4", generate, output)
