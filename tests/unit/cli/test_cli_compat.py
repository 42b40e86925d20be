"""Every flag of the published command lines: what it does here, and what it says where it does nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

from wanimate.cli import compat, published
from wanimate.cli.main import app
from wanimate.config import GenerateSettings, Job, OutputSettings, ParallelSettings, PreprocessSettings, RuntimeSettings
from wanimate.errors import InputError, setting
from wanimate.events import Event, Finished
from wanimate.integrations.flux import WithEditedProportions
from wanimate.media.video import ArrayFrames
from wanimate.types import Guides
from wanimate.types import Result as Done

GENERATE_FLAGS = {
    "--task", "--ckpt_dir", "--src_root_path", "--refert_num", "--replace_flag", "--use_relighting_lora", "--frame_num",
    "--sample_solver", "--sample_steps", "--sample_shift", "--sample_guide_scale", "--base_seed", "--prompt", "--size",
    "--offload_model", "--t5_cpu", "--convert_model_dtype", "--ulysses_size", "--dit_fsdp", "--t5_fsdp", "--save_file",
}  # fmt: skip
PREPROCESS_FLAGS = {
    "--ckpt_path", "--video_path", "--refer_path", "--save_path", "--resolution_area", "--fps", "--replace_flag",
    "--retarget_flag", "--use_flux", "--iterations", "--k", "--w_len", "--h_len",
}  # fmt: skip
PUBLISHED_DEFAULTS = {
    "sample_solver": "unipc", "base_seed": -1, "size": "1280*720", "ulysses_size": 1, "fps": 30, "resolution_area": (1280, 720),
    "iterations": 3, "k": 7, "w_len": 1, "h_len": 1,
}  # fmt: skip


def command(*words: object) -> Result:
    return CliRunner().invoke(app, ["compat", *map(str, words)], env={"COLUMNS": "500", "NO_COLOR": "1"})


def scene(replacement: bool = True) -> Guides:
    frames = ArrayFrames(np.zeros((5, 16, 16, 3), np.uint8))
    parts = (frames, frames) if replacement else (None, None)
    mode = "replacement" if replacement else "animation"
    return Guides(mode, Fraction(24), frames, frames, np.zeros((16, 16, 3), np.uint8), *parts)


class StubAnimator:
    """Remembers what it was asked for."""

    asked: tuple[Any, ...] = ()
    last: StubAnimator | None = None

    def __init__(
        self, checkpoint: Path | None, runtime: RuntimeSettings, parallel: ParallelSettings, text_on_cpu: bool
    ) -> None:
        self.text_on_cpu, self.parallel = text_on_cpu, parallel
        type(self).last = self

    def __enter__(self) -> StubAnimator:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def generate(
        self, guides: Guides, out: Path, settings: GenerateSettings, output: OutputSettings
    ) -> Iterator[Event]:
        type(self).asked = (guides, out, settings, output)
        yield Finished(Done(out, 5, (16, 16), guides.fps, 1))


@pytest.fixture
def generate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    monkeypatch.setattr("wanimate.api.Animator", StubAnimator)
    monkeypatch.setattr("wanimate.preprocess.guides.load_guides", lambda folder: scene())
    return lambda *words: command("generate", "--ckpt_dir", tmp_path, "--src_root_path", "results", *words)


def asked() -> tuple[Guides, Path, GenerateSettings, OutputSettings]:
    return StubAnimator.asked  # type: ignore[return-value]


@pytest.mark.parametrize(("name", "flags"), [("generate", GENERATE_FLAGS), ("preprocess", PREPROCESS_FLAGS)])
def test_every_flag_of_the_tables_is_there_with_the_published_default(name: str, flags: set[str]) -> None:
    group = typer.main.get_command(app).commands["compat"]  # type: ignore[attr-defined]
    parameters = group.commands[name].params
    assert flags <= {option for p in parameters for option in p.opts}
    for p in parameters:
        if p.name in PUBLISHED_DEFAULTS:
            assert p.default == PUBLISHED_DEFAULTS[p.name]


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        ([], "solver", "unipc"),
        ([], "overlap", 1),
        ([], "seed", None),
        ([], "guidance", 1.0),
        ([], "relight", False),
        (["--use_relighting_lora"], "relight", True),
        (["--refert_num", 5], "overlap", 5),
        (["--frame_num", 41], "clip_length", 41),
        (["--sample_solver", "dpm++"], "solver", "dpm++"),
        (["--sample_steps", 7], "steps", 7),
        (["--sample_shift", 3.5], "shift", 3.5),
        (["--sample_guide_scale", 2], "guidance", 2.0),
        (["--base_seed", 0], "seed", 0),
        (["--prompt", "a b"], "prompt", "a b"),
        (["--compat", "--refert_num", 1], "compat", True),
        (["--compat", "--refert_num", 1, "--prompt", "a b"], "prompt", ""),
    ],
)
def test_flags_become_settings(generate: Callable[..., Result], words: list[object], field: str, value: object) -> None:
    done = generate(*words)
    assert done.exit_code == 0, done.output
    assert getattr(asked()[2], field) == value


def test_mode_rate_and_masks(generate: Callable[..., Result]) -> None:
    assert generate("--replace_flag").exit_code == 0
    assert (asked()[0].mode, asked()[0].fps, asked()[3].audio) == ("replacement", 24, True)
    assert generate().exit_code == 0
    assert (asked()[0].mode, asked()[0].background) == ("animation", None)
    assert generate("--replace_flag", "--compat", "--refert_num", "1").exit_code == 0
    assert (asked()[0].fps, asked()[3].audio, asked()[3].composite) == (30, False, False)


def test_file_name(generate: Callable[..., Result]) -> None:
    generate("--prompt", "a/b c" + 60 * "x", "--size", "720*1280")
    assert asked()[1].name.startswith(f"animate-14B_720x1280_1_a_b_c{45 * 'x'}_2")
    generate("--compat", "--refert_num", 1)
    assert asked()[1].name.startswith("animate-14B_1280*720_1_视频中的人在做动作_2")
    generate("--save_file", "mine.mp4")
    assert asked()[1] == Path("mine.mp4")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--offload_model", "True"], "--offload_model has no effect"),
        (["--convert_model_dtype"], "--convert_model_dtype has no effect"),
        (["--t5_fsdp"], "--t5_fsdp has no effect"),
        (["--dit_fsdp"], "--dit_fsdp has no effect: there is one GPU"),
        ([], "--refert_num was not given: 1 is taken"),
        ([], "the guides' 24 frames/s, not the published fixed 30"),
    ],
)
def test_notes(generate: Callable[..., Result], words: list[object], said: str) -> None:
    done = generate(*words)
    assert done.exit_code == 0
    assert said in done.output


def test_text_encoder_on_the_cpu(generate: Callable[..., Result]) -> None:
    generate("--t5_cpu")
    assert StubAnimator.last is not None
    assert StubAnimator.last.text_on_cpu
    generate()
    assert not StubAnimator.last.text_on_cpu


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--task", "t2v-A14B"], "this engine does Animate only"),
        (["--size", "480*832"], "--resolution_area"),
        (["--refert_num", 77], "--refert_num = 77: segments share 1 or 5 frames"),
        (["--compat"], "--refert_num = 77"),
        (["--sample_solver", "euler"], "Give unipc or dpm++"),
        (["--sample_steps", 0], "--sample_steps = 0"),
        (["--sample_shift", 0], "--sample_shift = 0"),
        (["--sample_guide_scale", 0.5], "--sample_guide_scale = 0.5"),
        (["--offload_model", "maybe"], "--offload_model = maybe"),
    ],
)
def test_refused(generate: Callable[..., Result], words: list[object], said: str) -> None:
    refused = generate(*words)
    assert refused.exit_code == 2
    assert said in refused.output


def test_errors_from_deeper_speak_of_the_published_flags(
    generate: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> Iterator[Event]:
        remedy = f"Use {setting('generate.steps')} 2, or a smaller {setting('preprocess.face_size')}, not --steps-more."
        raise InputError("generate.clip_length", 6, "it has to be 4n+1", remedy)
        yield

    monkeypatch.setattr(StubAnimator, "generate", fails)
    refused = generate()
    words = "--frame_num = 6: it has to be 4n+1. Use --sample_steps 2, or a smaller face_size, not --steps-more."
    assert words in refused.output
    last = json.loads(generate("--json").stdout.splitlines()[-1])
    assert (last["field"], last["parameter"]) == ("generate.clip_length", "--frame_num")
    assert words in last["message"]


def every_field() -> set[str]:
    groups = (Job, ParallelSettings, RuntimeSettings)
    return {known.path for group in groups for known in group.settings()} | {"guides", "checkpoint"}


@pytest.mark.parametrize(
    ("names", "flags"),
    [(published.GENERATE_NAMES, GENERATE_FLAGS), (published.PREPROCESS_NAMES, PREPROCESS_FLAGS)],
    ids=["generate", "preprocess"],
)
def test_names_are_fields_and_flags_that_exist(names: dict[str, str], flags: set[str]) -> None:
    assert set(names) <= every_field()
    assert set(names.values()) <= flags | {"--compat", "--resolution_area"}


def test_animation_guides_do_not_serve_replacement(
    generate: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wanimate.preprocess.guides.load_guides", lambda folder: scene(False))
    refused = generate("--replace_flag")
    assert refused.exit_code == 2
    assert "Run preprocess_data.py with --replace_flag" in refused.output


@pytest.mark.parametrize("flag", ["--ckpt_dir", "--src_root_path"])
def test_what_is_needed(flag: str, tmp_path: Path) -> None:
    words = [word for name in ("--ckpt_dir", "--src_root_path") if name != flag for word in (name, tmp_path)]
    refused = command("generate", "--task", "animate-14B", *words)
    assert refused.exit_code == 2
    assert f"{flag} = None: it is needed" in refused.output


@pytest.fixture
def preprocess(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., tuple[Result, Any]]:
    """Runs the command without detectors; returns what it said and (mode, settings) as it would run."""
    seen: list[Any] = []

    def stub(mode: str, clip: object, image: object, settings: PreprocessSettings, *_: object) -> Iterator[Event]:
        seen[:] = [mode, settings]
        yield from ()
        return scene()

    monkeypatch.setattr("wanimate.media.probe.probe", lambda path, limits: None)
    monkeypatch.setattr("wanimate.media.image.load_image", lambda path, **_: None)
    monkeypatch.setattr("wanimate.preprocess.detect.registry.open_detector", lambda settings: None)
    monkeypatch.setattr("wanimate.integrations.published.write_published_guides", stub)
    files = ["--video_path", "v.mp4", "--refer_path", "i.png", "--save_path", tmp_path / "out"]
    return lambda *words: (command("preprocess", *files, *words), seen)


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        ([], "area", 1280 * 720),
        ([], "fps", 30),
        ([], "retarget", "off"),
        ([], "backend", "mediapipe"),
        ([], "w_len", 1),
        (["--resolution_area", 832, 480], "area", 832 * 480),
        (["--fps", 24], "fps", 24),
        (["--fps", -1], "fps", None),
        (["--retarget_flag"], "retarget", "auto"),
        (["--retarget_flag", "--compat"], "retarget", "published"),
        (["--replace_flag", "--retarget_flag"], "retarget", None),
        (["--replace_flag", "--iterations", 0], "iterations", 0),
        (["--replace_flag", "--k", 3], "k", 3),
        (["--replace_flag", "--w_len", 4], "w_len", 4),
        (["--replace_flag", "--h_len", 8], "h_len", 8),
        (["--compat"], "compat", True),
    ],
)
def test_preprocess_flags(preprocess: Callable[..., Any], words: list[object], field: str, value: object) -> None:
    done, (mode, settings) = preprocess(*words)
    assert done.exit_code == 0, done.output
    assert getattr(settings, field) == value
    assert mode == ("replacement" if "--replace_flag" in words else "animation")


def test_detectors_are_the_published_ones_where_they_are(preprocess: Callable[..., Any], tmp_path: Path) -> None:
    done, _ = preprocess("--ckpt_path", tmp_path)
    assert "holds neither det nor pose2d" in done.output
    (tmp_path / "det").mkdir()
    done, (_, settings) = preprocess("--ckpt_path", tmp_path)
    assert (settings.backend, settings.models) == ("published", tmp_path)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--use_flux"], "Give --retarget_flag as well"),
        (["--use_flux", "--retarget_flag"], "FLUX.1-Kontext-dev"),
        (["--fps", 0], "--fps = 0"),
        (["--resolution_area", 0, 5], "--resolution_area"),
        (["--k", 0], "--k = 0"),
        (["--w_len", 0], "--w_len = 0"),
        (["--ckpt_path", "nowhere"], "--ckpt_path = nowhere"),
    ],
)
def test_preprocess_refuses(preprocess: Callable[..., Any], words: list[object], said: str) -> None:
    refused, _ = preprocess(*words)
    assert refused.exit_code == 2
    assert said in refused.output


def test_flags_without_effect_in_replacement_are_told(preprocess: Callable[..., Any]) -> None:
    done, _ = preprocess("--replace_flag", "--retarget_flag", "--use_flux")
    assert "--retarget_flag and --use_flux without effect" in done.output


@pytest.mark.parametrize("compat", [True, False])
def test_use_flux_measures_in_redrawn_pictures_the_published_way_with_compat(
    preprocess: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, compat: bool
) -> None:
    given: list[Any] = []

    def stub(*arguments: object) -> Iterator[Event]:
        given[:] = arguments
        yield from ()
        return scene()

    monkeypatch.setattr("wanimate.integrations.published.write_published_guides", stub)
    monkeypatch.setattr("wanimate.integrations.flux.kontext", lambda folder: lambda image, text: image)
    monkeypatch.setattr(
        "wanimate.preprocess.detect.registry.open_detector", lambda settings: SimpleNamespace(name="stub")
    )
    words = ["--ckpt_path", tmp_path, "--retarget_flag", "--use_flux", *(["--compat"] if compat else [])]
    done, _ = preprocess(*words)
    assert done.exit_code == 0, done.output
    people, redrawn = given[5], given[7]
    assert isinstance(people, WithEditedProportions)
    assert people.compat == compat
    assert redrawn is people.pictures


def test_nothing_is_redrawn_without_use_flux(preprocess: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    def stub(*arguments: object) -> Iterator[Event]:
        given[:] = arguments
        yield from ()
        return scene()

    monkeypatch.setattr("wanimate.integrations.published.write_published_guides", stub)
    done, _ = preprocess("--retarget_flag")
    assert done.exit_code == 0, done.output
    assert (given[5], given[7]) == (None, {})


@pytest.mark.parametrize("launcher", ["ulysses", "torchrun"])
def test_several_gpus(generate: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, launcher: str) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(
        compat, "run", lambda report, checkpoint, runtime, parallel, *jobs, **more: seen.append(parallel)
    )
    if launcher == "torchrun":
        monkeypatch.setenv("WORLD_SIZE", "2")
    done = generate("--dit_fsdp", *(["--ulysses_size", 2] if launcher == "ulysses" else []))
    assert done.exit_code == 0, done.output
    assert seen[0].shard_weights
    assert seen[0].gpus == (2 if launcher == "ulysses" else 1)  # torchrun's own count is taken by `run`
    assert "--refert_num" not in done.output  # it is told where the job runs


@pytest.mark.parametrize("flag", ["--shard-weights", "--split-guidance"])
def test_what_needs_several_gpus(flag: str) -> None:
    refused = CliRunner().invoke(app, ["generate", "guides", "--out", "a.mp4", flag], env={"COLUMNS": "500"})
    assert refused.exit_code == 2
    assert "it needs several GPUs" in refused.output
