"""The ComfyUI nodes against a stand-in for ComfyUI: inputs, progress, interrupts, files, warm checkpoints."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
import torch
from comfy_stub import PACK, Comfy, Interrupted

sys.path.insert(0, str(Path(__file__).parents[1] / "media"))
sys.path.insert(0, str(Path(__file__).parents[1] / "weights"))
from make_clips import make_clip
from tiny_checkpoints import own_checkpoint, write_guides

import wanimate
from wanimate.config import GenerateSettings, Job, OutputSettings
from wanimate.errors import InputError, setting
from wanimate.events import Event, Finished, Notice, Picture, Stage, StageStarted, StepDone
from wanimate.finish.lock import record_path
from wanimate.media.image import load_image
from wanimate.media.probe import probe
from wanimate.media.video import VideoFrames, iter_indices
from wanimate.media.writer import LosslessWriter
from wanimate.types import Result

DEMO = Path(wanimate.__file__).parent / "weights" / "embedded" / "demo"
IMAGE = torch.linspace(0, 1, 40 * 48 * 3).reshape(1, 40, 48, 3)
NEEDED = {"image": IMAGE, "video_path": "dance.mp4", "checkpoint": "", "seed": 7, "codec": "ffv1"}


class FakeAnimator:
    """Does every job in four steps; what it was asked is kept."""

    made: list[FakeAnimator]
    fails: Exception | None

    def __init__(self, checkpoint: str | None, runtime: Any) -> None:
        self.checkpoint, self.runtime, self.open, self.ended = checkpoint, runtime, True, False
        self.asked: list[Any] = []
        self.read: list[Any] = []
        type(self).made.append(self)

    def run(self, job: Job) -> Iterator[Event]:
        self.asked.append(job)
        self.read.append((load_image(job.image), probe(job.video, None) if job.video.exists() else None))
        yield from self._events(job.out)

    def generate(self, guides: Any, out: Path, generate: GenerateSettings, output: OutputSettings) -> Iterator[Event]:
        self.asked.append((guides, generate, output))
        yield from self._events(out)

    def close(self) -> None:
        self.open = False

    def _events(self, out: Path) -> Iterator[Event]:
        if self.fails is not None:
            raise self.fails
        half = out.with_name("half-written")
        half.write_text("")
        try:
            yield Notice("seed 7 was drawn")
            yield StageStarted(Stage.DENOISE, 4, fraction=0.1)
            for step in range(4):
                pixels = np.full((6, 8, 3), 60 * step, np.uint8)
                yield StepDone(0, 1, step + 1, 4, preview=Picture(pixels), fraction=0.2 + 0.2 * step)
            with LosslessWriter(out, Fraction(8), 16, 16) as writer:
                for i in range(3):
                    writer.write(np.full((16, 16, 3), 100 * i, np.uint8))
            record_path(out).write_text(json.dumps({"out": out.name}))
        finally:
            half.unlink()
            self.ended = True
        yield Finished(Result(out, 3, (16, 16), Fraction(8), 7), fraction=1.0)


@pytest.fixture
def comfy(tmp_path: Path) -> Comfy:
    return Comfy(tmp_path / "output")


@pytest.fixture
def pack(comfy: Comfy, monkeypatch: pytest.MonkeyPatch) -> Any:
    return comfy.install(monkeypatch)


@pytest.fixture
def fake(pack: Any, monkeypatch: pytest.MonkeyPatch) -> type[FakeAnimator]:
    monkeypatch.setattr(pack.running, "Animator", FakeAnimator)
    FakeAnimator.made, FakeAnimator.fails = [], None
    return FakeAnimator


@pytest.fixture
def animate(pack: Any, fake: type[FakeAnimator]) -> Callable[..., Any]:
    """Wanimate Animate with the fake animator."""
    return lambda **given: pack.NODE_CLASS_MAPPINGS["WanimateAnimate"]().run(**(NEEDED | given))


def left(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) if folder.exists() else []


def test_the_pack_declares_what_comfyui_asks_for(pack: Any) -> None:
    assert set(pack.NODE_CLASS_MAPPINGS) == set(pack.NODE_DISPLAY_NAME_MAPPINGS)
    assert set(pack.NODE_CLASS_MAPPINGS) == {"WanimateAnimate", "WanimateReplace", "WanimateLoadGuides"}
    for node in pack.NODE_CLASS_MAPPINGS.values():
        assert callable(getattr(node(), node.FUNCTION))
        assert node.CATEGORY == "wanimate"
        assert len(node.RETURN_TYPES) == len(node.RETURN_NAMES) == len(node.OUTPUT_TOOLTIPS)
        for part in node.INPUT_TYPES().values():
            for kind, more in part.values():
                assert more["tooltip"]
                assert isinstance(kind, (str, list))
                assert isinstance(kind, str) or more["default"] in kind


def test_the_example_is_of_inputs_that_there_are(pack: Any) -> None:
    steps = json.loads((PACK / "workflows" / "animate.json").read_text())
    nodes = [step for step in steps.values() if step["class_type"] in pack.NODE_CLASS_MAPPINGS]
    assert nodes
    for step in nodes:
        declared = pack.NODE_CLASS_MAPPINGS[step["class_type"]].INPUT_TYPES()
        assert set(declared["required"]) <= set(step["inputs"]) <= {*declared["required"], *declared["optional"]}


def test_a_run_tells_its_progress_and_gives_its_frames(animate: Callable[..., Any], comfy: Comfy) -> None:
    done = animate(filename_prefix="shots/hero")
    frames, audio, fps, path = done["result"]
    assert (frames.dtype, tuple(frames.shape), audio, fps) == (torch.float32, (3, 16, 16, 3), None, 8.0)
    assert frames[:, 0, 0, 0].tolist() == pytest.approx([0, 100 / 255, 200 / 255])
    assert Path(path) == comfy.output / "shots" / "hero_00001.mkv"
    assert left(comfy.output) == ["shots", "shots/hero_00001.json", "shots/hero_00001.mkv"]
    assert json.loads((comfy.output / "shots" / "hero_00001.json").read_text())["out"] == "hero_00001.mkv"
    assert done["ui"]["images"] == [{"filename": "hero_00001.mkv", "subfolder": "shots", "type": "output"}]
    (bar,) = comfy.bars
    assert bar.values == sorted(bar.values)
    assert bar.values[0] > 0
    assert bar.values[-1] == bar.total
    assert [preview[1].size for preview in bar.previews] == [(512, 384)] * 4
    assert bar.previews[0][0] == "JPEG"
    assert bar.previews[3][1].getpixel((9, 9)) == (180, 180, 180)
    assert comfy.unloaded == 1
    assert animate(filename_prefix="shots/hero")["result"][3].endswith("hero_00002.mkv")


def test_a_quarantined_result_stays_quarantined(pack: Any, tmp_path: Path) -> None:
    made, kept = tmp_path / "made", tmp_path / "kept"
    for folder in (made, kept):
        folder.mkdir()
    for number in (1, 2):
        out = made / "x.quarantined.mkv"
        out.write_bytes(b"video")
        record_path(out).write_text(json.dumps({"out": out.name, "result": {"name": out.name, "sha256": "sha256:0"}}))
        place = pack.nodes._moved(out, kept, "hero")
        assert place == kept / f"hero_{number:05}.quarantined.mkv"
        record = json.loads(record_path(place).read_text())
        assert (record["out"], record["result"]["name"], record["result"]["sha256"]) == (
            place.name,
            place.name,
            "sha256:0",
        )
        record_path(out).unlink()


@pytest.mark.parametrize("check", range(7))
def test_an_interrupt_leaves_nothing_behind(
    animate: Callable[..., Any], fake: type[FakeAnimator], comfy: Comfy, check: int
) -> None:
    comfy.stop_after = check
    with pytest.raises(Interrupted) as error:
        animate(filename_prefix="shots/hero")
    assert fake.made[0].ended, f"the job goes on after {error}"
    assert left(comfy.output) == []
    assert animate()["result"][0].shape[0] == 3


def test_inputs_become_the_job(
    animate: Callable[..., Any], fake: type[FakeAnimator], pack: Any, tmp_path: Path
) -> None:
    clip = make_clip(tmp_path / "dance.mp4", 5, 5)
    animate(
        video_path=f" {clip} ", checkpoint="models/14B", steps=9, size=" 1280x720 ", speed="fast", person="left@1",
        loras="a.safetensors:0.5\n\nb.safetensors\n", watermark=True, any_length=True, start=1.5,
        end=4.0,
    )  # fmt: skip
    (one,) = fake.made
    (job,) = one.asked
    assert (one.checkpoint, one.runtime.speed, one.runtime.device) == ("models/14B", "fast", "cpu")
    assert (job.mode, job.video, job.preprocess.area, job.preprocess.person) == ("animation", clip, 921600, "left@1")
    assert (job.generate.steps, job.generate.seed, job.generate.relight) == (9, 7, None)
    assert [(str(use.path), use.strength) for use in job.generate.lora] == [
        ("a.safetensors", 0.5),
        ("b.safetensors", 1),
    ]
    assert (job.output.codec, job.output.watermark) == ("ffv1", True)
    assert (job.preprocess.limits.min_seconds, job.preprocess.limits.max_seconds) == (0, None)
    assert (job.preprocess.start, job.preprocess.end) == (1.5, 4)
    ((picture, _),) = one.read
    np.testing.assert_array_equal(picture, (IMAGE[0] * 255).round().to(torch.uint8).numpy())
    replace = pack.NODE_CLASS_MAPPINGS["WanimateReplace"]()
    replace.run(**NEEDED, relight="off", composite=False)
    job = fake.made[-1].asked[-1]
    assert (job.mode, job.generate.relight, job.output.composite) == ("replacement", False, False)
    assert (job.preprocess.limits.max_seconds, job.generate.steps, job.preprocess.area) == (30, None, None)
    assert (job.preprocess.start, job.preprocess.end) == (0, None)


def test_a_clip_comes_as_pictures_or_as_video(
    animate: Callable[..., Any], fake: type[FakeAnimator], tmp_path: Path
) -> None:
    clip = make_clip(tmp_path / "dance.mp4", 5, 5)
    data = io.BytesIO(clip.read_bytes())

    def save(path: str) -> None:
        Path(path).write_bytes(make_clip(tmp_path / "cut.mp4", 3, 5).read_bytes())

    at_path = SimpleNamespace(get_stream_source=lambda: str(clip))
    in_memory = SimpleNamespace(get_stream_source=lambda: data, get_active_trim_window=lambda: (0.0, 0.0))
    trimmed = SimpleNamespace(get_active_trim_window=lambda: (0.2, 0.6), save_to=save)
    edited = SimpleNamespace(has_pending_frame_edits=lambda: True, save_to=save)
    pictures = {"frames": torch.rand(4, 32, 64, 3), "fps": 29.97}
    for given in (pictures, *({"video": video} for video in (at_path, in_memory, trimmed, edited))):
        animate(**{"video_path": "", **given})
    (one,) = fake.made
    seen = [found for _, found in one.read]
    assert [found.count for found in seen] == [4, 5, 5, 3, 3]
    assert (seen[0].fps, seen[0].width, seen[0].height) == (Fraction(30000, 1001), 64, 32)
    assert one.asked[1].video == clip


def test_pictures_become_a_clip_without_loss(pack: Any, tmp_path: Path) -> None:
    frames = torch.randint(0, 256, (3, 17, 33, 3)) / 255
    path = pack.nodes.files.clip_file(frames, 12.5, tmp_path / "clip.mkv")
    torch.testing.assert_close(pack.nodes.files.images(VideoFrames(path)), frames)


def test_sound_is_handed_on(pack: Any, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "dance.mp4", 10, 5, sound="aac")
    audio = pack.nodes.files.sound(clip)
    waveform = audio["waveform"]
    assert audio["sample_rate"] == 48000
    assert (waveform.dtype, waveform.ndim, waveform.shape[:2]) == (torch.float32, 3, (1, 1))
    assert waveform.shape[2] / 48000 == pytest.approx(2, abs=0.1)
    assert 0.01 < waveform.abs().max() <= 1.1
    with av.open(str(clip)) as container:
        assert container.streams.audio[0].rate == audio["sample_rate"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"image": None}, "image = nothing: the character is needed"),
        ({"video_path": " "}, "video = nothing: the performer's clip is needed"),
        ({"frames": IMAGE}, "video_path = connected: video_path and frames are given"),
        ({"image": IMAGE.expand(3, -1, -1, -1)}, "image = IMAGE: it holds 3 pictures"),
        ({"guides": SimpleNamespace(mode="animation")}, "guides = connected: image and video_path cannot be used"),
        ({"size": "large"}, "size = large"), ({"loras": "a:b:c"}, "loras = "),
        ({"filename_prefix": "../hero"}, "filename_prefix = ../hero"), ({"filename_prefix": "/tmp/x"}, "filename_prefix = "),
        ({"filename_prefix": "hero/"}, "filename_prefix = "),
    ],
)  # fmt: skip
def test_errors_name_the_nodes_input(
    animate: Callable[..., Any], pack: Any, comfy: Comfy, given: dict[str, Any], told: str
) -> None:
    with pytest.raises(pack.running.NodeError) as error:
        animate(**given)
    assert str(error.value).startswith(told)
    assert left(comfy.output) == []


def test_errors_of_jobs_name_inputs_and_no_hidden_files(
    animate: Callable[..., Any], fake: type[FakeAnimator], pack: Any, comfy: Comfy
) -> None:
    for field, given, told in (
        (
            "video",
            {"video_path": "", "frames": torch.rand(2, 16, 16, 3)},
            "frames = the connected clip: too short. Give",
        ),
        ("image", {}, "image = the connected picture: too short. Give"),
        ("checkpoint", {}, "checkpoint = "),
    ):
        fake.fails = None

        def asked(self: FakeAnimator, job: Job, field: str = field, file: str = field) -> Iterator[Event]:
            remedy = f"Give {setting('generate.seed')} and {setting('preprocess.limits.max_seconds')}."
            raise InputError(field, getattr(job, file, "x"), "too short", remedy)
            yield

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fake, "run", asked)
            with pytest.raises(pack.running.NodeError) as error:
                animate(**given)
        assert str(error.value).startswith(told)
        assert "Give seed and any_length." in str(error.value)
        assert ".wanimate-" not in str(error.value)
    assert left(comfy.output) == []


def test_a_checkpoint_stays_warm_until_another_is_asked_for(
    animate: Callable[..., Any], fake: type[FakeAnimator]
) -> None:
    animate()
    animate(steps=3)
    assert len(fake.made) == 1
    animate(checkpoint="other")
    assert [one.open for one in fake.made] == [False, True]
    animate(checkpoint="other", speed="fast", keep_loaded=False)
    assert [one.open for one in fake.made] == [False] * 3
    animate(checkpoint="other", speed="fast")
    assert len(fake.made) == 4


def test_a_node_runs_again_when_a_file_it_names_has_changed(pack: Any, tmp_path: Path) -> None:
    node = pack.NODE_CLASS_MAPPINGS["WanimateAnimate"]
    lora = tmp_path / "a.safetensors"
    lora.write_bytes(b"1")
    given = {"loras": f"{lora}:0.5\nnot:a:lora", "video_path": None, "checkpoint": str(tmp_path), "image": None}
    before = node.IS_CHANGED(**given)
    assert node.IS_CHANGED(**given) == before
    lora.write_bytes(b"12")
    assert node.IS_CHANGED(**given) != before
    guides = pack.NODE_CLASS_MAPPINGS["WanimateLoadGuides"]
    assert guides.IS_CHANGED(folder=str(tmp_path)) != guides.IS_CHANGED(folder="none")


@torch.inference_mode()
def test_guides_are_loaded_and_animated(pack: Any, comfy: Comfy, tmp_path: Path) -> None:
    """With a real, tiny checkpoint, as ComfyUI runs nodes: in inference mode."""
    torch.set_num_threads(1)
    nodes = pack.NODE_CLASS_MAPPINGS
    load, animation = nodes["WanimateLoadGuides"]().load, write_guides(tmp_path / "guides", 9)
    guides, skeletons, faces, masks = load(folder=str(animation))
    assert (skeletons.dtype, skeletons.shape[0], skeletons.shape[3]) == (torch.float32, 9, 3)
    assert faces.shape[1] == faces.shape[2]
    assert masks.shape == skeletons.shape
    assert (masks == 1).all()
    given = {"guides": guides, "checkpoint": str(own_checkpoint(tmp_path / "tiny")), "seed": 1, "steps": 2}
    twice = [nodes["WanimateAnimate"]().run(**given, codec="ffv1")["result"] for _ in range(2)]
    assert torch.equal(twice[0][0], twice[1][0])
    assert twice[0][0].shape == skeletons.shape
    assert len(comfy.bars[0].previews) == 2
    comfy.stop_after = 6
    with pytest.raises(Interrupted):
        nodes["WanimateAnimate"]().run(**given, filename_prefix="stopped/hero")
    assert not (comfy.output / "stopped").exists()
    assert torch.equal(nodes["WanimateAnimate"]().run(**given, codec="ffv1")["result"][0], twice[0][0])
    with pytest.raises(
        pack.running.NodeError, match=r"guides = .*they are of animation. Connect them to Wanimate Animate"
    ):
        nodes["WanimateReplace"]().run(**given)
    with pytest.raises(pack.running.NodeError, match="folder = "):
        load(folder=str(tmp_path / "none"))
    scene = load(folder=str(write_guides(tmp_path / "scene", 5, replacement=True)))
    assert set(scene[3].unique().tolist()) <= {0.0, 1.0}
    pack.running.close()


@pytest.mark.slow
def test_the_packaged_checkpoint_animates_pictures(pack: Any, comfy: Comfy) -> None:
    torch.set_num_threads(1)
    clip = probe(DEMO / "performer.mp4")
    frames = torch.from_numpy(np.stack(list(iter_indices(clip, range(0, 10, 2))))) / 255
    image = torch.from_numpy(load_image(DEMO / "character-1.png"))[None] / 255
    run = pack.NODE_CLASS_MAPPINGS["WanimateAnimate"]().run
    done = run(
        image=image, frames=frames, fps=12.5, any_length=True, checkpoint="", seed=1, steps=1, size="160x160", codec="ffv1"
    )  # fmt: skip
    made, audio, fps, _ = done["result"]
    assert (tuple(made.shape), audio, fps) == ((5, 160, 160, 3), None, 12.5)
    assert 0 <= made.min() < made.max() <= 1
    assert left(comfy.output) == ["wanimate", "wanimate/video_00001.json", "wanimate/video_00001.mkv"]
    assert comfy.bars[0].values[-1] == comfy.bars[0].total
    pack.running.close()
