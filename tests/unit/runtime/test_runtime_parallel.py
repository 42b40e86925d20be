"""Several processes give what one gives; a job whose rank dies ends with one clear message."""

from __future__ import annotations

import multiprocessing
import socket
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parent))
import rank_checks
from tiny_checkpoints import own_checkpoint


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What every rank of 2 and of 4 processes said to every check: a folder of files `check count rank`."""
    folder = tmp_path_factory.mktemp("said")
    lora = tmp_path_factory.mktemp("lora") / "lora.safetensors"
    torch.manual_seed(5)
    pair = {"blocks.1.ffn.0.lora_A.weight": torch.randn(2, 48), "blocks.1.ffn.0.lora_B.weight": torch.randn(64, 2)}
    save_file(pair, lora)
    own_checkpoint(lora.with_name("checkpoint"))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["rank_checks", "torch.distributed.fsdp"])
    for count in (2, 4):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        ranks = [context.Process(target=rank_checks.run, args=(r, count, port, folder, lora)) for r in range(count)]
        for process in ranks:
            process.start()
        end = time.monotonic() + 120
        for process in ranks:
            process.join(max(0.0, end - time.monotonic()))
            process.kill()
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "name"), [(count, name) for count, names in rank_checks.NAMES.items() for name in names]
)
def test_ranks(said: Path, name: str, count: int) -> None:
    for rank in range(count):
        file = said / f"{name} {count} {rank}"
        assert file.is_file(), f"rank {rank} did not get so far"
        assert file.read_text() == "ok", f"rank {rank}: {file.read_text()}"
