"""The package's log. Silent unless it is shown; says which of several backends was chosen, and why."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

LOG = logging.getLogger("wanimate")
LOG.addHandler(logging.NullHandler())


def log_choice(what: str, which: str, why: str) -> None:
    """Record a choice among backends: `log_choice("attention", "sdpa", "flash-attn is not installed")`."""
    LOG.info("%s: %s (%s)", what, which, why)


@contextmanager
def shown(level: int = logging.INFO) -> Iterator[None]:
    """Show the log on stderr while the block runs."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    before = LOG.level
    LOG.addHandler(handler)
    LOG.setLevel(level)
    try:
        yield
    finally:
        LOG.removeHandler(handler)
        LOG.setLevel(before)
