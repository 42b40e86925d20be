"""What is kept between processes is what was made, or is made again."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from wanimate.measure import doctor
from wanimate.model.params import TransformerParams, VaeParams
from wanimate.runtime import kept, optimize
from wanimate.runtime.kept import kept_bytes
from wanimate.runtime.kernels import cuda
from wanimate.runtime.optimize import Trial
from wanimate.runtime.planning import fit, simulate
from wanimate.runtime.planning.rates import Rates

GPU = torch.device("cuda", 0)


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("WANIMATE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "compiled"


class Maker:
    def __init__(self, made: bytes = b"code") -> None:
        self.made, self.calls = made, 0

    def __call__(self) -> bytes:
        self.calls += 1
        return self.made


def only(folder: Path) -> Path:
    (found,) = folder.iterdir()
    return found


def test_it_is_made_once_for_a_key(cache: Path) -> None:
    make = Maker()
    assert [kept_bytes("cuda", ["a", 1], make) for _ in range(3)] == [b"code"] * 3
    assert make.calls == 1
    assert kept_bytes("cuda", ["a", 2], make) == b"code"
    assert make.calls == 2
    assert kept_bytes("planned", ["a", 1], make) == b"code"
    assert make.calls == 3
    assert len(list((cache / "cuda").iterdir())) == 2


def test_doctor_is_told_where_it_is_and_how_large(cache: Path) -> None:
    assert kept.kept_here() == (cache, 0, 0)
    kept_bytes("cuda", "a", Maker())
    kept_bytes("measured", "a", Maker())
    assert kept.kept_here() == (cache, 2, 72)


def test_the_machine_is_named_without_a_look_at_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of compiled code holds thousands of files, of which a benchmark's first line tells nothing."""

    def walked() -> None:
        raise AssertionError("the cache is walked")

    monkeypatch.setattr(doctor, "kept_here", walked)
    assert "GiB" in doctor.machine_words()


@pytest.mark.parametrize("cut", [0, 10, 35])
def test_what_is_half_written_or_damaged_is_made_again(cache: Path, cut: int) -> None:
    make = Maker()
    kept_bytes("cuda", "a", make)
    file = only(cache / "cuda")
    file.write_bytes(file.read_bytes()[:cut])
    assert kept_bytes("cuda", "a", make) == b"code"
    assert make.calls == 2
    damaged = bytearray(file.read_bytes())
    damaged[-1] ^= 1
    file.write_bytes(damaged)
    assert kept_bytes("cuda", "a", make) == b"code"
    assert make.calls == 3
    assert kept_bytes("cuda", "a", make) == b"code"
    assert make.calls == 3


def test_a_cache_that_cannot_be_written_costs_time_only(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "the disk is full")

    monkeypatch.setattr(kept, "AtomicFile", full)
    make = Maker()
    assert [kept_bytes("cuda", "a", make) for _ in range(2)] == [b"code"] * 2
    assert make.calls == 2


def test_old_measurements_are_made_again_and_code_is_not(cache: Path) -> None:
    make = Maker(b"1")
    for kind in ("measured", "cuda"):
        kept_bytes(kind, "a", make)  # type: ignore[arg-type]
        long_ago = time.time() - (kept.DAYS + 1) * 86400
        os.utime(only(cache / kind), (long_ago, long_ago))
        kept_bytes(kind, "a", make)  # type: ignore[arg-type]
    assert make.calls == 3


def test_two_that_make_the_same_at_once(cache: Path) -> None:
    """Both have found nothing before either has written; no temporary file is left."""
    both = threading.Barrier(2)

    def make() -> bytes:
        both.wait(10)
        return b"x" * 3_000_000

    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(lambda _: kept_bytes("cuda", "a", make), range(2)))
    assert {len(one) for one in made} == {3_000_000}
    assert only(cache / "cuda").stat().st_size == 3_000_032


