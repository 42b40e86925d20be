"""What the processor can do, as far as encoders ask for it."""

from __future__ import annotations

from pathlib import Path


def cpu_flags() -> set[str]:
    """The instruction sets the processor states, in lower case; empty where the system does not tell."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return set()
    lines = (line.partition(":") for line in text.splitlines())
    return {flag for key, _, value in lines if key.strip() in ("flags", "Features") for flag in value.lower().split()}
