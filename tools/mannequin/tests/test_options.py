"""Options made from settings classes reach the settings, and every command has its own."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import pytest

from mannequin import __main__ as commands
from mannequin.options import REQUIRED, add_options, option, read
from mannequin.training.run import Run
from mannequin.training.supply import ClipSettings, Rendering, SupplySettings
from mannequin.training.transformer import FlowTraining


@dataclass(frozen=True)
class One:
    folder: Path = option(REQUIRED, "somewhere")
    frames: int = option(33, "how many")
    start: Path | None = option(None, "what to begin with")
    resume: bool = option(False, "go on")
    inner: float = 0.5


@dataclass(frozen=True)
class Two:
    frames: int = option(17, "how many")


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_options(parser, One, Two)
    return parser.parse_args(words)


def test_what_is_given_reaches_the_settings_and_the_rest_keeps_its_default() -> None:
    given = parsed("--folder", "a", "--start", "b", "--resume")
    assert read(One, given) == One(Path("a"), start=Path("b"), resume=True)
    assert read(Two, given) == Two(33)
    assert read(Two, parsed("--folder", "a", "--frames", "9")) == Two(9)


@pytest.mark.parametrize("words", [(), ("--folder", "a", "--inner", "1"), ("--folder", "a", "--frames", "few")])
def test_missing_unknown_and_misspelt_options_are_refused(words: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as ended:
        parsed(*words)
    assert ended.value.code == 2


def given_to(monkeypatch: pytest.MonkeyPatch, name: str, *words: str) -> argparse.Namespace:
    """What a command's function is called with."""
    seen: list[argparse.Namespace] = []

    def note(given: argparse.Namespace) -> None:
        """Noted."""
        seen.append(given)

    note.__name__ = name
    real = next(command for command in commands.COMMANDS if command.__name__ == name)
    monkeypatch.setattr(commands, "COMMANDS", {note: commands.COMMANDS[real]})
    commands.main([name, *words])
    return seen[0]


def test_a_seed_given_once_is_that_of_clips_and_training(monkeypatch: pytest.MonkeyPatch) -> None:
    given = given_to(
        monkeypatch, "transformer", "--out", "o", "--vae", "v", "--frames", "17", "--resume", "--seed", "3"
    )
    assert read(ClipSettings, given).frames == 17
    assert (read(FlowTraining, given).seed, read(ClipSettings, given).seed) == (3, 3)
    assert read(Run, given).resume
    assert read(SupplySettings, given).render_seconds == SupplySettings().render_seconds


def test_commands_have_defaults_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    relight = given_to(monkeypatch, "relight", "--out", "o", "--checkpoint", "c")
    assert read(SupplySettings, relight).render_seconds == 30
    monkeypatch.undo()
    clips = given_to(monkeypatch, "clips", "--vae", "c", "--feed", "f")
    assert read(ClipSettings, clips).seed == 1000
    assert read(Rendering, clips).feed == Path("f")


def test_what_a_user_can_cause_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        commands.main(["relight", "--checkpoint", str(tmp_path / "none"), "--out", str(tmp_path), "--device", "cpu"])
    assert isinstance(ended.value.code, str)
    assert "none" in ended.value.code