def test_a_cuda_source_is_compiled_by_one_process_only(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Another source, another architecture, another definition and another NVRTC are compiled anew."""
    source, asked = tmp_path / "own.cu", list[tuple[Any, ...]]()
    source.write_text("one")

    def compile_source(text: bytes, name: str, options: tuple[str, ...]) -> bytes:
        asked.append((text, options))
        return b"machine code"

    capability, version = [(9, 0)], [(13, 0)]
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability[0])
    monkeypatch.setattr(cuda, "_nvrtc_version", lambda: version[0])
    monkeypatch.setattr(cuda, "compile_source", compile_source)

    def fresh_process(*defines: str) -> None:
        cuda.compiled.cache_clear()
        assert cuda.compiled(source, GPU, defines) == b"machine code"

    fresh_process()
    fresh_process()
    assert asked == [(b"one", ("--gpu-architecture=sm_90a", "-std=c++17"))]
    fresh_process("LISTED")
    assert asked[-1][1][-1] == "-DLISTED"
    capability[0] = (8, 9)
    fresh_process()
    assert asked[-1][1][0] == "--gpu-architecture=sm_89"
    version[0] = (13, 1)
    fresh_process()
    source.write_text("two")
    fresh_process()
    assert len(asked) == 5
    fresh_process()
    assert len(asked) == 5


@pytest.fixture
def hopper(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = SimpleNamespace(name="H", total_memory=1, major=9, minor=0, multi_processor_count=132)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: gpu)
    monkeypatch.setattr(kept, "_driver_version", lambda: 13000)


@pytest.mark.usefixtures("hopper")
def test_attention_is_tried_and_rates_are_measured_once_a_machine(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = (Trial("float8", 0.01), Trial("sage", float("inf"), "no kernel"))
    trials, rates = Maker(), Maker()
    monkeypatch.setattr(optimize, "fresh_trials", lambda *_: trials() and found)
    monkeypatch.setattr(fit, "measure_rates", lambda *_: rates() and Rates(1, 2, 3, 4, 5, 6))
    for _ in range(2):  # processes
        optimize.attention_trials.cache_clear()
        fit._rates.cache_clear()
        assert optimize.attention_trials(GPU, torch.bfloat16, 75600, 128, False) == found
        assert fit._rates("cuda:0", torch.bfloat16, "fast") == Rates(1, 2, 3, 4, 5, 6)
    assert (trials.calls, rates.calls) == (1, 1)
    assert fit._rates("cuda:0", torch.bfloat16, "exact").products == 1
    assert rates.calls == 2
    optimize.attention_trials.cache_clear()
    fit._rates.cache_clear()


@pytest.mark.usefixtures("hopper")
def test_a_trial_that_ran_out_of_memory_is_not_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trials = Maker()
    monkeypatch.setattr(
        optimize, "fresh_trials", lambda *_: trials() and (Trial("cudnn", float("inf"), "CUDA out of memory. Tried"),)
    )
    for _ in range(2):
        optimize.attention_trials.cache_clear()
        optimize.attention_trials(GPU, torch.bfloat16, 64, 128, False)
    assert trials.calls == 2
    optimize.attention_trials.cache_clear()


def test_networks_are_run_without_values_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = TransformerParams(dim=256, ffn_dim=256, num_heads=2, num_layers=5, text_width=8, image_width=None)
    calls = Maker()
    run = simulate.simulated_transformer
    monkeypatch.setattr(simulate, "simulated_transformer", lambda *a: calls() and run(*a))

    def cost() -> tuple[object, object]:
        simulate._kept_transformer.cache_clear()
        simulate._small_vae_cost.cache_clear()
        vae = simulate.vae_cost(VaeParams(base=8), (64, 64), 5, 1, None)
        return simulate.transformer_cost(small, torch.bfloat16, False, (64, 64), 5, None), vae

    first = cost()
    assert cost() == first
    assert calls.calls == 1
    assert len(list((cache / "planned").iterdir())) == 2


def test_the_same_cost_asked_for_in_two_spellings_is_found_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan asks for a transformer's cost with and without LoRAs, whose rank is 0 in most jobs."""
    calls = Maker()
    made = simulate.TransformerCost(1, 2, 3, 4.0, 5.0, 6.0)
    monkeypatch.setattr(simulate, "simulated_transformer", lambda *a: calls() and made)
    simulate._kept_transformer.cache_clear()
    shape = (TransformerParams(), torch.bfloat16, True, (1280, 720), 77, None)
    assert simulate.transformer_cost(*shape, processes=1) is simulate.transformer_cost(*shape, 0, 1)
    assert calls.calls == 1
    simulate._kept_transformer.cache_clear()
