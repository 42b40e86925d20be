"""Every way a command can end: what --json promises, Ctrl-C at any time, a reader of stdout that goes away."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from wanimate.cli import main as cli
from wanimate.cli.main import app
from wanimate.preprocess.candidates import Crowd

REFUSED: dict[str, tuple[str, str]] = {
    "animate": ("--image a --video nowhere.mp4 --out a.mp4", "--video"),
    "replace": ("--image a --video nowhere.mp4 --out a.mp4", "--video"),
    "preprocess": ("--video nowhere.mp4 --list-people --out a.png", "--video"),
    "generate": ("nowhere --out a.mp4", "GUIDES"),
    "finish": ("nowhere.mkv --out a.mp4", "MASTER"),
    "check": ("nowhere.mp4", "FILE"),
    "doctor": ("--checkpoint nowhere", "--checkpoint"),
    "bench": ("--checkpoint nowhere", "--checkpoint"),
    "train lora": ("--data nowhere --out a.safetensors", "--data"),
    "weights inspect": ("nowhere", "PATH"),
    "weights verify": ("nowhere", "PATH"),
    "weights convert": ("nowhere out", "SOURCE"),
    "jobs list": ("nowhere", "FOLDERS"),
    "jobs clean": ("nowhere", "FOLDERS"),
    "library add": ("nowhere.mp4 --data data", "FILE"),
    "library import": ("nowhere --data data", "FOLDER"),
    "library search": ("--status gone --data data", "--status"),
    "library show": ("none --data data", "NAME"),
    "library change": ("none --licence mine --data data", "--licence"),
    "library approve": ("none --data data", "NAME"),
    "library retire": ("none --data data", "NAME"),
    "library remove": ("none --data data", "NAME"),
    "library export": ("out none --data data", "NAME"),
    "review list": ("--config nowhere.toml", "--config"),
    "review show": ("none --data data", "SHOT"),
    "review comment": ("none words --data data", "SHOT"),
    "review approve": ("none --data data", "SHOT"),
    "review ask-changes": ("none --data data", "SHOT"),
    "review export": ("none --data data", "SHOT"),
    "review link": ("none --data data", "SHOT"),
    "marks init": ("--folder /dev/null/marks", "--folder"),
    "marks apply": ("nowhere.mp4", "FILE"),
    "verify": ("nowhere.mp4", "FILE"),
    "serve": ("--config nowhere.toml", "--config"),
    "studio": ("--config nowhere.toml", "--config"),
    "worker": ("--config nowhere.toml", "--config"),
    "mcp": ("--key wan_x --url nowhere", "--url"),
    "keys create": ("--owner me --config nowhere.toml", "--config"),
    "keys list": ("--config nowhere.toml", "--config"),
    "keys revoke": ("any --config nowhere.toml", "--config"),
    "compat generate": ("--ckpt_dir nowhere --src_root_path nowhere", "--src_root_path"),
    "compat preprocess": ("--video_path nowhere --refer_path a --save_path out", "--video_path"),
}
"""Command -> bad input, and what the error calls it."""


def commands(group: Any, above: str = "") -> Iterator[str]:
    for name, one in group.commands.items():
        if hasattr(one, "commands"):
            yield from commands(one, f"{above}{name} ")
        else:
            yield above + name


def test_every_command_is_tried() -> None:
    assert set(commands(typer.main.get_command(app))) == set(REFUSED)


def typed(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command line, in this process."""
    monkeypatch.setattr(sys, "argv", ["wanimate", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return (int(end.value.code or 0), *capfd.readouterr())


@pytest.mark.parametrize("command", sorted(REFUSED))
def test_bad_input_ends_in_an_error_object(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words, parameter = REFUSED[command]
    code, out, err = typed(monkeypatch, capfd, *command.split(), *words.split(), "--json")
    *_, last = (json.loads(line) for line in out.splitlines())
    assert (code, last["event"], last["exit_code"], err) == (2, "error", 2, "")
    assert last["parameter"] == parameter
    assert last["field"]
    assert last["message"].startswith(f"{parameter} = ")
    code, out, err = typed(monkeypatch, capfd, *command.split(), *words.split())
    assert (code, out) == (2, "")
    assert f"error {parameter} = " in err
    assert "Traceback" not in err


@pytest.mark.parametrize("command", sorted(REFUSED))
@pytest.mark.parametrize(
    ("wrong", "said", "parameter"),
    [(["--frobnicate"], "No such option", "--frobnicate"), (["--debug=5"], "does not take a value", "--debug")],
    ids=["unknown", "value"],
)
def test_usage_errors_are_objects_too(
    command: str,
    wrong: list[str],
    said: str,
    parameter: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    code, out, err = typed(monkeypatch, capfd, *command.split(), *wrong, "--json")
    (last,) = (json.loads(line) for line in out.splitlines())
    assert (code, last["event"], last["exit_code"], last["parameter"], err) == (2, "error", 2, parameter, "")
    assert said in last["message"]
    code, out, err = typed(monkeypatch, capfd, *command.split(), *wrong)
    assert (code, out) == (2, "")
    assert said in err


@pytest.mark.parametrize(
    ("words", "said", "field", "parameter"),
    [
        (["animate", "--image", "a", "--video", "b"], "Missing option", "out", "--out"),
        (["animate", "--steps", "many"], "valid integer", "generate.steps", "--steps"),
        (["weights", "inspect"], "Missing argument", "path", "PATH"),
        (["frobnicate"], "No such command", None, None),
        (["--frobnicate"], "No such option", "frobnicate", "--frobnicate"),
    ],
)
def test_usage_errors_name_the_field(
    words: list[str],
    said: str,
    field: str | None,
    parameter: str | None,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    code, out, _ = typed(monkeypatch, capfd, *words, "--json")
    last = json.loads(out)
    assert (code, last.get("field"), last.get("parameter")) == (2, field, parameter)
    assert said in last["message"]


def test_list_people(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("wanimate.media.stretch.probe_used", lambda path, settings: None)
    crowd = Crowd(3, ((0.0, 1.0, 2.0, 3.0),))
    monkeypatch.setattr("wanimate.preprocess.candidates.write_people", lambda *_: crowd)
    words = ["preprocess", "--list-people", "--video", "v", "--out", "people.png", "--json"]
    done = CliRunner().invoke(app, words)
    assert json.loads(done.stdout) == {
        "event": "result", "picture": "people.png", "people": 1, "boxes": [[0.0, 1.0, 2.0, 3.0]], "frame": 3,
    }  # fmt: skip


@pytest.mark.parametrize("option", ["--rate", "--alpha", "--shard-size"])
@pytest.mark.parametrize("value", ["inf", "nan"])
def test_numbers_of_commands_are_finite(option: str, value: str) -> None:
    training = ["train", "lora", "--data", "d", "--out", "a.safetensors"]
    words = training if option != "--shard-size" else ["weights", "convert", "a", "b"]
    refused = CliRunner().invoke(app, [*words, option, value, "--json"])
    last = json.loads(refused.stdout)
    assert (refused.exit_code, last["parameter"]) == (2, option)
    assert "finite" in last["message"]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def test_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "wanimate", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("wanimate 0.")
    shown = subprocess.run([sys.executable, "-m", "wanimate", "doctor", "--help"], capture_output=True, text=True)
    assert "Usage: wanimate doctor" in shown.stdout


SLOW = textwrap.dedent("""
    import importlib.abc, signal, sys, time
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also where the tests run under nohup

    class Slow(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path, target=None):
            if name == "wanimate.cli.main":
                print("importing", file=sys.stderr, flush=True)
                time.sleep(60)

    sys.meta_path.insert(0, Slow())
    from wanimate.__main__ import main
    main()
""")


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("json_too", [False, True], ids=["words", "json"])
def test_stopped_while_modules_load(name: str, json_too: bool) -> None:
    line = [sys.executable, "-c", SLOW, "doctor", *(["--json"] if json_too else [])]
    job = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert job.stderr is not None
        assert job.stderr.readline() == "importing\n"
        job.send_signal(getattr(signal, name))
        out, err = job.communicate(timeout=30)
    finally:
        job.kill()
        job.wait()
    assert job.returncode == 130
    if json_too:
        last = json.loads(out)
        assert (last["event"], last["kind"], last["exit_code"], err) == ("error", "Cancelled", 130, "")
    else:
        assert (out, err) == ("", "cancelled\n")


STOPPED = textwrap.dedent("""
    import signal, sys, time, types
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    from fractions import Fraction
    from pathlib import Path
    import torch
    stub = types.ModuleType("wanimate.api")
    sys.modules["wanimate.api"] = stub
    stub.animate = None

    class Animator:
        def __init__(self, *_):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def run(self, job):
            from wanimate.finish.lock import OutputLock
            from wanimate.finish.encode import OutputWriter
            from wanimate.events import Finished, Stage, StageProgress, StageStarted
            from wanimate.types import Result
            with OutputLock(job.out, job.output) as lock:
                yield StageStarted(Stage.DENOISE, 10_000)
                with OutputWriter(job.out, Fraction(30), 64, 48, job.output, lock=lock) as writer:
                    for i in range(10_000):
                        writer.write(torch.zeros(1, 3, 48, 64))
                        yield StageProgress(Stage.DENOISE, i + 1, 10_000)
                        time.sleep(0.01)
                yield Finished(Result(job.out, 3, (64, 48), Fraction(30), 1))

    stub.Animator = Animator
    from wanimate.__main__ import main
    sys.argv = ["wanimate", "animate", "--image", "a", "--video", "b", "--out", sys.argv[1], "--overwrite", "--json"]
    main()
""")


@pytest.mark.parametrize("json_too", [True, False], ids=["json", "words"])
def test_an_interrupt_that_a_library_drops(tmp_path: Path, json_too: bool) -> None:
    """The job ends with its next event."""
    lost = (
        "import contextlib, signal\nwith contextlib.suppress(KeyboardInterrupt): signal.raise_signal(signal.SIGINT)\n"
    )
    code = STOPPED.replace("        pass\n", textwrap.indent(lost, " " * 8), 1)
    assert code != STOPPED
    code = code if json_too else code.replace(', "--json"]', "]")
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.mp4")],
        capture_output=True, text=True, env=environment(), timeout=60,
    )  # fmt: skip
    assert (done.returncode, list(tmp_path.iterdir())) == (130, [])
    assert "stopped" in (done.stdout if json_too else done.stderr)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("times", [1, pytest.param(3, marks=pytest.mark.slow)], ids=["once", "impatient"])
def test_cancelled_jobs_leave_nothing(tmp_path: Path, name: str, times: int) -> None:
    out = tmp_path / "results" / "a.mp4"
    out.parent.mkdir()
    out.write_bytes(b"an older result")
    job = subprocess.Popen(
        [sys.executable, "-c", STOPPED, str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        assert job.stdout is not None
        while '"done": 5' not in job.stdout.readline():
            assert job.poll() is None, job.stderr
        assert len(list(out.parent.iterdir())) == 4  # the older result, two locks, the temporary file
        for _ in range(times):
            job.send_signal(getattr(signal, name))
            time.sleep(0.02)
        rest, errors = job.communicate(timeout=30)
    finally:
        job.kill()
        job.wait()
    assert job.returncode == 130
    last = json.loads(rest.splitlines()[-1])
    assert (last["event"], last["kind"], last["exit_code"]) == ("error", "Cancelled", 130)
    assert errors == ""
    assert [p.name for p in out.parent.iterdir()] == ["a.mp4"]
    assert out.read_bytes() == b"an older result"


def test_a_hangup_that_is_ignored_stops_nobody(tmp_path: Path) -> None:
    """As under `nohup`, while modules load and while the job runs."""
    out = tmp_path / "a.mp4"
    code = STOPPED.replace("SIG_DFL", "SIG_IGN").replace("10_000", "30")
    line = [sys.executable, "-c", code, str(out)]
    job = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
    try:
        assert job.stdout is not None
        while '"done": 5' not in job.stdout.readline():
            assert job.poll() is None, job.stderr
        job.send_signal(signal.SIGHUP)
        rest, errors = job.communicate(timeout=30)
    finally:
        job.kill()
        job.wait()
    assert (job.returncode, errors) == (0, "")
    assert json.loads(rest.splitlines()[-1])["event"] == "result"


@pytest.mark.parametrize("json_too", [True, False], ids=["json", "words"])
def test_nobody_reads_stdout_any_more(tmp_path: Path, json_too: bool) -> None:
    out = tmp_path / "a.mp4"
    code = STOPPED if json_too else STOPPED.replace(', "--json"]', "]").replace("10_000", "3")
    job = subprocess.Popen(
        [sys.executable, "-c", code, str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    try:
        assert job.stdout is not None
        assert job.stderr is not None
        if json_too:
            job.stdout.readline()
        job.stdout.close()
        errors = job.stderr.read()
        job.wait(timeout=60)
    finally:
        job.kill()
        job.wait()
    assert job.returncode == 141
    assert "Traceback" not in errors
    assert "BrokenPipe" not in errors
    assert not json_too or (errors, list(tmp_path.iterdir())) == ("", [])


@pytest.mark.parametrize(
    "words", [["doctor"], ["doctor", "--json"], ["--help"], ["--frobnicate", "--json"]], ids=" ".join
)
def test_short_outputs_that_nobody_reads(words: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    line = [sys.executable, "-m", "wanimate", *words]
    done = subprocess.run(line, stdout=writer, stderr=subprocess.PIPE, text=True, env=environment())
    os.close(writer)
    assert done.stderr == ""
    assert done.returncode in (1, 141)


def test_an_interrupt_that_a_library_makes_another_error_of(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """NumPy's import does so, for instance."""

    def broken(*_: object) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt as error:
            raise AttributeError("module 'numpy' has no attribute 'nonzero'") from error

    monkeypatch.setattr("wanimate.measure.doctor.examine", broken)
    before = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        code, _, err = typed(monkeypatch, capfd, "doctor")
    finally:
        for number, handler in before:
            signal.signal(number, handler)
    assert code == 130
    assert "cancelled" in err
    assert "defect" not in err


def test_values_are_said_as_they_were_given(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """No smileys for what stands between two colons."""
    words = ["animate", "--image", "a", "--video", "b", "--out", "c.mp4", "--lora", "file:abc:smile:"]
    assert "file:abc:smile:" in typed(monkeypatch, capfd, *words)[2]


def test_a_clip_without_a_plan_is_refused(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    code, _, err = typed(monkeypatch, capfd, "doctor", "--clip", "nowhere.mp4")
    assert code == 2
    assert "--clip = nowhere.mp4: it is for the plan of a job. Give --checkpoint too." in err
