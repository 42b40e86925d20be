"""The VAE on a processor: the same numbers by oneDNN, close ones in bfloat16 where the processor has it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from tiny_checkpoints import own_checkpoint
from torch import Tensor

from golden import fill
from wanimate.config import ParallelSettings, RuntimeSettings, Speed
from wanimate.model.params import VaeParams
from wanimate.model.vae import VideoVae
from wanimate.runtime import processor
from wanimate.runtime.parallel.ranks import Group, Ranks
from wanimate.runtime.parallel.team import worker_for
from wanimate.runtime.placement import PlacedNetworks
from wanimate.runtime.planning import sizes
from wanimate.weights.checkpoint import Checkpoint, drained, load_checkpoint
from wanimate.weights.locate import read_checkpoint_config

VIDEO = torch.rand(1, 3, 9, 32, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1


def coded(vae: VideoVae) -> tuple[Tensor, Tensor]:
    """Latents of VIDEO and the frames of other latents, both in pieces."""
    latents = torch.randn(1, 16, 3, 4, 6, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return vae.encode(VIDEO), vae.decode(latents).float()


def quickened(vae: VideoVae, speed: Speed) -> VideoVae:
    twin = copy.deepcopy(vae)
    processor.optimize_vae_here(twin, speed)
    return twin


@pytest.fixture(scope="module")
def vae() -> VideoVae:
    return fill(VideoVae(VaeParams(base=8, res_blocks=1))).eval().requires_grad_(False).channels_last()


def test_exact_is_the_network_as_written(vae: VideoVae) -> None:
    for ours, plain in zip(coded(quickened(vae, "exact")), coded(vae), strict=True):
        assert torch.allclose(ours, plain, atol=1e-5 * float(plain.abs().max()))


def test_every_convolution_in_time_goes_to_onednn(vae: VideoVae, monkeypatch: pytest.MonkeyPatch) -> None:
    twin = quickened(vae, "exact")
    if "_conv_forward" not in twin.conv1.__dict__:
        pytest.skip("this PyTorch has no oneDNN")

    def refused(*_: object, **__: object) -> Tensor:
        raise AssertionError("PyTorch's own loop")

    monkeypatch.setattr("torch.nn.functional.conv3d", refused)
    coded(twin)
    with pytest.raises(AssertionError, match="own loop"):
        coded(vae)


@pytest.mark.slow
def test_fast_is_bfloat16_only_where_it_is_multiplied(monkeypatch: pytest.MonkeyPatch) -> None:
    packaged = load_checkpoint(device="cpu").vae
    monkeypatch.setattr(processor, "has_bf16", lambda device: False)
    assert quickened(packaged, "fast").dtype == torch.float32
    monkeypatch.setattr(processor, "has_bf16", lambda device: True)
    fast = quickened(packaged, "fast")
    assert fast.dtype == torch.bfloat16
    for ours, plain in zip(coded(fast), coded(packaged), strict=True):
        assert float((ours - plain).norm() / plain.norm()) < 0.03


def loaded_alone(folder: Path, runtime: RuntimeSettings) -> Checkpoint:
    return drained(PlacedNetworks(*read_checkpoint_config(folder), torch.device("cpu"), runtime).open())


def loaded_by_a_rank(folder: Path, runtime: RuntimeSettings, shard_weights: bool = False) -> Checkpoint:
    ranks = Ranks(torch.device("cpu"), Group(), None, None, None)
    settings = ParallelSettings(shard_weights=shard_weights)
    return drained(worker_for(ranks, folder, settings, runtime, None)).checkpoint


@pytest.mark.parametrize("load", [loaded_alone, loaded_by_a_rank, partial(loaded_by_a_rank, shard_weights=True)])
def test_a_rank_loads_as_one_process_does(
    load: Callable[[Path, RuntimeSettings], Checkpoint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = own_checkpoint(tmp_path / "tiny")
    for module in (sizes, processor):
        monkeypatch.setattr(module, "has_bf16", lambda device: True)
    types: dict[Speed, torch.dtype] = {"exact": torch.float32, "fast": torch.bfloat16}
    for speed, dtype in types.items():
        checkpoint = load(folder, RuntimeSettings(speed=speed))
        assert (checkpoint.transformer.dtype, checkpoint.vae.dtype) == (dtype, dtype)
        by_onednn = "_conv_forward" in checkpoint.vae.conv1.__dict__
        assert by_onednn == ("_conv_forward" in quickened(load_checkpoint(folder, "cpu").vae, speed).conv1.__dict__)
    half = load(folder, RuntimeSettings(weights_dtype="fp16"))
    assert half.transformer.dtype == torch.float16


def test_a_gpu_is_no_processor() -> None:
    assert not processor.has_bf16(torch.device("cuda", 0))
