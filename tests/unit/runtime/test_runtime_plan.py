"""The forecast is what really happens, and decides; out of memory mid-run takes a notch and goes on."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import save_file
from tiny_checkpoints import OWN, OWN_VAE, PUBLISHED, own_checkpoint, published_checkpoint, write_guides

from golden import fill
from wanimate.api import Animator
from wanimate.conditions.segments import plan_segments
from wanimate.config import GenerateSettings, OutputSettings, ParallelSettings, RuntimeSettings, Speed
from wanimate.errors import InputError, OutOfMemory
from wanimate.events import Finished, Notice, StepDone
from wanimate.measure.doctor import plan_job
from wanimate.media.video import VideoFrames
from wanimate.model.params import TransformerParams, VaeParams
from wanimate.model.transformer import AnimateTransformer
from wanimate.runtime.offload import StreamedBlocks, chunk_tokens
from wanimate.runtime.planning import plan as plans
from wanimate.runtime.planning import simulate, sizes
from wanimate.runtime.planning.plan import ALONE, Alternative, Machine, Placement, Plan, ResidentBytes, Work, make_plan
from wanimate.runtime.planning.rates import Rates, measure_rates
from wanimate.runtime.planning.simulate import transformer_cost, vae_cost
from wanimate.runtime.planning.sizes import GIB, Networks, network_sizes, networks
from wanimate.runtime.tiling import TiledVae
from wanimate.sampling.cache import Caching
from wanimate.types import FrameSource, Mode
from wanimate.weights.checkpoint import load_checkpoint
from wanimate.weights.locate import CheckpointConfig, read_checkpoint_config
from wanimate.weights.lora_view import LoraSizes
from wanimate.weights.stored import Stored

CUDA = torch.device("cuda")
RATES = Rates(700e12, 500e12, 100e12, 3e12, 50e9, 45e12)
FULL = TransformerParams()
KEYS = Path(__file__).parents[2] / "golden" / "keys"


@lru_cache
def full_size(setting: Any = "auto") -> Networks:
    """The published 14B, by its list of keys and shapes."""

    def stored(name: str, dtype: torch.dtype) -> dict[str, Stored]:
        shapes: dict[str, list[int]] = json.loads((KEYS / f"{name}.json").read_text())
        return {k: Stored(torch.Size(v), dtype, lambda: pytest.fail("a tensor was read")) for k, v in shapes.items()}

    transformer, vae = stored("transformer", torch.bfloat16), stored("vae", torch.float32)
    return network_sizes(transformer, vae, 11_361_000_000, CheckpointConfig(name="14B"), setting, CUDA, Path("14B"))


def work(size: tuple[int, int] = (1280, 720), count: int = 77, length: int = 77) -> Work:
    return Work(size, plan_segments(count, length, 1), 20)


def planned(
    gib: float, nets: Networks | None = None, job: Work | None = None, host: float = 128, **settings: Any
) -> Any:
    runtime = RuntimeSettings(**settings)
    room = int(gib * GIB)
    return make_plan(nets or full_size(), job or work(), runtime, Machine(CUDA, "card", room, int(host * GIB), RATES))


def allocated(call: Any) -> int:
    """Most bytes that PyTorch's own allocator had given out at once while `call` ran."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        call()
    changes = [e.nbytes() for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    return max(itertools.accumulate(changes))


@pytest.mark.parametrize("rows", [None, 20])
def test_the_forecast_of_a_step_is_what_a_step_takes(rows: int | None) -> None:
    model = fill(AnimateTransformer(PUBLISHED)).eval().requires_grad_(False)
    chunk_tokens(model, rows)
    height, width, length = 96, 128, 13
    frames = (length + 3) // 4
    face = torch.zeros(1, 3, length, PUBLISHED.motion.size, PUBLISHED.motion.size)
    with torch.inference_mode(), simulate._FusedAttention():
        x, y = (torch.randn(1, c, frames + 1, height // 8, width // 8) for c in (16, 20))
        pose = torch.randn(1, 16, frames, height // 8, width // 8)
        text, image = torch.randn(1, 512, PUBLISHED.text_width), torch.randn(1, 257, PUBLISHED.image_width)
        context = model.prepare(text, image, face, pose)
        kept = sum(t.nbytes for kv in (*context.cross, *context.face) for t in kv if isinstance(t, torch.Tensor))
        kept += context.pose.nbytes + sum(t.nbytes for t in context.rope)
        peak = allocated(lambda: model(x, torch.tensor([3]), y, context))
    cost = transformer_cost(PUBLISHED, torch.float32, False, (width, height), length, rows)
    assert cost.context == pytest.approx(kept, rel=0.02)
    assert cost.forward - cost.context == pytest.approx(peak, rel=0.1)


@pytest.mark.slow
def test_slices_float8_and_tiles_take_less() -> None:
    whole, sliced = (transformer_cost(FULL, torch.bfloat16, False, (832, 480), 21, rows) for rows in (None, 2048))
    assert sliced.forward < 0.7 * whole.forward
    assert whole.products == pytest.approx(2 * 7 * 1560 * 40 * 298.8e6, rel=0.05)
    sizes = [vae_cost(VaeParams(), (832, 480), 21, 1, side) for side in (None, 32, 16)]
    assert sizes[0].decode > 2 * sizes[1].decode > 2.4 * sizes[2].decode
    assert sizes[0].decode_flops < sizes[1].decode_flops < sizes[2].decode_flops


@pytest.mark.slow
def test_the_fastest_placement_that_fits_is_taken() -> None:
    """720p, 77 frames: what each config gets."""
    assert planned(139).placement == Placement("resident", None, None)
    assert planned(76).placement.blocks == "resident"
    assert planned(41).placement == Placement("resident", plans.TOKEN_CHUNK, planned(41).placement.tile)
    small = {gib: planned(gib) for gib in (23.5, 15.5)}
    for gib, plan in small.items():
        assert plan.placement.blocks == "streamed"
        assert plan.gpu < gib * GIB
        assert plan.host > full_size().blocks
    assert planned(12.5).placement.token_chunk == plans.TOKEN_CHUNK
    assert planned(11.5, full_size("fp8")).placement.blocks == "streamed"
    assert planned(7.5, full_size("fp8"), work((832, 480))).gpu < 7.5 * GIB


@pytest.mark.slow
def test_histories_of_step_caches_are_in_the_plan() -> None:
    """CG-Taylor at 720p keeps six tensors of 75,600 x 5,120 tokens in bfloat16."""
    caching = Caching("taylor", 0.18, 20)
    plain, cached = planned(139), planned(139, job=replace(work(), kept=caching.kept(1)))
    assert cached.stages["denoise"] - plain.stages["denoise"] == 6 * 75_600 * 5_120 * 2
    assert cached.stages["decode"] == plain.stages["decode"]


@pytest.mark.slow
def test_finishing_is_in_the_plan() -> None:
    """Frames are enlarged while they are decoded, and at no other time."""
    plain, finished = planned(139), planned(139, job=replace(work(), finishing=5 * GIB))
    assert finished.stages["decode"] - plain.stages["decode"] == 5 * GIB
    assert finished.stages["denoise"] == plain.stages["denoise"]


@pytest.mark.slow
def test_loras_are_in_the_plan() -> None:
    """As large as the published relighting LoRA: 718 million values in bfloat16, rank 128 on all linears of the blocks."""
    values = 718_000_000
    beside = replace(work(), loras=LoraSizes(beside=2 * values, rank=128, values=values))
    plain, with_lora = planned(139), planned(139, job=beside)
    for stage in ("conditions", "denoise", "decode"):
        assert with_lora.stages[stage] - plain.stages[stage] == 2 * values
    taken = 2 * work().tokens * values / RATES.singles
    assert plain.step_seconds + taken < with_lora.step_seconds < plain.step_seconds + 2 * taken

    all_blocks = LoraSizes(blocks=full_size().blocks // 2, block=full_size().block // 2)
    fused = replace(work(), loras=all_blocks)
    assert planned(139, job=fused).stages["denoise"] - plain.stages["denoise"] == full_size().blocks
    assert planned(60, job=fused).placement.blocks == "streamed" != planned(60).placement.blocks
    assert planned(23.5, job=fused).host - planned(23.5).host == full_size().blocks
    mapped = planned(23.5, job=fused, blocks="mapped")
    assert mapped.host - planned(23.5, blocks="mapped").host == full_size().blocks
    copies_alone = planned(23.5, job=fused, host=mapped.host / GIB + 1)
    assert copies_alone.placement.blocks == "mapped"
    with pytest.raises(OutOfMemory, match="host memory"):
        planned(23.5, job=fused, host=mapped.host / GIB - 1)


def test_networks_that_are_there_already_count_once() -> None:
    first = planned(139)
    held = ResidentBytes(host=100 * GIB)
    room = (139 * GIB, 128 * GIB)
    later = make_plan(full_size(), work(), RuntimeSettings(), Machine(CUDA, "card", *room, RATES), held=held)
    assert later.gpu == first.gpu
    assert later.host < first.host
    new = replace(work(), new_prompt=True)
    held = ResidentBytes(gpu=130 * GIB)
    assert "prompt" in planned(139, job=new).stages
    assert (
        "prompt"
        not in make_plan(full_size(), new, RuntimeSettings(), Machine(CUDA, "card", *room, RATES), held=held).stages
    )


@pytest.mark.slow
def test_host_memory_counts() -> None:
    assert planned(23.5, host=20).placement.blocks == "mapped"
    with pytest.raises(OutOfMemory, match=r"of 20\.0 GiB of host memory"):
        planned(23.5, replace(full_size(), as_stored=False), host=20)


def test_settings_are_kept() -> None:
    plan = planned(139, blocks="streamed", vae_tile=256)
    assert plan.placement == Placement("streamed", None, 32)
    with pytest.raises(OutOfMemory):
        planned(23.5, blocks="resident")
    with pytest.raises(InputError, match="blocks = mapped"):
        planned(23.5, full_size("fp8"), blocks="mapped")


@pytest.mark.slow
def test_nothing_fits_names_the_nearest_setting() -> None:
    def others() -> Iterator[Alternative]:
        yield "--clip-length 61", full_size(), work(length=61), ALONE
        yield "--area 832x480", full_size(), work((832, 480)), ALONE

    with pytest.raises(OutOfMemory, match=r"needs at least .*It fits with --area 832x480\.") as caught:
        make_plan(
            full_size(), work(), RuntimeSettings(), Machine(CUDA, "card", 9 * GIB, 128 * GIB, RATES), others
        )  # fmt: skip
    assert caught.value.exit_code == 3
    with pytest.raises(OutOfMemory, match="No smaller setting"):
        make_plan(full_size(), work(), RuntimeSettings(), Machine(CUDA, "card", GIB, 128 * GIB, RATES), others)


@pytest.mark.parametrize(
    ("size", "setting", "speed", "shard", "measured"),
    [
        ((1280, 720), "fp8", "fast", False, 22.1),
        ((1280, 720), "bf16", "exact", True, 24.2),
        pytest.param((1280, 720), "bf16", "exact", False, 38.0, marks=pytest.mark.slow),
        pytest.param((832, 480), "bf16", "exact", False, 35.3, marks=pytest.mark.slow),
        pytest.param((832, 480), "fp8", "fast", False, 19.4, marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_two_gpus_take_what_was_measured(
    size: tuple[int, int], setting: str, speed: Any, shard: bool, measured: float
) -> None:
    """GiB a GPU without VAE and frames, which a job has besides (benchmarks/results/two_gpus_h100_2026-11-27.md)."""
    nets, spread = full_size(setting), ParallelSettings(gpus=2, shard_weights=shard)
    runtime, room = RuntimeSettings(speed=speed), 80 * GIB
    plan = make_plan(
        nets, work(size), runtime, Machine(CUDA, "card", room, 128 * GIB, RATES, eight=True), spread=spread
    )
    frames = 12 * 77 * size[0] * size[1] + 6 * 77 * 512**2
    network = plan.stages["denoise"] - frames - nets.vae // (1 if speed == "exact" else 2)
    assert network / GIB == pytest.approx(measured, rel=0.03)
    alone = make_plan(nets, work(size), runtime, Machine(CUDA, "card", room, 128 * GIB, RATES, eight=True))
    assert 0.45 < plan.step_seconds / alone.step_seconds < 0.6
    assert ("sharded" in str(plan)) == shard


@pytest.mark.slow
def test_several_gpus_that_are_too_small() -> None:
    """Sharded weights are named where they help; all processes count in the host's memory."""
    nets, two = full_size("bf16"), ParallelSettings(gpus=2)

    def others() -> Iterator[Alternative]:
        yield "--shard-weights", nets, work(), two.model_copy(update={"shard_weights": True})

    with pytest.raises(OutOfMemory, match=r"of each GPU and .*It fits with --shard-weights\."):
        make_plan(
            nets, work(), RuntimeSettings(), Machine(CUDA, "card", 40 * GIB, 128 * GIB, RATES), others, spread=two
        )
    fits = make_plan(nets, work(), RuntimeSettings(), Machine(CUDA, "card", 80 * GIB, 128 * GIB, RATES), spread=two)
    with pytest.raises(OutOfMemory, match="No smaller setting"):
        make_plan(
            nets, work(), RuntimeSettings(), Machine(CUDA, "card", 80 * GIB, int(1.5 * fits.host), RATES), spread=two
        )  # fmt: skip


def test_branches_on_halves_of_the_gpus() -> None:
    guided = replace(work(), branches=2)
    plans_ = [
        make_plan(
            full_size("bf16"),
            guided,
            RuntimeSettings(),
            Machine(CUDA, "card", 80 * GIB, 256 * GIB, RATES),
            spread=spread,
        )
        for spread in (ParallelSettings(gpus=4), ParallelSettings(gpus=4, split_guidance=True))
    ]
    assert plans_[1].step_seconds == pytest.approx(plans_[0].step_seconds, rel=0.1)
    assert plans_[1].stages["denoise"] > plans_[0].stages["denoise"]


@pytest.mark.slow
def test_seconds_follow_the_rates() -> None:
    fast = replace(RATES, memory=1e20)
    plan = make_plan(full_size(), work(), RuntimeSettings(), Machine(CUDA, "card", 139 * GIB, 128 * GIB, fast))
    assert plan.step_seconds == pytest.approx(1871e12 / 700e12 + 4730e12 / 500e12, rel=0.03)
    assert plan.clip_seconds > 20 * plan.step_seconds
    two = make_plan(full_size(), work(count=153), RuntimeSettings(), Machine(CUDA, "card", 139 * GIB, 128 * GIB, fast))
    assert two.clip_seconds == pytest.approx(2 * plan.clip_seconds, rel=0.02)
    streamed = RuntimeSettings(blocks="streamed")
    copying = Machine(CUDA, "card", 139 * GIB, 128 * GIB, replace(RATES, copies=1e9))
    slow = make_plan(full_size(), work((832, 480)), streamed, copying)
    assert slow.step_seconds == pytest.approx(full_size().blocks / 1e9)
    assert measure_rates(torch.device("cpu"), torch.float32).products > 1e9


@pytest.mark.parametrize("setting", ["auto", "fp8", "bf16"])
def test_sizes_in_memory_are_those_of_the_loaded_networks(setting: Any, tmp_path: Path) -> None:
    folder = own_checkpoint(tmp_path / "int8", quantized=True)
    nets = networks(folder, read_checkpoint_config(folder)[1], setting, torch.device("cpu"))
    dtype, compress = sizes.weights_type(setting, torch.device("cpu"))
    loaded = load_checkpoint(folder, "cpu", dtype, compress)
    state = loaded.transformer.state_dict()
    taken = sum(t.nbytes for key, t in state.items() if key.startswith("blocks."))
    assert nets.blocks == taken
    assert nets.rest == sum(t.nbytes for t in state.values()) - taken
    assert nets.block == taken / OWN.num_layers
    assert nets.vae == sum(t.nbytes for t in loaded.vae.state_dict().values())
    assert (nets.params, nets.vae_params, nets.quantized) == (OWN, OWN_VAE, setting == "fp8")


def test_doctor_plans_a_job(tmp_path: Path) -> None:
    folder = published_checkpoint(tmp_path / "tiny-14b")
    settings = GenerateSettings(clip_length=9, steps=3)
    report = plan_job(folder, None, 64 * 36, settings, RuntimeSettings(device="cpu"))
    assert report["job"] == "9 frames of 64x32, 1 segments of up to 9"
    assert report["weights"] == "fp32"
    assert float(report["host, peak"].split()[0]) > psutil.Process().memory_info().rss / GIB / 2
    assert report["seconds for the clip"] >= 0


@pytest.mark.parametrize(
    ("mode", "more", "told"),
    [
        ("animation", {}, None),
        ("animation", {"lora": ("hero.safetensors:0.8",)}, "hero.safetensors:0.8"),
        ("animation", {"lora": ("hero.safetensors:1@0-50%",), "lora_fuse": True}, "hero.safetensors:1@0-50%"),
        ("replacement", {}, "relighting_lora.safetensors:1"),
        ("replacement", {"lora": ("hero.safetensors",)}, "hero.safetensors:1, relighting_lora.safetensors:1"),
        ("replacement", {"relight": False}, None),
    ],
)
@pytest.mark.parametrize("speed", ["turbo", pytest.param("exact", marks=pytest.mark.slow)])
def test_doctor_plans_the_work_of_the_run(
    mode: Mode, more: dict[str, Any], told: str | None, speed: Speed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LoRAs and step cache: the very numbers of a run with the same settings."""
    folder = published_checkpoint(tmp_path / "tiny-14b")
    guides = write_guides(tmp_path / "guides", 9, replacement=mode == "replacement")
    parts = {"lora_A": (4, 128), "lora_B": (64, 4)}
    tensors = {f"blocks.0.ffn.0.{part}.weight": torch.ones(shape) for part, shape in parts.items()}
    for file in (tmp_path / "hero.safetensors", folder / "relighting_lora.safetensors"):
        save_file(tensors, file)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("wanimate.runtime.planning.sizes.BIG", 0)
    seen: list[Work] = []

    def noted(nets: Networks, work: Work, *rest: Any) -> Plan:
        seen.append(work)
        return make_plan(nets, work, *rest)

    monkeypatch.setattr("wanimate.runtime.planning.fit.make_plan", noted)
    settings = GenerateSettings(clip_length=9, prompt="a person", **more)
    runtime = RuntimeSettings(speed=speed, device="cpu")
    report = plan_job(folder, None, 32 * 16, settings, runtime, mode)
    events = Animator.from_checkpoint(folder, "cpu", runtime).generate(guides, tmp_path / "out.mp4", settings)
    with closing(events):  # type: ignore[type-var]
        next(e for e in events if isinstance(e, Notice) and e.message.startswith("plan: "))
    forecast, run = seen
    assert forecast == run
    assert (forecast.kept > 0) == (speed == "turbo")
    assert (forecast.loras == LoraSizes()) == (told is None)
    assert (forecast.loras.blocks > 0) == settings.lora_fuse
    assert report.get("LoRAs") == told
    assert "note" not in report


def test_doctor_refuses_and_tells_as_a_run_does(tmp_path: Path) -> None:
    folder = published_checkpoint(tmp_path / "tiny-14b")
    wrong = tmp_path / "wrong.safetensors"
    save_file({"elsewhere.lora_A.weight": torch.ones(4, 9), "elsewhere.lora_B.weight": torch.ones(9, 4)}, wrong)

    def report(mode: Mode = "animation", **more: Any) -> dict[str, Any]:
        return plan_job(folder, None, 32 * 16, GenerateSettings(**more), RuntimeSettings(device="cpu"), mode)

    with pytest.raises(InputError, match="has no place in this transformer"):
        report(lora=(f"{wrong}",))
    with pytest.raises(InputError, match=r"lora = .*nowhere\.safetensors"):
        report(lora=(f"{tmp_path}/nowhere.safetensors",))
    with pytest.raises(InputError, match="none of the 20 steps lies in 1-2%"):
        report(lora=(f"{wrong}@1-2%",))
    with pytest.raises(InputError, match="holds no relighting LoRA"):
        report("replacement", relight=True)
    assert "no effect in animation" in report(relight=True)["note"]


class Greedy:
    """Raises an out-of-memory error at the given calls of a function, then lets it through."""

    def __init__(self, function: Any, failing: tuple[int, ...]) -> None:
        self.function, self.failing, self.calls = function, failing, 0

    def __call__(self, *args: Any, **more: Any) -> Any:
        self.calls += 1
        if self.calls - 1 in self.failing:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return self.function(*args, **more)


def frames_of(animator: Animator, guides: Path, out: Path) -> tuple[FrameSource, list[Any]]:
    settings = GenerateSettings(steps=2, seed=3)
    events = list(animator.generate(guides, out, settings, OutputSettings(codec="ffv1")))
    video = VideoFrames(out)
    return video.take(range(video.count)), events


@pytest.mark.parametrize(
    ("where", "calls", "placement"),
    [
        pytest.param("forward", (3,), Placement("resident", plans.TOKEN_CHUNK, None), marks=pytest.mark.slow),
        ("forward", (1, 3), Placement("streamed", plans.TOKEN_CHUNK, None)),
        ("decode", (1,), Placement("resident", None, 64)),
        pytest.param("encode", (0,), Placement("resident", None, 64), marks=pytest.mark.slow),
        ("encode", (2,), Placement("resident", None, 64)),
    ],
)
def test_out_of_memory_takes_a_notch_and_goes_on(
    where: str, calls: tuple[int, ...], placement: Placement, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """13 frames in two segments: the same frames come out, each once, and finished segments are not made again."""
    folder, guides = own_checkpoint(tmp_path / "tiny"), write_guides(tmp_path / "guides", 13)
    wanted, _ = frames_of(Animator.from_checkpoint(folder, "cpu"), guides, tmp_path / "a.mkv")
    animator = Animator.from_checkpoint(folder, "cpu")
    target = {
        "forward": animator.checkpoint.transformer.head, "decode": animator.checkpoint.vae.decoder,
        "encode": animator.checkpoint.vae.encoder,
    }[where]  # fmt: skip
    if where == "forward":
        monkeypatch.setattr(type(target), "forward", greedy := Greedy(type(target).forward, calls))
        monkeypatch.setattr(type(target), "forward", lambda *a: greedy(*a))
    else:
        name = {"decode": "decode_pieces", "encode": "encode"}[where]
        greedy = Greedy(getattr(TiledVae, name), calls)
        monkeypatch.setattr(TiledVae, name, lambda *a, **more: greedy(*a, **more))
    got, events = frames_of(animator, guides, tmp_path / "b.mkv")
    assert animator.engine.networks.placement == placement
    assert isinstance(animator.checkpoint.transformer.blocks, StreamedBlocks) == (placement.blocks == "streamed")
    assert abs(got.astype(int) - wanted.astype(int)).max() <= 1
    told = [e.message for e in events if isinstance(e, Notice) and "too little memory" in e.message]
    assert len(told) == len(calls)
    steps = [(e.segment, e.step) for e in events if isinstance(e, StepDone)]
    if where == "forward" and calls == (3,):
        assert steps == [(0, 1), (0, 2), (1, 1), (1, 1), (1, 2)]
    record = json.loads((tmp_path / "b.json").read_text())
    assert record["placement"] == str(placement)
    assert record["memory"]["host"] > 0


@pytest.mark.slow
def test_when_nothing_is_left_to_give_it_is_exit_3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, guides = own_checkpoint(tmp_path / "tiny"), write_guides(tmp_path / "guides", 5)
    greedy = Greedy(None, tuple(range(99)))
    monkeypatch.setattr(AnimateTransformer, "forward", lambda *a: greedy(*a))
    with pytest.raises(OutOfMemory) as caught:
        frames_of(Animator.from_checkpoint(folder, "cpu"), guides, tmp_path / "out.mkv")
    assert caught.value.exit_code == 3
    assert greedy.calls == 6  # whole, 8192 tokens, streamed, 4096, 2048, 1024
    assert not (tmp_path / "out.mkv").exists()


def test_a_large_checkpoint_tells_its_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, guides = published_checkpoint(tmp_path / "tiny-14b"), write_guides(tmp_path / "guides", 5)
    monkeypatch.setattr("wanimate.runtime.planning.sizes.BIG", 0)
    settings = GenerateSettings(steps=1, seed=3, prompt="a person")
    events = list(
        Animator.from_checkpoint(folder, "cpu").generate(
            guides, tmp_path / "o.mkv", settings, OutputSettings(codec="ffv1")
        )
    )
    assert any(
        isinstance(e, Notice) and e.message.startswith("plan: CPU, weights fp32, blocks resident") for e in events
    )
    assert isinstance(events[-1], Finished)
    record = json.loads((tmp_path / "o.json").read_text())
    assert record["memory"]["planned_host"] > 0
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": -(10**15), "total": 1}))
    with pytest.raises(OutOfMemory, match="the job needs at least"):
        list(Animator.from_checkpoint(folder, "cpu").generate(guides, tmp_path / "p.mkv", settings))


@pytest.mark.parametrize(
    "runtime", [{"blocks": "streamed"}, {"blocks": "mapped"}, {"weights_dtype": "fp8"}, {"vae_tile": 128}]
)
def test_placements_that_are_asked_for(runtime: dict[str, Any], tmp_path: Path) -> None:
    folder, guides = own_checkpoint(tmp_path / "tiny"), write_guides(tmp_path / "guides", 6)
    wanted, _ = frames_of(Animator.from_checkpoint(folder, "cpu"), guides, tmp_path / "a.mkv")
    animator = Animator.from_checkpoint(folder, "cpu", RuntimeSettings.model_validate(runtime))
    got, _ = frames_of(animator, guides, tmp_path / "b.mkv")
    difference = abs(got.astype(int) - wanted.astype(int))
    assert difference.max() <= (0 if "blocks" in runtime else 255)
    assert difference.mean() < 3
