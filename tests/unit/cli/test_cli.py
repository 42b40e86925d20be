"""The command line: options are the settings, events become progress or JSON, every end has its exit code."""

from __future__ import annotations

import json
import subprocess
import sys
import types as python_types
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import typer
from typer.testing import CliRunner

from wanimate.cli.main import app
from wanimate.cli.names import flag_of
from wanimate.config import GenerateSettings, Job, OutputSettings, ParallelSettings, PreprocessSettings, RuntimeSettings
from wanimate.errors import Cancelled, CheckpointError, InputError, OutOfMemory, OutputError, setting
from wanimate.events import Event, Finished, Notice, Stage, StageFinished, StageProgress, StageStarted, StepDone
from wanimate.measure.doctor import verdict_14b
from wanimate.types import Result

FILES = ["--image", "hero.png", "--video", "dance.mp4", "--out", "hero.mp4"]
RESULT = Result(
    Path("hero.mp4"), 106, (192, 128), Fraction(30000, 1001), 7, Path("hero.sheet.png"), {"seconds": {"denoise": 2.0}}
)
EVENTS: list[Event] = [
    StageStarted(Stage.DETECT, 2),
    StageProgress(Stage.DETECT, 1, 2),
    StageProgress(Stage.DETECT, 2, 2),
    StageFinished(Stage.DETECT, 0.5),
    Notice("seed 7 was drawn [not markup]"),
    Notice(f"nobody in 3 of 106 frames: try {setting('preprocess.person')}", "warning"),
    StageStarted(Stage.DENOISE),
    StepDone(0, 1, 0, 2),
    StepDone(0, 1, 1, 2, fraction=0.5, seconds_left=1.5),
    StageFinished(Stage.DENOISE, 2.0),
    Finished(RESULT),
]


class StubAnimator:
    """Remembers what it was asked for; yields `EVENTS`, or raises `error` midway."""

    asked: ClassVar[list[Any]] = []
    runtime: ClassVar[RuntimeSettings]
    parallel: ClassVar[ParallelSettings]
    error: ClassVar[BaseException | None] = None

    def __init__(
        self, checkpoint: Path | None, runtime: RuntimeSettings, parallel: ParallelSettings, text_on_cpu: bool
    ) -> None:
        self.asked[:] = [checkpoint]
        type(self).runtime, type(self).parallel = runtime, parallel

    def __enter__(self) -> StubAnimator:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, job: Job) -> Iterator[Event]:
        self.asked.append(job)
        return self._events()

    def generate(self, guides: Path, out: Path, generate: GenerateSettings, output: OutputSettings) -> Iterator[Event]:
        self.asked.extend([guides, out, generate, output])
        return self._events()

    def _events(self) -> Iterator[Event]:
        yield from EVENTS[:4]
        if self.error is not None:
            raise self.error
        yield from EVENTS[4:]


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> type[StubAnimator]:
    module = python_types.ModuleType("wanimate.api")
    module.Animator = StubAnimator  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wanimate.api", module)
    monkeypatch.setattr(StubAnimator, "asked", [])
    monkeypatch.setattr(StubAnimator, "error", None)
    return StubAnimator


def run(*args: str) -> Any:
    return CliRunner().invoke(app, list(args), env={"COLUMNS": "200", "NO_COLOR": "1"})


@pytest.mark.parametrize("command", ["animate", "preprocess", "generate", "doctor"])
def test_help_teaches(command: str) -> None:
    shown = run(command, "--help")
    assert shown.exit_code == 0
    assert "[bold]" not in shown.output
    if command != "doctor":
        assert f"wanimate {command}" in shown.output
        assert "Example" in shown.output
    if command == "animate":
        assert "Exit codes: 0 done, 2 bad input, 3 not enough memory, 130 cancelled" in shown.output
        assert "knows only its mannequins" in shown.output
        for panel in ("Files", "Motion", "Diffusion", "Result", "This run"):
            assert f"─ {panel} ─" in shown.output


def test_help_does_not_wait_for_torch() -> None:
    script = "import sys, wanimate.cli.main; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_version_and_bare_call() -> None:
    assert run("--version").output.startswith("wanimate 0.")
    assert "animate" in run().output


