"""The clock that ends a run, and the learning rate that follows it."""

from __future__ import annotations

import pytest

from wanimate.train.common import Budget, learning_share


def test_learning_share_and_budget() -> None:
    assert learning_share(0, 0.0) == pytest.approx(1 / 200)
    assert learning_share(400, 0.5) == 1
    assert learning_share(400, 0.8) == pytest.approx(0.5)
    assert learning_share(400, 1.0) == 0
    budget = Budget(steps=4, seconds=1e9)
    for _ in range(3):
        budget.tick()
    assert not budget.over
    budget.tick()
    assert budget.over
    assert Budget(steps=10, seconds=5.0, spent=6.0).over
