"""The small network whose features are compared between true and decoded frames."""

from __future__ import annotations

import torch

from mannequin.training.observer import Observer, features_apart


def test_the_observer_learns_from_true_frames_only() -> None:
    """Its features tell decoded from true frames; that distance reaches the decoded frames and not its weights."""
    torch.manual_seed(0)
    observer, true = Observer(), torch.rand(2, 3, 16, 16)
    decoded = (true + 0.1 * torch.randn_like(true)).requires_grad_()
    weight = torch.ones(2, 1, 16, 16)
    seen = observer(true)
    distance = features_apart(observer, decoded, seen, weight)
    distance.backward()
    assert distance.item() > 0
    assert features_apart(observer, true, seen, weight).item() < 1e-6
    assert decoded.grad is not None
    assert decoded.grad.abs().sum() > 0
    assert all(p.grad is None for p in observer.parameters())
    optimizer = torch.optim.Adam(observer.parameters(), lr=1e-2)
    importance = (true[:, :1] > 0.5).float()
    errors = []
    for _ in range(30):
        optimizer.zero_grad()
        error = observer.error(observer(true), importance)
        error.backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < 0.7 * errors[0]
