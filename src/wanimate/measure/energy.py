"""What a GPU has drawn: by the driver's own counter where it has one, else by its power, asked every half second."""

from __future__ import annotations

import importlib
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any

import torch

_PERIOD = 0.5
_JOULES_BY_WATT_HOUR = 3600.0


class EnergyMeter:
    """Counts in a `with` block. `watt_hours` is None where the driver tells nothing, or there is no GPU.

    `counted`: "nvml" or "nvidia-smi", by what, None without either.
    """

    def __init__(self, device: torch.device) -> None:
        self.watt_hours: float | None = None
        self.counted: str | None = None
        self._gpu = "" if device.type != "cuda" else f"GPU-{torch.cuda.get_device_properties(device).uuid}"

    def __enter__(self) -> EnergyMeter:
        self._joules = None if not self._gpu else _nvml(self._gpu)
        self._watts: list[float] = []
        self._done = threading.Event()
        self._thread: threading.Thread | None = None
        if self._joules is not None:
            self._before = self._joules()
        elif self._gpu and _watts(self._gpu) is not None:
            self._thread = threading.Thread(target=self._ask, name="watts", daemon=True)
            self._thread.start()
        self._began = time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        seconds = time.perf_counter() - self._began
        if self._joules is not None:
            self.watt_hours, self.counted = (self._joules() - self._before) / _JOULES_BY_WATT_HOUR, "nvml"
        elif self._thread is not None:
            self._done.set()
            self._thread.join()
            mean = sum(self._watts) / len(self._watts)
            self.watt_hours, self.counted = mean * seconds / _JOULES_BY_WATT_HOUR, "nvidia-smi"

    def _ask(self) -> None:
        while not self._watts or not self._done.wait(_PERIOD):
            self._watts.append(_watts(self._gpu) or 0.0)


def _nvml(gpu: str) -> Callable[[], float] | None:
    """Joules since the driver was loaded, by nvidia-ml-py where it is installed; None where that cannot tell."""
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
        handle = nvml.nvmlDeviceGetHandleByUUID(gpu)
        nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except nvml.NVMLError:
        return None
    return lambda: float(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000


def _watts(gpu: str) -> float | None:
    """What it draws now, by nvidia-smi; None where that cannot tell."""
    words = ["nvidia-smi", "-i", gpu, "--query-gpu=power.draw", "--format=csv,noheader,nounits"]
    with suppress(OSError, ValueError, subprocess.SubprocessError):
        return float(subprocess.run(words, capture_output=True, text=True, check=True, timeout=10).stdout)
    return None
