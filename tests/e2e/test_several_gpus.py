"""`--gpus 2` as a user runs it, on processes of the CPU with tiny random networks: the same frames, and clean ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "weights"))
from tiny_checkpoints import own_checkpoint, write_guides

from wanimate.media.video import VideoFrames

CLI = "from wanimate.cli.main import main; main()"
PLANNED = "from wanimate.runtime.planning import sizes; sizes.BIG = 0; " + CLI
ENDLESS = ["--gpus", 2, "--steps", 1000000]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    own_checkpoint(folder / "checkpoint")
    write_guides(folder / "guides", 14)
    return folder


def words(place: Path, out: Path, *more: object) -> list[str]:
    job = ["generate", place / "guides", "--out", out, "--checkpoint", place / "checkpoint", "--seed", 3, "--json"]
    return [str(word) for word in (*job, "--codec", "ffv1", *more)]


def start(*line: object) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        [str(word) for word in line], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def command(*more: object, code: str = CLI) -> subprocess.Popen[str]:
    return start(sys.executable, "-c", code, *more)


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def until_it_steps(job: subprocess.Popen[str]) -> dict[int, psutil.Process]:
    """Waits for the first step; the ranks by number. The job's own process is rank 0."""
    assert job.stdout is not None
    for line in job.stdout:
        if json.loads(line)["event"] == "step":
            break
    others = [rank for rank in psutil.Process(job.pid).children() if "WANIMATE_RANKS" in rank.environ()]
    return {int(rank.environ()["RANK"]): rank for rank in others}


def ended(job: subprocess.Popen[str], ranks: dict[int, psutil.Process], out: Path) -> list[dict[str, Any]]:
    """What a broken-off job said last; nothing is left of it."""
    said, _ = job.communicate(timeout=60)
    assert not [rank for rank in ranks.values() if rank.is_running() and rank.status() != psutil.STATUS_ZOMBIE]
    assert not out.parent.exists(), "the folder was made for the result"
    return [event for event in events(said) if event["event"] in ("error", "result")]


@pytest.mark.slow
def test_a_killed_rank_ends_the_job(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "a.mkv"
    job = command(*words(place, out, *ENDLESS))
    ranks = until_it_steps(job)
    began = time.monotonic()
    ranks[1].kill()
    (error,) = ended(job, ranks, out)
    assert time.monotonic() - began < 15
    assert job.returncode == 1
    assert error["message"] == "rank 1 of 2 was killed by signal 9 (SIGKILL); the job was stopped"
    assert error["kind"] == "RankFailed"


@pytest.mark.slow
@pytest.mark.parametrize("options", [["--guidance", 2], ["--guidance", 2, "--shard-weights", "--split-guidance"]])
def test_the_same_frames(place: Path, tmp_path: Path, options: list[object]) -> None:
    frames = []
    for name, more in (("one.mkv", []), ("two.mkv", ["--gpus", 2])):
        given = words(place, tmp_path / name, *options[:2], *(options[2:] if more else []), *more)
        job = command(*given, code=PLANNED)
        said, wrong = job.communicate(timeout=120)
        assert job.returncode == 0, wrong
        assert [e["event"] for e in events(said)].count("result") == 1
        (plan,) = (e["message"] for e in events(said) if e["event"] == "notice" and e["message"].startswith("plan: "))
        assert plan.startswith("plan: 2 x CPU, " if more else "plan: CPU, ")
        assert ("blocks sharded" in plan) == ("--shard-weights" in given)
        video = VideoFrames(tmp_path / name)
        frames.append(video.take(range(video.count)).astype(int))
    difference = np.abs(frames[0] - frames[1])
    assert difference.max() <= 1
    assert difference.mean() < 1e-3
    assert json.loads((tmp_path / "two.json").read_text())["gpus"] == 2


@pytest.mark.slow
def test_torchrun(place: Path, tmp_path: Path) -> None:
    script = tmp_path / "job.py"
    script.write_text(CLI)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", 2, script]
    job = start(*torchrun, *words(place, tmp_path / "a.mkv"))
    said, wrong = job.communicate(timeout=120)
    assert job.returncode == 0, wrong
    assert events(said)[-1]["frames"] == 14
    assert json.loads((tmp_path / "a.json").read_text())["gpus"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_stopping_the_job(place: Path, tmp_path: Path, stop: signal.Signals) -> None:
    out = tmp_path / "out" / "a.mkv"
    job = command(*words(place, out, *ENDLESS))
    ranks = until_it_steps(job)
    job.send_signal(stop)
    (error,) = ended(job, ranks, out)
    assert (job.returncode, error["kind"]) == (130, "Cancelled")


@pytest.mark.slow
def test_a_killed_supervisor_takes_its_ranks_with_it(place: Path, tmp_path: Path) -> None:
    job = command(*words(place, tmp_path / "a.mkv", *ENDLESS))
    ranks = until_it_steps(job)
    job.kill()
    gone, alive = psutil.wait_procs(ranks.values(), timeout=10)
    assert (len(gone), alive) == (1, [])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (["--gpus", 3], 2, "it has to divide the 2 attention heads"),
        (["--gpus", 2, "--clip-length", 6], 2, "it has to be 4n+1"),
    ],
)
def test_bad_settings_are_said_once(place: Path, tmp_path: Path, more: list[object], code: int, said: str) -> None:
    job = command(*words(place, tmp_path / "a.mkv", *more))
    out, _ = job.communicate(timeout=120)
    (error,) = [event for event in events(out) if event["event"] == "error"]
    assert (job.returncode, error["exit_code"]) == (code, code)
    assert said in error["message"]


@pytest.mark.slow
def test_what_a_rank_says_before_it_fails_is_passed_on(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os\n"
        "if os.environ.get('RANK') == '1':\n"
        "    from wanimate.runtime.parallel import team\n"
        "    def flow(*_): raise ValueError('a rank has its own troubles')\n"
        "    team.RankWorker.flow = flow\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    job = command(*words(place, tmp_path / "a.mkv", "--gpus", 2))
    out, _ = job.communicate(timeout=120)
    (error,) = [event for event in events(out) if event["event"] == "error"]
    assert job.returncode == 1
    assert error["message"].startswith(
        "rank 1 of 2 failed: a defect of this program, ValueError: a rank has its own troubles"
    )
