"""The reader's training and its loss, recorded as CUDA graphs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mannequin.training.clip_latents import WorldClips
from mannequin.training.motion import TOLD
from mannequin.training.reader import FaceReader, Faces, ReaderTraining, Reading, load_reader, train_reader
from mannequin.training.recording import RecordedStep
from wanimate.train.steps import Step

CUDA = torch.device("cuda")


def faces(count: int, seed: int = 0, held_out: bool = False) -> Faces:
    generator = torch.Generator("cuda").manual_seed(seed)

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, device="cuda")

    low = 4 + 10 * rand(count, 1, 2)
    box = torch.cat((low, low + 9), dim=-1).expand(-1, 9, -1).contiguous()
    return Faces(rand(count, 16, 3, 32, 32).half(), rand(count, 9, len(TOLD)), box)


@pytest.mark.gpu
def test_a_recorded_error_is_the_error() -> None:
    torch.manual_seed(0)
    seen, off, sigma = faces(4), torch.randn(4, 16, 4, 32, 32, device="cuda"), torch.rand(4, device="cuda")
    given = WorldClips(seen.latents.float(), *[sigma] * 6, seen.box)
    reading = Reading(FaceReader().to(CUDA).requires_grad_(False), 1.0, 1.0, 3.0)
    share = nn.Parameter(torch.full((), 0.3, device="cuda"))

    def measure(off: Tensor, sigma: Tensor, *fields: Tensor) -> tuple[Tensor]:
        return (reading.error(share * off, sigma, WorldClips(*fields)),)

    found = []
    for kind in (Step, RecordedStep):
        step = kind(measure, [share])
        for _ in range(2):
            (error,) = step(off, sigma, *vars(given).values())
        assert share.grad is not None
        found.append(torch.stack((error, share.grad)).clone())
    assert (found[0] > 0).all()
    torch.testing.assert_close(found[1], found[0], rtol=1e-2, atol=1e-4)


@pytest.mark.gpu
def test_a_reader_is_trained_in_recorded_steps(tmp_path: Path) -> None:
    config = ReaderTraining(steps=20, seconds=1e9, batch=16, clips=16, first=2)
    trained = train_reader(config, faces, tmp_path, CUDA, record=True)
    assert all(torch.isfinite(weight).all() for weight in trained.parameters())
    known = load_reader(tmp_path, CUDA)
    assert all(torch.equal(a, b) for a, b in zip(known.parameters(), trained.parameters(), strict=True))
