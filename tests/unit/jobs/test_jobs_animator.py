"""The Animator on a tiny random checkpoint: exact seeds, every length, events, records, cancelling."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import detgen
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tiny_checkpoints import DEFAULTS, FPS, Shape, write_guides

from wanimate.api import Animator
from wanimate.config import GenerateSettings, Job, OutputSettings, RuntimeSettings
from wanimate.engines import resolved as order
from wanimate.errors import CheckpointError, InputError, OutputError
from wanimate.events import Event, Finished, Notice, Stage, StageFinished, StageProgress, StageStarted, StepDone
from wanimate.media.video import ArrayFrames, VideoFrames
from wanimate.model.transformer import AnimateTransformer
from wanimate.preprocess.guides import load_guides
from wanimate.types import Frames
from wanimate.weights import lora_view as twins
from wanimate.weights.lora import read_lora
from wanimate.weights.lora_view import with_loras

LOSSLESS = OutputSettings(codec="ffv1")
MakeGuides = Callable[..., Path]


def settings(**more: object) -> GenerateSettings:
    return GenerateSettings.model_validate({"steps": 1, "seed": 7} | more)


def frames_of(animator: Animator, guides: Path, out: Path, **more: object) -> Frames:
    list(animator.generate(guides, out, settings(**more), LOSSLESS))
    video = VideoFrames(out)
    return video.take(range(video.count))


def test_the_same_seed_gives_identical_frames(animator: Animator, guides: MakeGuides, tmp_path: Path) -> None:
    first = frames_of(animator, guides(11), tmp_path / "a.mkv")
    again = frames_of(animator, guides(11), tmp_path / "b.mkv")
    other = frames_of(animator, guides(11), tmp_path / "c.mkv", seed=8)
    assert (first == again).all()
    assert [bool((a != b).any()) for a, b in zip(first, other, strict=True)] == [True] * 11


@pytest.mark.parametrize("has", [False, True])
def test_fast_on_a_processor(
    checkpoint: Path, guides: MakeGuides, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has: bool
) -> None:
    """Smaller products where the processor has them; otherwise the job says that nothing changed."""
    for module in ("engines.wan_animate", "runtime.planning.sizes", "runtime.processor"):
        monkeypatch.setattr(f"wanimate.{module}.has_bf16", lambda device: has)
    fast = Animator.from_checkpoint(checkpoint, "cpu", RuntimeSettings(speed="fast"))
    events = list(fast.generate(guides(5), tmp_path / "out.mkv", settings(), LOSSLESS))
    said = any(isinstance(event, Notice) and "speed fast" in event.message for event in events)
    wanted = torch.bfloat16 if has else torch.float32
    assert (said, fast.checkpoint.vae.dtype, fast.checkpoint.transformer.dtype) == (not has, wanted, wanted)


def test_two_animators_in_one_process(checkpoint: Path, guides: MakeGuides, tmp_path: Path) -> None:
    """Jobs that advance by turns do not disturb each other."""
    jobs = [Animator.from_checkpoint(checkpoint, "cpu") for _ in range(2)]
    alone = [frames_of(a, guides(11), tmp_path / f"alone{i}.mkv", seed=i) for i, a in enumerate(jobs)]
    runs = [a.generate(guides(11), tmp_path / f"turn{i}.mkv", settings(seed=i), LOSSLESS) for i, a in enumerate(jobs)]
    for _ in zip(*runs, strict=True):
        pass
    for i, expected in enumerate(alone):
        assert (VideoFrames(tmp_path / f"turn{i}.mkv").take(range(11)) == expected).all()


@pytest.mark.parametrize("count", range(1, 14))
def test_every_length(animator: Animator, guides: MakeGuides, tmp_path: Path, count: int) -> None:
    frames = frames_of(animator, guides(count), tmp_path / "out.mkv")
    assert frames.shape == (count, 16, 32, 3)
    record = json.loads((tmp_path / "out.json").read_text())
    assert Fraction(record["fps"]) == FPS
    assert len(record["segments"]) == (1 if count <= 9 else 2)


@pytest.mark.parametrize("clip_length", [5, 9, 13])
@pytest.mark.parametrize("overlap", [1, 5])
@pytest.mark.parametrize("compat", [False, True])
def test_segments(
    animator: Animator, guides: MakeGuides, tmp_path: Path, clip_length: int, overlap: int, compat: bool
) -> None:
    more = {"clip_length": clip_length, "overlap": overlap, "compat": compat}
    if clip_length <= overlap:
        with pytest.raises(InputError, match=r"clip_length = 5: .*longer than the overlap of 5"):
            frames_of(animator, guides(11), tmp_path / "out.mkv", **more)
        return
    assert frames_of(animator, guides(11), tmp_path / "out.mkv", **more).shape == (11, 16, 32, 3)
    segments = json.loads((tmp_path / "out.json").read_text())["segments"]
    assert segments[0][2] == 0
    assert all(s[2] == overlap for s in segments[1:])
    if compat:
        assert all(s[1] == clip_length for s in segments)


def test_the_first_segment_does_not_depend_on_what_follows(
    animator: Animator, guides: MakeGuides, tmp_path: Path
) -> None:
    """The overlap changes where the second segment starts, so only frames after the first segment may differ."""
    whole = frames_of(animator, guides(13), tmp_path / "a.mkv", clip_length=9, overlap=1)
    again = frames_of(animator, guides(13), tmp_path / "b.mkv", clip_length=9, overlap=5)
    assert (whole[:9] == again[:9]).all()
    assert (whole[9:] != again[9:]).any()


@pytest.mark.parametrize("solver", ["dpm++", "unipc", "euler"])
def test_solvers_and_steps(animator: Animator, guides: MakeGuides, tmp_path: Path, solver: str) -> None:
    one = frames_of(animator, guides(5), tmp_path / "a.mkv", solver=solver)
    three = frames_of(animator, guides(5), tmp_path / "b.mkv", solver=solver, steps=3)
    assert (one != three).any()


@pytest.mark.parametrize(
    ("kind", "skipped"), [("taylor", [1, 1]), ("early-taylor", [4, 4]), ("first-block", [5, 5]), ("magnitude", [4, 4])]
)
def test_step_caches(animator: Animator, guides: MakeGuides, tmp_path: Path, kind: str, skipped: list[int]) -> None:
    """Eight steps with a gate that lets everything through: the user is told, and the record says how many."""
    events = list(
        animator.generate(guides(11), tmp_path / "a.mkv", settings(steps=8, cache=kind, cache_gate=1e9), LOSSLESS)
    )
    said = f"step cache {kind} (gate 1e+09): {sum(skipped)} of 16 steps were skipped"
    assert said in [event.message for event in events if isinstance(event, Notice)]
    record = json.loads((tmp_path / "a.json").read_text())
    assert record["cache"] == {"kind": kind, "gate": 1e9, "skipped": skipped}
    last = {event.segment: event.skipped for event in events if isinstance(event, StepDone)}
    assert list(last.values()) == skipped


@pytest.mark.parametrize(
    "kind", ["taylor", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("first-block", "magnitude"))]
)
def test_a_cache_that_skips_nothing_gives_the_same_frames(
    animator: Animator, guides: MakeGuides, tmp_path: Path, kind: str
) -> None:
    without = frames_of(animator, guides(11), tmp_path / "a.mkv", steps=8)
    assert json.loads((tmp_path / "a.json").read_text())["cache"] is None
    assert (frames_of(animator, guides(11), tmp_path / "b.mkv", steps=8, cache=kind, cache_gate=1e-30) == without).all()
    few = frames_of(animator, guides(11), tmp_path / "c.mkv", steps=2, cache=kind, cache_gate=1e9)
    assert (few == frames_of(animator, guides(11), tmp_path / "d.mkv", steps=2)).all()


def test_a_gate_needs_a_cache(animator: Animator, guides: MakeGuides, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cache_gate.*no cache"):
        frames_of(animator, guides(11), tmp_path / "a.mkv", cache_gate=0.1)


def test_guidance(animator: Animator, guides: MakeGuides, tmp_path: Path) -> None:
    plain = frames_of(animator, guides(5), tmp_path / "a.mkv", steps=2)
    guided = frames_of(animator, guides(5), tmp_path / "b.mkv", steps=2, guidance=3.0)
    assert (plain != guided).any()


def test_a_checkpoint_has_its_own_guidance(
    checkpoint: Path, animator: Animator, guides: MakeGuides, tmp_path: Path
) -> None:
    """What is asked for goes before it; the plan and the seconds count both branches."""
    folder = tmp_path / "guided"
    shutil.copytree(checkpoint, folder)
    card = json.loads((folder / "wanimate.json").read_text())
    card["defaults"]["guidance"] = 3.0
    (folder / "wanimate.json").write_text(json.dumps(card))
    own = Animator.from_checkpoint(folder, "cpu")
    found = frames_of(own, guides(5), tmp_path / "a.mkv", steps=2)
    np.testing.assert_array_equal(found, frames_of(animator, guides(5), tmp_path / "b.mkv", steps=2, guidance=3.0))
    plain = frames_of(own, guides(5), tmp_path / "c.mkv", steps=2, guidance=1.0)
    np.testing.assert_array_equal(plain, frames_of(animator, guides(5), tmp_path / "d.mkv", steps=2))
    assert [own.engine.resolve(GenerateSettings(guidance=g), "animation").branches for g in (None, 1.0)] == [2, 1]


def test_replacement(animator: Animator, guides: MakeGuides, tmp_path: Path) -> None:
    """Background and mask reach the network: the same pose and face without them give other frames."""
    folder = guides(11, replacement=True)
    frames = frames_of(animator, folder, tmp_path / "a.mkv")
    assert frames.shape == (11, 16, 32, 3)
    manifest = json.loads((folder / "manifest.json").read_text())
    plain = tmp_path / "plain"
    plain.mkdir()
    for name in ("pose.mkv", "face.mkv", "reference.png", "keypoints.npz"):
        (plain / name).write_bytes((folder / name).read_bytes())
    files = {part: manifest["files"][part] for part in ("pose", "face")}
    (plain / "manifest.json").write_text(json.dumps(manifest | {"mode": "animation", "files": files}))
    assert (frames_of(animator, plain, tmp_path / "b.mkv") != frames).any()


def stages(events: list[Event]) -> list[Stage]:
    return [e.stage for e in events if isinstance(e, StageStarted)]


def test_events_come_in_order(checkpoint: Path, guides: MakeGuides, tmp_path: Path) -> None:
    animator = Animator.from_checkpoint(checkpoint, "cpu")
    events = list(animator.generate(guides(11), tmp_path / "out.mkv", settings(steps=3), LOSSLESS))
    segment = [Stage.CONDITIONS, Stage.DENOISE, Stage.DECODE]
    assert stages(events) == [Stage.LOAD, Stage.REFERENCE, *segment, *segment, Stage.WRITE]
    assert isinstance(events[-1], Finished)
    running: str | None = None
    for event in events:
        if isinstance(event, StageStarted):
            assert running is None, f"{running} is still running"
            running = event.stage
        elif isinstance(event, StageFinished):
            assert event.stage == running
            assert event.seconds >= 0
            running = None
        elif isinstance(event, StageProgress | StepDone):
            assert running == event.stage
    assert running is None
    steps = [e for e in events if isinstance(e, StepDone)]
    assert [(e.segment, e.segments, e.step, e.steps) for e in steps] == [
        (s, 2, i, 3) for s in (0, 1) for i in (1, 2, 3)
    ]
    assert all(e.preview is not None and e.preview.picture().shape == (2, 4, 3) for e in steps)
    decoded = [e.done for e in events if isinstance(e, StageProgress) and e.stage is Stage.DECODE]
    assert decoded == sorted(decoded)
    assert decoded[-1] == 11


def test_the_weights_are_opened_once(animator: Animator, guides: MakeGuides, tmp_path: Path) -> None:
    networks = animator.checkpoint
    frames_of(animator, guides(1), tmp_path / "out.mkv")
    assert animator.checkpoint is networks


def test_the_record(animator: Animator, checkpoint: Path, guides: MakeGuides, tmp_path: Path) -> None:
    out = tmp_path / "out.mkv"
    *_, last = animator.generate(guides(11), out, settings(), LOSSLESS)
    assert isinstance(last, Finished)
    assert (last.result.out, last.result.seed, last.result.fps) == (out, 7, Fraction(30000, 1001))
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["seed"] == record["settings"]["seed"] == 7
    assert record["settings"]["steps"] == 1
    assert record["settings"]["clip_length"] == DEFAULTS.clip_length
    assert record["settings"]["solver"] == DEFAULTS.solver
    assert record["segments"] == [[0, 9, 0], [4, 9, 5]]
    assert (record["frames"], record["size"], record["fps"]) == (11, [32, 16], "30000/1001")
    assert record["inputs"]["guides"]["path"] == str(guides(11))
    hashes = record["checkpoint"]["hashes"]
    assert (
        hashes["vae.safetensors"]
        == f"sha256:{hashlib.sha256((checkpoint / 'vae.safetensors').read_bytes()).hexdigest()}"
    )
    assert set(record["seconds"]) == {
        "load", "reference", "conditions", "denoise", "decode", "write",
    }  # fmt: skip
    assert all(s >= 0 for s in record["seconds"].values())
    assert record["seconds"]["decode"] > 0
    assert record["peak_rss_bytes"] > 50 * 2**20
    assert record["versions"]["torch"]
    assert record["device"] == "cpu"


def test_a_drawn_seed_is_told_and_gives_the_same_frames_again(
    animator: Animator, guides: MakeGuides, tmp_path: Path
) -> None:
    events = list(animator.generate(guides(3), tmp_path / "a.mkv", settings(seed=None), LOSSLESS))
    assert isinstance(events[-1], Finished)
    seed = events[-1].result.seed
    assert any(isinstance(e, Notice) and f"seed {seed} was drawn" in e.message for e in events)
    again = frames_of(animator, guides(3), tmp_path / "b.mkv", seed=seed)
    assert (VideoFrames(tmp_path / "a.mkv").take(range(3)) == again).all()
    *_, other = animator.generate(guides(3), tmp_path / "c.mkv", settings(seed=None), LOSSLESS)
    assert isinstance(other, Finished)
    assert other.result.seed != seed


def test_a_prompt_without_effect_is_told(animator: Animator, guides: MakeGuides, tmp_path: Path) -> None:
    events = list(animator.generate(guides(1), tmp_path / "a.mkv", settings(prompt="a dancer"), LOSSLESS))
    assert any(isinstance(e, Notice) and e.level == "warning" and "one fixed prompt" in e.message for e in events)


@pytest.mark.parametrize("codec", ["h264", "png", "ffv1"])
@pytest.mark.parametrize("after", [StageStarted, StepDone, StageProgress])
def test_closing_the_generator_leaves_nothing(
    animator: Animator, guides: MakeGuides, tmp_path: Path, codec: str, after: type[Event]
) -> None:
    out = tmp_path / {"h264": "out.mp4", "ffv1": "out.mkv", "png": "out"}[codec]
    events = animator.generate(guides(11), out, settings(), OutputSettings.model_validate({"codec": codec}))
    for event in events:
        if isinstance(event, after) and not (isinstance(event, StageStarted) and event.stage is not Stage.DECODE):
            break
    events.close()  # type: ignore[attr-defined]
    assert os.listdir(tmp_path) == []


def test_a_failure_half_way_leaves_nothing(
    animator: Animator, guides: MakeGuides, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def failing(*_: object) -> None:
        calls.append(1)
        raise RuntimeError("the network broke")

    out = tmp_path / "out.mkv"
    with monkeypatch.context() as broken:
        broken.setattr(animator.checkpoint.transformer, "forward", failing)
        with pytest.raises(RuntimeError, match="the network broke"):
            list(animator.generate(guides(3), out, settings(), LOSSLESS))
    assert calls
    assert os.listdir(tmp_path) == []
    assert len(frames_of(animator, guides(3), out)) == 3


def test_two_jobs_cannot_write_the_same_output(animator: Animator, guides: MakeGuides, tmp_path: Path) -> None:
    out = tmp_path / "out.mkv"
    first = animator.generate(guides(3), out, settings(), LOSSLESS)
    next(iter(first))
    with pytest.raises(OutputError, match="another job"):
        list(animator.generate(guides(3), out, settings(), LOSSLESS))
    list(first)
    assert sorted(os.listdir(tmp_path)) == ["out.json", "out.mkv"]


def test_the_contact_sheet(animator: Animator, guides: MakeGuides, tmp_path: Path) -> None:
    more = OutputSettings(codec="ffv1", sheet=True)
    *_, last = animator.generate(guides(11), tmp_path / "out.mkv", settings(), more)
    assert isinstance(last, Finished)
    assert last.result.sheet == tmp_path / "out.sheet.png"
    assert Image.open(tmp_path / "out.sheet.png").width > 8 * 32


@pytest.mark.parametrize("shape", [Shape(40, 24), Shape(32, 20), Shape(24, 16)])
def test_sizes_that_do_not_fit_the_network(animator: Animator, tmp_path: Path, shape: Shape) -> None:
    folder = write_guides(tmp_path / "guides", 2, shape)
    with pytest.raises(InputError, match=rf"{shape.width}x{shape.height}.*multiples of 16") as caught:
        list(animator.generate(folder, tmp_path / "out.mkv", settings(), LOSSLESS))
    assert caught.value.exit_code == 2
    assert os.listdir(tmp_path) == ["guides"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"wings": 2}, r"wings = 2: there is no such setting"),
        ({"solver": "heun"}, r"solver = heun: .*'dpm\+\+', 'unipc' or 'euler'"),
        ({"steps": 0}, r"steps = 0: .*greater than or equal to 1"),
        ({"steps": "many"}, r"steps = many"),
        ({"retarget": "stretch"}, r"retarget = stretch: .*'auto', 'off' or 'published'"),
        ({"guidance": 0.5}, r"guidance = 0\.5"),
        ({"overlap": 3}, r"overlap = 3"),
        ({"seed": -1}, r"seed = -1"),
        ({"shift": float("nan")}, r"shift = nan"),
        ({"codec": "divx"}, r"codec = divx"),
        ({"area": 0}, r"area = 0"),
    ],
)
def test_settings_that_break_a_rule_are_named(setting: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        Job.of("hero.png", "dance.mp4", "out.mp4", **setting)
    assert caught.value.exit_code == 2


def test_a_setting_goes_to_every_part_that_has_it() -> None:
    job = Job.of("hero.png", "dance.mp4", "out.mp4", compat=True, steps=4, retarget="off", crf=20)
    assert (job.preprocess.compat, job.generate.compat) == (True, True)
    assert (job.generate.steps, job.preprocess.retarget, job.output.crf) == (4, "off", 20)


def test_clip_length_has_a_form(animator: Animator, guides: MakeGuides, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"clip_length = 10: it has to be 4n\+1. Use 9 or 13"):
        list(animator.generate(guides(3), tmp_path / "out.mkv", settings(clip_length=10), LOSSLESS))


def test_what_is_not_there_is_named(animator: Animator, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no such folder"):
        Animator.from_checkpoint(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"guides = .*nothing: there is no such folder"):
        list(animator.generate(tmp_path / "nothing", tmp_path / "out.mkv", settings(), LOSSLESS))
    assert os.listdir(tmp_path) == []


@pytest.fixture
def lora_file(tmp_path: Path) -> Path:
    tensors = {
        f"blocks.{i}.{name}.lora_{x}.weight": detgen.randn(f"leak/{i}{name}{x}", shape)
        for i in range(5) for name in ("self_attn.v", "cross_attn.v") for x, shape in (("A", (2, 32)), ("B", (32, 2)))
    }  # fmt: skip
    save_file(tensors, tmp_path / "strong.safetensors")
    return tmp_path / "strong.safetensors"


@pytest.mark.parametrize("room", [True, False])
def test_loras_are_added_before_the_conditions(
    animator: Animator, guides: MakeGuides, tmp_path: Path, lora_file: Path, monkeypatch: pytest.MonkeyPatch, room: bool
) -> None:
    """In a stage of their own; where there is no room for them, the first segment tries again."""
    wanted = frames_of(animator, guides(5), tmp_path / "wanted.mkv", lora=[lora_file])
    made: list[str] = []
    stage = ""

    def watched(model: AnimateTransformer, *more: Any) -> AnimateTransformer:
        made.append(stage)
        if not room and len(made) == 1:
            raise torch.OutOfMemoryError("full")
        return with_loras(model, *more)

    monkeypatch.setattr(twins, "with_loras", watched)
    found = []
    for event in animator.generate(guides(5), tmp_path / "out.mkv", settings(lora=[lora_file]), LOSSLESS):
        if isinstance(event, StageStarted):
            stage = event.stage
            found.append(stage)
    assert found[:3] == [Stage.LOAD, Stage.LORA, Stage.REFERENCE]
    assert made == [Stage.LORA] + ([] if room else [Stage.DENOISE])
    assert (VideoFrames(tmp_path / "out.mkv").take(range(5)) == wanted).all()


def test_guides_are_read_beside_the_work(animator: Animator, guides: MakeGuides, tmp_path: Path) -> None:
    """The first segment's from before the weights are opened, all by the reading thread."""
    asked: list[str] = []
    begun = threading.Event()

    class Watched(ArrayFrames):
        def take(self, indices: Sequence[int]) -> Frames:
            asked.append(threading.current_thread().name)
            begun.set()
            return super().take(indices)

    loaded = load_guides(guides(11))
    pose = Watched(loaded.pose.take(range(11)))
    events = animator.generate(replace(loaded, pose=pose), tmp_path / "out.mkv", settings(), LOSSLESS)
    assert isinstance(first := next(events), StageStarted)
    assert first.stage is Stage.LOAD
    assert begun.wait(10)
    for _ in events:
        pass
    assert len(asked) == 2
    assert all(name.startswith("guides") for name in asked)


