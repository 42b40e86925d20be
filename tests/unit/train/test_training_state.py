"""A training's state goes on a run only if every part of it is what the run would have written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_lora_training import trained

from wanimate.errors import InputError

Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("state")
    trained(out, 5)
    return dict(torch.load(out / "state.pt", weights_only=True))


def resumed(folder: Path, state: object) -> None:
    torch.save(state, folder / "state.pt")
    trained(folder, 6, resume=True)


def test_a_sound_state_goes_on(state: dict[str, Any], tmp_path: Path) -> None:
    resumed(tmp_path, state)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.update(weights=s["weights"][1:]),
        lambda s: s.update(weights=[*s["weights"][:-1], torch.full_like(s["weights"][-1], float("nan"))]),
        lambda s: s.update(weights=[torch.zeros(1).expand(w.shape) for w in s["weights"]]),
        lambda s: s.update(step=-1),
        lambda s: s.update(step="many"),
        lambda s: s.update(spent=float("nan")),
        lambda s: s.update(losses=[[1]]),
        lambda s: s.update(losses=[torch.zeros(1).expand(2**40)]),
        lambda s: s.update(losses=[(5, float("inf"))]),
        lambda s: s.update(optimizer={}),
        lambda s: s["optimizer"].update(state={0: {}}),
        lambda s: s["optimizer"].update(state={number: torch.zeros(3) for number in s["optimizer"]["state"]}),
        lambda s: s["optimizer"]["state"].update({0: s["optimizer"]["state"][0] | {"exp_avg": torch.zeros(3)}}),
        lambda s: s["optimizer"]["state"].update({0: s["optimizer"]["state"][0] | {"step": "x"}}),
    ],
    ids=range(14),
)
def test_a_damaged_state_is_refused(state: dict[str, Any], tmp_path: Path, change: Change) -> None:
    copy = state | {
        "optimizer": {name: dict(v) if isinstance(v, dict) else v for name, v in state["optimizer"].items()}
    }
    change(copy)
    with pytest.raises(InputError, match="the training state is damaged"):
        resumed(tmp_path, copy)


@pytest.mark.parametrize("shapes", [None, {"a": [1]}, [torch.zeros(2)], {"a": torch.zeros(2)}])
def test_the_state_of_something_else(state: dict[str, Any], tmp_path: Path, shapes: object) -> None:
    with pytest.raises(InputError, match="the state of other adapters"):
        resumed(tmp_path, state | {"shapes": shapes})


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"not a state"])
def test_files_that_are_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state.pt").write_bytes(content)
    with pytest.raises(InputError) as caught:
        trained(tmp_path, 6, resume=True)
    assert "weights_only" not in str(caught.value)