def test_every_setting_is_an_option_with_the_default_of_its_class() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    machine = (RuntimeSettings, ParallelSettings)
    scene = {"mask", "sam2", "iterations", "k", "w_len", "h_len", "composite", "feather"}
    absent = {"animate": {"mode", *scene}, "replace": {"mode", "retarget"}}  # what has no meaning in that mode
    for name, classes in {
        "animate": (Job, *machine),
        "replace": (Job, *machine),
        "preprocess": (PreprocessSettings,),
        "generate": (GenerateSettings, OutputSettings, *machine),
    }.items():
        options = {p.opts[0]: p for p in commands[name].params}
        for known in (known for group in classes for known in group.settings() if flag_of(known)):
            if known.name in absent.get(name, ()):
                assert flag_of(known) not in options
            elif known.option.lifts:
                assert options[flag_of(known)].default is False
            else:
                default = None if known.info.is_required() else known.info.default
                default = str(default) if isinstance(default, Fraction) else default
                assert options[flag_of(known)].default == default, (name, known.path)


def test_no_command_takes_an_option_twice() -> None:
    found: list[str] = []
    groups = [typer.main.get_command(app)]
    while groups:
        one = groups.pop()
        groups += getattr(one, "commands", {}).values()
        flags = [flag for p in one.params for flag in p.opts]
        found += [f"{one.name} {flag}" for flag in flags if flags.count(flag) > 1]
    assert not found


