"""Encoders are opened for what is new; networks that threads bring to a GPU are the same."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_checkpoints import published_checkpoint
from torch import Tensor

from wanimate.weights import checkpoint as weights
from wanimate.weights import staging
from wanimate.weights.checkpoint import Checkpoint, PublishedImage, load_checkpoint
from wanimate.weights.locate import CLIP

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return published_checkpoint(tmp_path_factory.mktemp("encoders") / "checkpoint")


def test_a_picture_is_looked_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next job of the same character does not read CLIP again."""
    opened: list[Path] = []
    load = weights.load_image_encoder

    def counted(tensors: Any, source: Path, **settings: Any) -> Any:
        opened.append(source)
        return load(tensors, source, **settings)

    monkeypatch.setattr(weights, "load_image_encoder", counted)
    image = PublishedImage(folder / CLIP, CPU)
    one, other = torch.rand(2, 3, 40, 30) * 2 - 1
    first = image.encode(one)
    image.release()
    assert torch.equal(image.encode(one.clone()), first)
    assert len(opened) == 1
    assert not torch.equal(image.encode(other), first)
    assert len(opened) == 2


def test_pictures_are_looked_at_without_transformers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its import takes seconds."""
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert PublishedImage(folder / CLIP, CPU).encode(torch.zeros(3, 20, 20)).shape == (257, 32)


@pytest.mark.parametrize("compress", ["never", "all"])
def test_networks_that_threads_bring_are_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch, compress: Any) -> None:
    """The processor stands in for a GPU: every tensor goes through the threads, in small pieces."""

    def tensors(opened: Checkpoint) -> dict[str, Tensor]:
        assert opened.image is not None
        picture = torch.linspace(-1, 1, 3 * 20 * 20).view(3, 20, 20)
        found = {"picture": opened.image.encode(picture), "text": opened.prompts.encode(f"{compress} dances")}
        opened.release_encoders()
        networks = {"transformer": opened.transformer, "vae": opened.vae}
        return found | {f"{name}.{k}": v for name, net in networks.items() for k, v in net.state_dict().items()}

    wanted = tensors(load_checkpoint(folder, "cpu", compress=compress))
    moved: list[int] = []
    copy = staging._Lane.copy

    def counted(lane: Any, here: Tensor, there: Tensor, after: Any) -> None:
        moved.append(len(here))
        copy(lane, here, there, after)

    monkeypatch.setattr(staging._Lane, "copy", counted)
    monkeypatch.setattr(staging, "PIECE", 2000)
    monkeypatch.setattr(staging, "AHEAD", 60_000)
    monkeypatch.setattr(weights, "gpu_of", lambda device: CPU)
    monkeypatch.setenv("WANIMATE_CACHE", str(folder.parent / "other"))  # the prompt is new again
    found = tensors(load_checkpoint(folder, "cpu", compress=compress))
    assert sorted(found) == sorted(wanted)
    for key, value in wanted.items():
        assert found[key].dtype == value.dtype
        assert torch.equal(found[key].float(), value.float()), key
    assert max(moved) == 2000
    assert sum(moved) > 500_000
