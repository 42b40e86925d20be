"""Every job of an Animator gets its plan, and open networks go where it wants them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tiny_checkpoints import own_checkpoint, published_checkpoint, write_guides

from wanimate.api import Animator
from wanimate.config import BlocksMode, GenerateSettings, LoraUse, OutputSettings, RuntimeSettings
from wanimate.errors import InputError, OutOfMemory
from wanimate.events import Notice
from wanimate.media.video import VideoFrames
from wanimate.runtime import offload
from wanimate.runtime import placement as placing
from wanimate.runtime.offload import StreamedBlocks
from wanimate.runtime.planning.plan import Placement, Plan, ResidentBytes
from wanimate.types import FrameSource

LOSSLESS = OutputSettings(codec="ffv1")


def frames_of(animator: Animator, guides: Path, out: Path, **settings: Any) -> tuple[FrameSource, list[str]]:
    generate = GenerateSettings(steps=2, seed=3, **settings)
    told = [e.message for e in animator.generate(guides, out, generate, LOSSLESS) if isinstance(e, Notice)]
    video = VideoFrames(out)
    return video.take(range(video.count)), told


@pytest.mark.slow
def test_a_later_job_moves_the_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Into host memory, from there into the file for want of room, and back; the frames stay the same."""
    folder, guides = own_checkpoint(tmp_path / "tiny"), write_guides(tmp_path / "guides", 9)
    plan = Plan("CPU", "fp32", Placement(), 0, 0, 0, {}, 1.0, 1.0)
    wanted = [Placement(), Placement("streamed", 8, 64), Placement("mapped"), Placement()]
    plans = iter([replace(plan, placement=placement) for placement in wanted])
    held: list[ResidentBytes] = []

    def planned(*args: Any, **more: Any) -> Plan:
        held.append(more["held"])
        return next(plans)

    monkeypatch.setattr("wanimate.runtime.planning.sizes.BIG", 0)
    monkeypatch.setattr(placing, "plan_for", planned)
    animator = Animator.from_checkpoint(folder, "cpu")
    found, first = [], None
    for i in range(len(wanted)):
        frames, told = frames_of(animator, guides, tmp_path / f"{i}.mkv")
        first = frames if first is None else first
        assert abs(frames.astype(int) - first.astype(int)).max() <= 1
        assert sum(message.startswith("plan: ") for message in told) == 1
        streamed = isinstance(animator.checkpoint.transformer.blocks, StreamedBlocks)
        found.append((animator.engine.networks.placement, streamed))
    assert found == [
        (wanted[0], False), (wanted[1], True), (wanted[2], True), (wanted[3], False)
    ]  # fmt: skip
    networks = (animator.checkpoint.transformer, animator.checkpoint.vae)
    taken = sum(t.nbytes for n in networks for t in (*n.parameters(), *n.buffers()))
    assert held == [
        ResidentBytes(),
        ResidentBytes(host=taken),
        ResidentBytes(host=taken),
        ResidentBytes(),
    ]  # the file's memory is not the process's


@pytest.mark.parametrize("blocks", ["streamed", "mapped", "resident"])
def test_fused_loras_of_streamed_blocks_are_page_locked(
    blocks: BlocksMode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was changed, once; the next job is without a trace of it."""
    folder, guides, lora = own_checkpoint(tmp_path / "tiny"), write_guides(tmp_path / "guides", 9), tmp_path / "a.pt"
    torch.save(
        {"blocks.0.ffn.0.lora_A.weight": torch.ones(4, 32), "blocks.0.ffn.0.lora_B.weight": torch.ones(48, 4)}, lora
    )
    locked: list[int] = []
    monkeypatch.setattr(offload, "_lock", lambda memory: locked.append(memory.nbytes))
    animator = Animator.from_checkpoint(folder, "cpu", RuntimeSettings(blocks=blocks))
    plain, _ = frames_of(animator, guides, tmp_path / "a.mkv")
    assert locked == []
    with_lora, _ = frames_of(animator, guides, tmp_path / "b.mkv", lora=(LoraUse(path=lora),), lora_fuse=True)
    assert locked == ([] if blocks == "resident" else [4 * 48 * 32])
    again, _ = frames_of(animator, guides, tmp_path / "c.mkv")
    assert (again == plain).all()
    assert (with_lora != plain).any()


def test_a_later_job_that_does_not_fit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, guides = own_checkpoint(tmp_path / "tiny"), write_guides(tmp_path / "guides", 5)
    animator = Animator.from_checkpoint(folder, "cpu")
    frames_of(animator, guides, tmp_path / "a.mkv")
    with monkeypatch.context() as small:
        small.setattr("wanimate.runtime.planning.sizes.BIG", 0)
        small.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": -(10**15)}))
        with pytest.raises(OutOfMemory, match="the job needs at least"):
            frames_of(animator, guides, tmp_path / "b.mkv")
    frames_of(animator, guides, tmp_path / "b.mkv")


def test_a_lora_that_does_not_match_is_refused_with_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the transformer is brought in."""
    folder, guides = published_checkpoint(tmp_path / "tiny-14b"), write_guides(tmp_path / "guides", 5)
    monkeypatch.setattr("wanimate.runtime.planning.sizes.BIG", 0)
    good, bad = tmp_path / "good.safetensors", tmp_path / "bad.safetensors"
    save_file(
        {"blocks.0.ffn.0.lora_A.weight": torch.ones(4, 128), "blocks.0.ffn.0.lora_B.weight": torch.ones(64, 4)}, good
    )
    save_file(
        {"blocks.0.ffn.0.lora_A.weight": torch.ones(4, 9), "blocks.0.ffn.0.lora_B.weight": torch.ones(64, 4)}, bad
    )
    animator = Animator.from_checkpoint(folder, "cpu")
    with pytest.raises(InputError, match=r"has the shape \[4, 9\]"):
        frames_of(animator, guides, tmp_path / "a.mkv", lora=(LoraUse(path=bad),))
    assert not animator.engine.networks.is_open
    _, told = frames_of(animator, guides, tmp_path / "a.mkv", lora=(LoraUse(path=good),))
    assert any(message.startswith("plan: CPU") for message in told)