def test_options_of_replacement_become_the_job(stub: type[StubAnimator]) -> None:
    done = run(
        "replace", *FILES, "--iterations", "2", "--k", "5", "--w-len", "4", "--h-len", "8", "--no-composite",
        "--feather", "3", "--steps", "9", "--fps", "12", "--checkpoint", "c", "--mask", "m.mkv", "--sam2", "s", "--lora-fuse",
        "--cache", "first-block", "--cache-gate", "0.2",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    _, job = stub.asked
    assert job.mode == "replacement"
    pre = job.preprocess
    assert (pre.iterations, pre.k, pre.w_len, pre.h_len, pre.retarget, pre.fps) == (2, 5, 4, 8, None, 12)
    assert (pre.mask, pre.sam2, job.generate.lora_fuse) == (Path("m.mkv"), Path("s"), True)
    assert (job.output.composite, job.output.feather, job.generate.steps) == (False, 3, 9)
    assert (job.generate.cache, job.generate.cache_gate) == ("first-block", 0.2)


def test_options_become_the_job(stub: type[StubAnimator]) -> None:
    done = run(
        "animate", *FILES, "--area", "640x360", "--fps", "23.976", "--allow-any-length", "--retarget", "off",
        "--no-smooth", "--models", "m", "--steps", "9", "--solver", "unipc", "--shift", "3", "--guidance", "2",
        "--clip-length", "33", "--overlap", "5", "--seed", "4", "--prompt", "p", "--negative-prompt", "n", "--compat",
        "--codec", "h265", "--crf", "30", "--no-audio", "--sheet", "--keep-guides", "g", "--checkpoint", "c",
        "--backend", "published", "--face-size", "256", "--max-fps", "24", "--device", "cpu", "--attention", "torch",
        "--speed", "fast", "--lora", "a:0.5", "--lora", "b@0-50%", "--watermark",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert stub.runtime == RuntimeSettings(device="cpu", attention="torch", speed="fast")
    checkpoint, job = stub.asked
    assert checkpoint == Path("c")
    limits = job.preprocess.limits
    assert (limits.max_seconds, limits.min_seconds) == (None, 2.0)
    assert job == Job(
        image=Path("hero.png"), video=Path("dance.mp4"), out=Path("hero.mp4"), keep_guides=Path("g"),
        preprocess=PreprocessSettings(
            area=640 * 360, fps=Fraction(24000, 1001), max_fps=Fraction(24), retarget="off", smooth=False, compat=True,
            backend="published", models=Path("m"), face_size=256, limits=limits,
        ),
        generate=GenerateSettings(
            steps=9, solver="unipc", shift=3, guidance=2, clip_length=33, overlap=5, seed=4, prompt="p",
            negative_prompt="n", compat=True, lora=("a:0.5", "b@0-50%"),  # type: ignore[arg-type]
        ),
        output=OutputSettings(codec="h265", crf=30, audio=False, sheet=True, watermark=True),
    )  # fmt: skip


def test_no_options_are_the_defaults(stub: type[StubAnimator]) -> None:
    assert run("animate", *FILES).exit_code == 0
    assert stub.asked == [None, Job(image=Path("hero.png"), video=Path("dance.mp4"), out=Path("hero.mp4"))]
    assert run("generate", "folder", "--out", "a.mp4").exit_code == 0
    assert stub.asked == [None, Path("folder"), Path("a.mp4"), GenerateSettings(), OutputSettings()]


def test_names_and_words_of_a_shot(stub: type[StubAnimator]) -> None:
    name = "{shot}_t{take:02}_v{version:03}.mov"
    options = (
        "--shot",
        "S010",
        "--take",
        "4",
        "--burn-in",
        "name,take",
        "--burn-in",
        "timecode",
        "--handles",
        "8",
        "--slate",
    )
    assert run("animate", *FILES[:-1], name, *options).exit_code == 0
    job = stub.asked[1]
    assert (job.out, job.output.shot, job.output.take, job.preprocess.handles) == (Path(name), "S010", 4, 8)
    assert (job.output.burn_in, job.output.slate) == (("name", "take", "timecode"), True)
    missing = run("animate", *FILES[:-1], name)
    assert missing.exit_code == 2
    assert "--shot = None: the result's name has {shot}. Give --shot." in missing.output


def test_several_guides_share_the_weights(
    stub: type[StubAnimator], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    checked: list[Path] = []
    monkeypatch.setattr("wanimate.preprocess.guides.load_guides", checked.append)
    folders = [str(tmp_path / name) for name in ("monday", "tuesday")]
    assert run("generate", *folders, "--out", str(tmp_path / "week")).exit_code == 0
    assert [Path(folder) for folder in folders] == checked
    assert stub.asked[1:3] == [tmp_path / "monday", tmp_path / "week" / "monday.mp4"]
    assert stub.asked[5:7] == [tmp_path / "tuesday", tmp_path / "week" / "tuesday.mp4"]

    matte = run("generate", *folders, "--out", str(tmp_path / "week"), "--matte", "m.mp4")
    assert matte.exit_code == 2
    assert "--matte = m.mp4: 2 results cannot have one matte" in matte.output
    one_file = run("generate", *folders, "--out", str(tmp_path / "week.mp4"))
    assert one_file.exit_code == 2
    assert "2 results need a folder" in one_file.output
    twice = run("generate", folders[0], str(tmp_path / "old" / "monday"), "--out", str(tmp_path / "week"))
    assert twice.exit_code == 2
    assert "several folders are called monday" in twice.output


def test_words_for_people(stub: type[StubAnimator]) -> None:
    done = run("animate", *FILES)
    expected = "hero.mp4: 106 frames of 192x128 at 29.97/s, seed 7 (beside it hero.json, hero.sheet.png)\n"
    assert done.stdout == expected
    for part in (
        "find the performer: 0.5 s",
        "seed 7 was drawn [not markup]",
        "warning nobody in 3 of",
        "denoise: 2.0 s",
    ):
        assert part in done.stderr


def test_json_for_programs(stub: type[StubAnimator]) -> None:
    done = run("animate", *FILES, "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["event"] for line in lines] == [
        "stage_started", "progress", "progress", "stage_finished", "notice", "notice", "stage_started", "step", "step",
        "stage_finished", "result",
    ]  # fmt: skip
    assert lines[1] == {
        "event": "progress", "schema": 1, "stage": "detect", "done": 1, "total": 2, "segment": None, "fraction": None,
        "seconds_left": None,
    }  # fmt: skip
    assert lines[5]["message"] == "nobody in 3 of 106 frames: try --person"
    assert lines[8] == {
        "event": "step", "schema": 1, "segment": 0, "segments": 1, "step": 1, "steps": 2, "skipped": 0, "fraction": 0.5,
        "seconds_left": 1.5,
    }  # fmt: skip
    assert lines[-1] == {
        "event": "result", "out": "hero.mp4", "frames": 106, "width": 192, "height": 128, "fps": "30000/1001", "seed": 7,
        "sheet": "hero.sheet.png", "record": "hero.json", "seconds": {"denoise": 2.0},
    }  # fmt: skip
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (InputError("video", "a.mp4", "it is cut off", "Copy it again."), 2, "--video = a.mp4: it is cut off. Copy"),
        (OutputError("out", "a.mp4", "the disk is full", "Free some."), 2, "the disk is full"),
        (CheckpointError("checkpoint", "c", "it has NaN", "Download it."), 2, "it has NaN"),
        (OutOfMemory("too large for this machine"), 3, "too large"),
        (MemoryError(), 3, "not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 3, "not enough memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), 3, "not enough memory"),
        (Cancelled("by the user"), 130, "by the user"),
        (KeyboardInterrupt(), 130, "nothing half-written"),
        (ZeroDivisionError("division"), 1, "a defect of this program, ZeroDivisionError: division"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_every_end_has_its_exit_code_and_one_sentence(
    stub: type[StubAnimator], error: BaseException, code: int, words: str
) -> None:
    stub.error = error
    plain = run("animate", *FILES)
    assert plain.exit_code == code
    assert words in plain.stderr
    assert "Traceback" not in plain.output
    assert plain.stdout == ""
    machine = run("animate", *FILES, "--json")
    last = json.loads(machine.stdout.splitlines()[-1])
    assert (machine.exit_code, last["event"], last["exit_code"]) == (code, "error", code)
    assert words in last["message"]
    if isinstance(error, InputError):
        assert (last["field"], last["parameter"]) == (error.field, f"--{error.field}")
    assert machine.stderr == ""


def test_debug_shows_where(stub: type[StubAnimator]) -> None:
    stub.error = ZeroDivisionError("division")
    assert "Traceback" in run("animate", *FILES, "--debug").stderr


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--guidance", "inf", "finite"),
        ("--shift", "nan", "finite"),
        ("--device", "gpu", "written otherwise"),
        ("--lora", "a:much", "not a number"),
        ("--solver", "heun", "'dpm++', 'unipc' or 'euler'"),
        ("--steps", "0", "greater than or equal to 1"),
        ("--area", "wide", "not an area"),
        ("--area", "1280x", "not an area"),
        ("--area", "8x8", "smaller than 16x16"),
        ("--area", "-5", "not an area"),
        ("--fps", "fast", "not a frame rate"),
        ("--fps", "0", "above 0"),
        ("--fps", "30/0", "not a frame rate"),
        ("--crf", "99", "less than or equal to 51"),
        ("--overlap", "3", "1 or 5"),
        ("--seed", "-1", "greater than or equal to 0"),
        ("--retarget", "maybe", "'auto', 'off' or 'published'"),
        ("--codec", "av2", "'ffv1', 'png' or 'exr'"),
        ("--guidance", "0.5", "greater than or equal to 1"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_opened(
    stub: type[StubAnimator], option: str, value: str, words: str
) -> None:
    done = run("animate", *FILES, option, value)
    assert done.exit_code == 2
    assert f"error {option} = {value}: " in done.stderr
    assert words in done.stderr
    assert stub.asked == []


@pytest.mark.parametrize(
    ("text", "area"),
    [("1280x720", 921600), ("720 X 1280", 921600), ("832*480", 399360), ("640×360", 230400), ("36864", 36864)],
)
def test_ways_to_write_an_area(stub: type[StubAnimator], text: str, area: int) -> None:
    assert run("animate", *FILES, "--area", text).exit_code == 0
    assert stub.asked[1].preprocess.area == area


def test_unknown_option_and_missing_file_option() -> None:
    assert run("animate", *FILES, "--frobnicate").exit_code == 2
    missing = run("animate", "--image", "a.png", "--video", "b.mp4")
    assert missing.exit_code == 2
    assert "--out" in missing.output


@pytest.mark.parametrize(
    ("memory", "gpus", "verdict"),
    [
        (24, [], "no"),
        (256, [], "slow"),
        (24, [16, 24], "no"),
        (64, [8], "no"),
        (64, [16, 24], "yes"),
        (64, [139], "yes"),
    ],
)
def test_doctor_judges_the_14b_by_its_weights(memory: int, gpus: list[int], verdict: str) -> None:
    assert verdict_14b(memory * 2**30, [g * 2**30 for g in gpus])[0] == verdict


def test_doctor(tmp_path: Path) -> None:
    words = run("doctor", "--models", str(tmp_path))
    assert words.exit_code == 0
    assert "Wan2.2-Animate-14B" in words.stdout
    report = json.loads(run("doctor", "--json", "--models", str(tmp_path)).stdout)
    assert report["event"] == "result"
    pose = next(b for b in report["backends"] if b["name"] == "mediapipe")
    assert not pose["available"]
    assert "not found" in pose["why"]
    assert "\x02" not in words.stdout
    assert "given with --sam2" in words.stdout
    assert any("given with --sam2" in b["why"] for b in report["backends"])
    assert {b["for"] for b in report["backends"] if b["used"]} >= {"networks", "attention"}


def test_options_of_doctor_become_the_settings_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr("wanimate.measure.doctor.examine", lambda models, spelling, runtime: {})
    monkeypatch.setattr(
        "wanimate.measure.doctor.plan_job", lambda *args, **more: asked.append((*args, more)) or {"job": "so"}
    )
    done = run(
        "doctor", "--json", "--checkpoint", "c", "--mode", "replacement", "--lora", "a.safetensors:0.8@0-50%",
        "--lora", "b.safetensors", "--lora-fuse", "--lora-partial", "--no-relight", "--steps", "9", "--cache", "taylor",
        "--overlap", "1", "--gpus", "2", "--shard-weights",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {"event": "result", "plan": {"job": "so"}}
    ((checkpoint, _, _, settings, _, more),) = asked
    spread = ParallelSettings(gpus=2, shard_weights=True)
    assert more.pop("spelling")("preprocess.area") == "--area"
    assert (checkpoint, more) == (Path("c"), {"mode": "replacement", "spread": spread})
    assert settings == GenerateSettings(
        lora=("a.safetensors:0.8@0-50%", "b.safetensors"),
        lora_fuse=True,
        lora_partial=True,
        relight=False,
        steps=9,
        cache="taylor",
        overlap=1,
    )


@pytest.mark.parametrize(
    ("wrong", "named"), [(("--shard-weights",), "--shard-weights"), (("--gpus", "2", "--vae-tile", "256"), "--gpus")]
)
def test_doctor_refuses_what_runs_refuse(wrong: tuple[str, ...], named: str) -> None:
    done = run("doctor", "--checkpoint", "c", *wrong)
    assert done.exit_code == 2
    assert f"{named} = " in done.output


@pytest.mark.parametrize("wrong", [("--lora", "a.safetensors:much"), ("--lora", "a.safetensors@50-20%")])
def test_doctor_reads_loras_as_runs_do(stub: type[StubAnimator], wrong: tuple[str, ...]) -> None:
    told = [run(*command, *wrong) for command in (("doctor", "--checkpoint", "c"), ("animate", *FILES))]
    assert [done.exit_code for done in told] == [2, 2]
    assert told[0].output == told[1].output
    assert "--lora = " in told[0].output


def test_doctor_knows_two_modes() -> None:
    done = run("doctor", "--checkpoint", "c", "--mode", "both")
    assert (done.exit_code, "--mode = both" in done.output) == (2, True)


def test_doctor_forecasts_a_gpu_that_is_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """A number that equals True is a number."""
    monkeypatch.setattr("wanimate.measure.doctor.examine", lambda models, spelling, runtime: {})
    row = {"size": "480p", "speed": "fast", "host GiB": 1.0, "seconds a step": 12.1}
    monkeypatch.setattr("wanimate.runtime.planning.cards.forecast", lambda card: [row])
    found = json.loads(run("doctor", "--json", "--gpu", "4090").stdout)
    assert found["forecast"] == [row]
    assert found["datasheet"]["card"] == "RTX 4090, compute capability 8.9, 24 GiB"
    words = run("doctor", "--gpu", "4090").stdout
    assert "1.0" in words
    assert "yes" not in words
    done = run("doctor", "--gpu", "4099")
    assert done.exit_code == 2
    assert "--gpu" in done.output
