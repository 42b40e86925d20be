"""Deployment examples use commands, settings and addresses that exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from wanimate.cli.main import app
from wanimate.serve.settings import ServeSettings

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "docs" / "deploy"
FILES = [ROOT / "Dockerfile", ROOT / "compose.yaml", *sorted(DEPLOY.glob("*"))]
TEXTS = {path.name: path.read_text() for path in FILES}


def options(command: str) -> set[str]:
    group = typer.main.get_command(app)
    found = group.commands[command]  # type: ignore[attr-defined]
    return {name for parameter in found.params for name in (*parameter.opts, *parameter.secondary_opts)}


def commands() -> list[tuple[str, str, list[str]]]:
    """(file, command, its options)."""
    found = []
    for name, text in TEXTS.items():
        for said in re.findall(r"(?:wanimate |\[)\"?(serve|worker)\b([^\n`]*)", text):
            found.append((name, said[0], re.findall(r"--[a-z-]+", said[1])))
    return found


def test_there_are_commands() -> None:
    assert {(name, command) for name, command, _ in commands()} >= {
        ("Dockerfile", "serve"), ("compose.yaml", "worker"), ("compose.yaml", "serve"), ("wanimate.service", "serve"),
        ("wanimate-worker@.service", "worker"), ("worker.slurm", "worker"), ("kubernetes.yaml", "worker"),
        ("README.md", "serve"),
    }  # fmt: skip


@pytest.mark.parametrize(("name", "command", "given"), commands())
def test_options_exist(name: str, command: str, given: list[str]) -> None:
    assert set(given) <= options(command)


def test_variables_are_settings() -> None:
    for name, text in TEXTS.items():
        for setting in re.findall(r"WANIMATE_SERVE_([A-Z_]+)", text):
            assert setting.lower() in ServeSettings.model_fields, name


@pytest.mark.parametrize("name", ["compose.yaml", "kubernetes.yaml"])
def test_yaml_can_be_read(name: str) -> None:
    assert all(isinstance(one, dict) for one in yaml.safe_load_all(TEXTS[name]))


def test_workers_get_their_time_to_stop() -> None:
    compose: dict[str, Any] = yaml.safe_load(TEXTS["compose.yaml"])
    for service in ("preparer", "generator", "api"):
        assert compose["services"][service]["stop_grace_period"] == "90s"
    assert TEXTS["kubernetes.yaml"].count("terminationGracePeriodSeconds: 90") == 2
    assert all("TimeoutStopSec=90" in text for name, text in TEXTS.items() if name.endswith(".service"))


def test_every_example_is_named() -> None:
    named = set(re.findall(r"\]\(([^)]+)\)", TEXTS["README.md"]))
    assert {path.name for path in DEPLOY.glob("*")} - {"README.md"} <= named
    assert all((DEPLOY / place).exists() for place in named)


def test_bodies_of_the_contract_pass_the_proxies() -> None:
    most = ServeSettings().largest_clip + ServeSettings().largest_picture
    for name in ("nginx.conf", "Caddyfile"):
        found = re.search(r"(?:client_max_body_size|max_size) (\d+)", TEXTS[name])
        assert found is not None
        assert int(found[1]) * 10**6 > most
