"""`wanimate bench`: what it measures, and the tables it writes."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from wanimate.cli.main import app
from wanimate.config import GenerateSettings, RuntimeSettings
from wanimate.engines.registry import engine_for
from wanimate.measure import energy
from wanimate.measure.bench import BenchOrder, BenchRow, as_markdown, bench, engine_to_bench, measure_job
from wanimate.measure.energy import EnergyMeter
from wanimate.measure.random_weights import NAME, RandomEngine, RandomNetworks
from wanimate.measure.synthetic import write_guides
from wanimate.model.params import MotionParams, TransformerParams, VaeParams

TINY = TransformerParams(
    dim=64, ffn_dim=64, num_heads=2, num_layers=5, text_width=8, text_length=16, image_width=16, face_width=16,
    motion=MotionParams(channels=(8, 8), width=16, directions=4, layers=2),
)  # fmt: skip
ORDER = BenchOrder(("animation",), ((64, 32),), frames=5, steps=2)


def test_a_job_is_measured(tmp_path: Path) -> None:
    write_guides(tmp_path / "guides", (64, 64), 5, "replacement", 64)
    engine = engine_for()
    found = measure_job(engine, tmp_path / "guides", tmp_path / "a.mp4", GenerateSettings(steps=2, seed=1))
    engine.close()
    assert (found.frames, found.steps, found.skipped) == (5, 2, 0)
    assert 0 < found.until_denoising < found.seconds
    assert found.step <= found.denoise <= found.seconds
    assert found.gpu_peak is None
    assert found.host_peak > 0.1
    assert found.watt_hours is None
    assert (tmp_path / "a.mp4").is_file()


@pytest.mark.parametrize("speed", ["exact", "fast"])
def test_random_weights_take_the_place_of_a_checkpoint(tmp_path: Path, speed: Any) -> None:
    """No file is read or written but guides and results. The second job finds its weights in memory."""
    opened: list[int] = []

    class Counted(RandomNetworks):
        def _read(self, *args: Any) -> Any:
            opened.append(1)
            return (yield from super()._read(*args))

    def make() -> RandomEngine:
        return RandomEngine(Counted(RuntimeSettings(speed=speed, device="cpu"), TINY, VaeParams(base=8, res_blocks=1)))

    rows = list(bench(make, ORDER, tmp_path))
    assert [(row.mode, row.size, row.start) for row in rows] == [
        ("animation", "64x32", "cold"), ("animation", "64x32", "warm"),
    ]  # fmt: skip
    assert len(opened) == 1
    assert all(row.measured.steps == 2 for row in rows)


def test_without_a_gpu_the_small_checkpoint_is_measured_and_it_says_why() -> None:
    make, words = engine_to_bench(None, RuntimeSettings(device="cpu"), ORDER)
    assert make().config.name == "mannequin"
    assert words == "mannequin: no checkpoint was given, and no GPU here holds the published size"
    make, words = engine_to_bench(engine_for().folder, RuntimeSettings(device="cpu"), ORDER)
    assert words == "mannequin"


def test_a_gpu_that_holds_it_gets_the_published_size(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr("wanimate.measure.bench.fits", lambda *given: asked.append(given) or True)
    runtime = RuntimeSettings(device="cpu")
    make, words = engine_to_bench(None, runtime, BenchOrder())
    assert asked == [(runtime, (1280, 720), 77)]
    engine = make()
    assert isinstance(engine.networks, RandomNetworks)
    assert engine.networks.params == TransformerParams()
    assert words == NAME


def test_the_command_writes_markdown_and_json(tmp_path: Path) -> None:
    out = tmp_path / "bench.md"
    words = ["--mode", "animation", "--size", "64x64", "--frames", "5", "--steps", "1", "--device", "cpu"]
    done = CliRunner().invoke(app, ["bench", "--json", "--out", str(out), *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    *_, last = (json.loads(line) for line in done.stdout.splitlines())
    written = json.loads(out.with_suffix(".json").read_text())
    assert written["rows"] == last["rows"]
    assert [row["start"] for row in written["rows"]] == ["cold", "warm"]
    table = [line for line in out.read_text().splitlines() if line.startswith("| animation | 64x64")]
    assert len(table) == 2
    assert table[0].endswith("| not told |")
    assert f"{written['rows'][1]['seconds']:.1f}" in table[1]


@pytest.mark.parametrize(
    ("words", "said"), [(["--size", "640x361"], "multiples of 16"), (["--mode", "both"], "there is no such mode")]
)
def test_what_cannot_be_measured_is_refused(words: list[str], said: str) -> None:
    done = CliRunner().invoke(app, ["bench", *words])
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())


def test_what_cannot_be_written_is_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wanimate.measure.bench.bench", lambda *given: pytest.fail("it began"))
    (tmp_path / "file").write_text("")
    for out, said in ((tmp_path / "file" / "a.md", "is a file, not a folder"), (tmp_path / "a.json", "ends with .md")):
        done = CliRunner().invoke(app, ["bench", "--device", "cpu", "--out", str(out)])
        assert done.exit_code == 2
        assert said in " ".join(done.output.split())
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


class _Gpu:
    uuid = "1-2"


def test_energy_is_the_drivers_counter_or_the_mean_power(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: _Gpu())
    joules = iter([0.0, 1_000_000.0, 8_200_000.0])
    driver = types.SimpleNamespace(
        NVMLError=RuntimeError, nvmlInit=lambda: None, nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: next(joules) if handle == "GPU-1-2" else 0.0,
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    with EnergyMeter(torch.device("cuda", 0)) as meter:
        pass
    assert (meter.watt_hours, meter.counted) == (2.0, "nvml")
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setattr(energy, "_watts", lambda gpu: 360.0)
    clock = iter([100.0, 110.0])
    monkeypatch.setattr(energy.time, "perf_counter", lambda: next(clock))
    with EnergyMeter(torch.device("cuda", 0)) as meter:
        pass
    assert (meter.watt_hours, meter.counted) == (1.0, "nvidia-smi")
    monkeypatch.setattr(energy, "_watts", lambda gpu: None)
    clock = iter([0.0, 1.0])
    with EnergyMeter(torch.device("cuda", 0)) as meter:
        pass
    assert (meter.watt_hours, meter.counted) == (None, None)


def test_what_is_not_told_is_not_made_up() -> None:
    row = BenchRow("animation", "64x32", "cold", measured=_measure(gpu_peak=12.34, watt_hours=0.5))
    assert "| 12.3 |" in as_markdown([row], [])
    assert "| 0.50 |" in as_markdown([row], [])
    other = BenchRow("animation", "64x32", "cold", measured=_measure(gpu_peak=None, watt_hours=None))
    assert as_markdown([other], []).rstrip().endswith("| none | 1.0 | not told |")


def _measure(**values: Any) -> Any:
    from wanimate.measure.bench import JobMeasure

    rest = {
        "frames": 5, "steps": 2, "skipped": 0, "seconds": 1.0, "until_denoising": 0.5, "step": 0.1, "conditions": 0.1,
        "denoise": 0.2, "decode": 0.1, "host_peak": 1.0, "placement": "", "attention": "torch",
    }  # fmt: skip
    return JobMeasure(**(rest | values))
