"""Settings: how values can be written, what is refused and how it is said, and that a record gives them back."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wanimate.config import (
    SCHEMA,
    ClipLimits,
    GenerateSettings,
    Job,
    LoraUse,
    OutputSettings,
    ParallelSettings,
    PreprocessSettings,
    RuntimeSettings,
)
from wanimate.config.base import Settings
from wanimate.errors import InputError

FILES = ("a.png", "b.mp4", "c.mp4")
GROUPS = (
    ClipLimits,
    PreprocessSettings,
    LoraUse,
    GenerateSettings,
    OutputSettings,
    ParallelSettings,
    RuntimeSettings,
    Job,
)


def job(**settings: Any) -> Job:
    return Job.of(*FILES, **settings)


@pytest.mark.parametrize(
    ("given", "rate"),
    [
        (29.97, Fraction(30000, 1001)),
        ("29.97", Fraction(30000, 1001)),
        (23.976, Fraction(24000, 1001)),
        (59.94, Fraction(60000, 1001)),
        (np.float32(29.97), Fraction(30000, 1001)),
        (12.5, Fraction(25, 2)),
        (7.3, Fraction(73, 10)),
        (30.0, Fraction(30)),
        (24, Fraction(24)),
        (np.int64(24), Fraction(24)),
        (" 24 ", Fraction(24)),
        ("30000/1001", Fraction(30000, 1001)),
        (Fraction(30000, 1001), Fraction(30000, 1001)),
        (Fraction(2997, 100), Fraction(2997, 100)),
    ],
)
def test_ways_to_write_a_rate(given: object, rate: Fraction) -> None:
    assert job(fps=given, max_fps=given).preprocess.fps == rate
    assert job(fps=given, max_fps=given).preprocess.max_fps == rate


@pytest.mark.parametrize(
    "given",
    [
        "fast",
        "30/0",
        "-5",
        "1e9",
        1e9,
        0,
        0.0,
        "0",
        -1,
        True,
        None.__class__,
        float("inf"),
        float("nan"),
        [],
        "1e99999999",
    ],
)
def test_what_is_no_rate(given: object) -> None:
    with pytest.raises(InputError) as caught:
        job(max_fps=given)
    assert caught.value.field == "preprocess.max_fps"
    assert "frame rate" in caught.value.rule


@pytest.mark.parametrize(
    ("given", "area"),
    [
        ("1280x720", 921600),
        ("720 X 1280", 921600),
        ("832*480", 399360),
        ("640×360", 230400),
        ("36864", 36864),
        (36864, 36864),
    ],
)
def test_ways_to_write_an_area(given: object, area: int) -> None:
    assert job(area=given).preprocess.area == area


@pytest.mark.parametrize(
    "given", ["wide", "1280x", "8x8", "-5", "", 8, 0, -1, True, float("inf"), float("nan"), 0.5, []]
)
def test_what_is_no_area(given: object) -> None:
    with pytest.raises(InputError) as caught:
        job(area=given)
    assert caught.value.field == "preprocess.area"
    assert "1280x720" in caught.value.remedy


@pytest.mark.parametrize(
    ("given", "uses"),
    [
        ("x.safetensors:0.8", [LoraUse(path=Path("x.safetensors"), strength=0.8)]),
        (Path("x.safetensors"), [LoraUse(path=Path("x.safetensors"))]),
        (LoraUse(path=Path("x")), [LoraUse(path=Path("x"))]),
        ({"path": "x", "strength": 0.5}, [LoraUse(path=Path("x"), strength=0.5)]),
        (["x@0-50%", Path("y")], [LoraUse(path=Path("x"), stop=0.5), LoraUse(path=Path("y"))]),
        ([], []),
    ],
)
def test_ways_to_give_loras(given: object, uses: list[LoraUse]) -> None:
    assert job(lora=given).generate.lora == tuple(uses)


def test_paths_can_be_texts() -> None:
    made = job(models="m", mask="m.mkv", sam2="s", keep_guides="g")
    assert made.image == Path("a.png")
    paths = (made.preprocess.models, made.preprocess.mask, made.preprocess.sam2, made.keep_guides)
    assert paths == (Path("m"), Path("m.mkv"), Path("s"), Path("g"))


def numbers() -> list[tuple[type[Settings], str]]:
    """Every field of every group that takes a number."""
    return [
        (group, name)
        for group in GROUPS
        for name, info in group.model_fields.items()
        if any(kind in str(info.annotation) for kind in ("float", "int", "Fraction"))
    ]


def test_numbers_are_found() -> None:
    assert {(GenerateSettings, "guidance"), (PreprocessSettings, "fps"), (LoraUse, "stop")} <= set(numbers())


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan"), "inf", "nan"])
@pytest.mark.parametrize(("group", "name"), numbers(), ids=lambda v: v if isinstance(v, str) else v.__name__)
def test_numbers_are_finite(group: type[Settings], name: str, value: object) -> None:
    for way in (
        lambda: group.checked(name, value),
        lambda: group.model_validate({**SET[group].model_dump(), name: value}),
    ):
        with pytest.raises(InputError) as caught:
            way()
        assert caught.value.field == group.named(name)


WRONG: list[tuple[Callable[[], object], str, str]] = [
    (lambda: GenerateSettings(steps=0), "generate.steps", "greater than or equal to 1"),
    (lambda: GenerateSettings(steps="many"), "generate.steps", "whole number"),  # type: ignore[arg-type]
    (lambda: GenerateSettings(stepz=1), "generate.stepz", "no such setting"),  # type: ignore[call-arg]
    (lambda: GenerateSettings(overlap=3), "generate.overlap", "1 or 5"),  # type: ignore[arg-type]
    (lambda: GenerateSettings(lora=("a@50-20%",)), "generate.lora", "ends before it starts"),  # type: ignore[arg-type]
    (lambda: GenerateSettings(lora=("a:much",)), "generate.lora", "not a number"),  # type: ignore[arg-type]
    (lambda: GenerateSettings(lora=3), "generate.lora", "a list"),  # type: ignore[arg-type]
    (lambda: GenerateSettings.model_validate({"seed": -1}), "generate.seed", "greater than or equal to 0"),
    (lambda: GenerateSettings.model_validate(3), "generate", "group of settings"),
    (lambda: Job.model_validate({}), "image", "needed"),
    (lambda: Job.model_validate_json("{"), "job", "Invalid JSON"),
    (lambda: Job.model_validate_json('{"image": 1}'), "image", "a path"),
    (lambda: job(generate={"steps": 0}), "generate.steps", "greater than or equal to 1"),
    (lambda: job(limits={"min_side": "x"}), "preprocess.limits.min_side", "whole number"),
    (lambda: job(steps=0), "generate.steps", "greater than or equal to 1"),
    (lambda: job(guidance=float("inf")), "generate.guidance", "finite"),
    (lambda: job(stepz=0), "stepz", "no such setting"),
    (lambda: job(generate=GenerateSettings(), steps=2), "generate", "steps belongs to it"),
    (lambda: job(schema_version=SCHEMA + 1), "schema_version", "less than or equal"),
    (lambda: Job.of("a\0.png", "b", "c"), "image", "zero bytes"),
    (lambda: Job.of(3, "b", "c"), "image", "a path"),  # type: ignore[arg-type]
    (lambda: RuntimeSettings.split({"vae_tile": 3, "steps": 2}), "runtime.vae_tile", "128"),
    (lambda: RuntimeSettings(device="gpu"), "runtime.device", "written otherwise"),
    (lambda: ParallelSettings(gpus=0), "parallel.gpus", "greater than or equal to 1"),
    (lambda: OutputSettings(codec="av2"), "output.codec", "'ffv1', 'png' or 'exr'"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("make", "field", "rule"), WRONG)
def test_whatever_a_caller_can_cause_is_an_input_error(make: Callable[[], object], field: str, rule: str) -> None:
    with pytest.raises(InputError) as caught:
        make()
    assert caught.value.field == field
    assert rule in f"{caught.value.rule}. {caught.value.remedy}"
    assert caught.value.remedy
    assert "\x02" not in str(caught.value)


def test_the_nearest_name_is_proposed() -> None:
    with pytest.raises(InputError, match=r"Is steps meant\?"):
        job(stepz=3)
    with pytest.raises(InputError, match=r"Is clip_length meant\?"):
        GenerateSettings(cliplength=5)  # type: ignore[call-arg]


def test_split() -> None:
    runtime, rest = RuntimeSettings.split({"speed": "fast", "steps": 2})
    assert (runtime, rest) == (RuntimeSettings(speed="fast"), {"steps": 2})


SET: dict[type[Settings], Settings] = {
    ClipLimits: ClipLimits(max_seconds=None, min_side=16),
    PreprocessSettings: PreprocessSettings(
        area=65536, fps=Fraction(30000, 1001), max_fps=Fraction(73, 10), models=Path("m"), mask=Path("m.mkv"), iterations=2,
        w_len=3, limits=ClipLimits(max_seconds=None), person="1@1.5",
    ),
    LoraUse: LoraUse(path=Path("x"), strength=-0.3, start=0.1, stop=0.7),
    GenerateSettings: GenerateSettings(
        steps=3, shift=0.1, guidance=1.7, seed=2**63 - 1, prompt="ein Bär", overlap=5, cache_gate=1e-9, relight=False,
        lora=(LoraUse(path=Path("x:y"), strength=0.1), LoraUse(path=Path("z"), start=1 / 3)),
    ),
    OutputSettings: OutputSettings(codec="png", composite=False),
    ParallelSettings: ParallelSettings(gpus=4, split_guidance=True),
    RuntimeSettings: RuntimeSettings(device="cuda:1", attention="sage", gpu_memory=11.3, vae_tile=256),
}  # fmt: skip
SET[Job] = job(
    mode="replacement",
    preprocess=SET[PreprocessSettings],
    generate=SET[GenerateSettings],
    keep_guides="g",
    output=SET[OutputSettings],
)


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.__name__)
def test_a_record_gives_the_settings_back(group: type[Settings]) -> None:
    made = SET[group]
    assert group.model_validate(json.loads(json.dumps(made.model_dump(mode="json")))) == made
    assert (
        group.model_validate(json.loads(json.dumps(made.model_dump(), default=str))) == made
    )  # as a record is written
    assert group.model_validate_json(made.model_dump_json()) == made


def test_json_schema() -> None:
    described = Job.model_json_schema()
    steps = described["$defs"]["GenerateSettings"]["properties"]["steps"]
    assert steps["description"].startswith("Denoising steps")
    assert described["$defs"]["PreprocessSettings"]["properties"]["fps"]["anyOf"][0]["type"] == ["number", "string"]
    assert described["properties"]["schema_version"]["maximum"] == SCHEMA
    json.dumps(described, allow_nan=False)