def test_loras_do_not_leak_into_the_next_job(
    animator: Animator, guides: MakeGuides, tmp_path: Path, lora_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = frames_of(animator, guides(5), tmp_path / "plain.mkv", steps=2)
    strong = frames_of(animator, guides(5), tmp_path / "strong.mkv", steps=2, lora=[f"{lora_file}:0.8"])
    late = frames_of(animator, guides(5), tmp_path / "late.mkv", steps=2, lora=[f"{lora_file}:0.8@50-100%"])
    again = frames_of(animator, guides(5), tmp_path / "again.mkv", steps=2)
    fused = frames_of(animator, guides(5), tmp_path / "fused.mkv", steps=2, lora=[f"{lora_file}:0.8"], lora_fuse=True)
    assert (plain == again).all()
    assert (plain != strong).any()
    assert np.abs(fused.astype(int) - strong).max() <= 1
    assert (late != strong).any()
    assert (late != plain).any()
    record = json.loads((tmp_path / "late.json").read_text())["lora"]
    assert record == [{
        "path": str(lora_file), "sha256": f"sha256:{hashlib.sha256(lora_file.read_bytes()).hexdigest()}", "strength": 0.8,
        "steps": [0.5, 1.0], "dialect": "peft", "tensors": 10, "unused": [],
    }]  # fmt: skip
    reads: list[Path] = []
    monkeypatch.setattr(order, "read_lora", lambda path: reads.append(path) or read_lora(path))
    both = [f"{lora_file}:0.8@0-50%", f"{lora_file}:0.8@50-100%"]
    assert (frames_of(animator, guides(5), tmp_path / "both.mkv", steps=2, lora=both) == strong).all()
    assert reads == [lora_file]  # once a job
    with pytest.raises(InputError, match=r"none of the 2 steps lies in 10-40%"):
        frames_of(animator, guides(5), tmp_path / "never.mkv", steps=2, lora=[f"{lora_file}@10-40%"])
