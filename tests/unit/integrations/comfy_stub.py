"""A stand-in for ComfyUI's modules, and the node pack loaded as ComfyUI loads it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from PIL import Image

PACK = Path(__file__).parents[3] / "integrations" / "comfyui"


class Interrupted(Exception):
    """What ComfyUI raises at a node that is to stop."""


class Bar:
    """A progress bar that keeps what it was told."""

    def __init__(self, total: int, node_id: str | None = None) -> None:
        self.total = total
        self.values: list[float] = []
        self.previews: list[tuple[str, Image.Image, int]] = []

    def update_absolute(
        self, value: float, total: int | None = None, preview: tuple[str, Image.Image, int] | None = None
    ) -> None:
        self.total = total or self.total
        self.values.append(value)
        if preview is not None:
            self.previews.append(preview)


class Comfy:
    """The stub. `output`: ComfyUI's output folder. `stop_after`: the interrupt comes at this check from now on."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.bars: list[Bar] = []
        self.stop_after: int | None = None
        self.unloaded = 0

    def bar(self, total: int, node_id: str | None = None) -> Bar:
        self.bars.append(Bar(total, node_id))
        return self.bars[-1]

    def check(self) -> None:
        if self.stop_after is not None:
            self.stop_after -= 1
            if self.stop_after < 0:
                self.stop_after = None
                raise Interrupted

    def unload(self) -> None:
        self.unloaded += 1

    def install(self, patch: pytest.MonkeyPatch) -> Any:
        """Put the stub in the place of ComfyUI; returns the pack."""
        comfy, utils, management = ModuleType("comfy"), ModuleType("comfy.utils"), ModuleType("comfy.model_management")
        utils.ProgressBar = self.bar  # type: ignore[attr-defined]
        management.throw_exception_if_processing_interrupted = self.check  # type: ignore[attr-defined]
        management.get_torch_device = lambda: torch.device("cpu")  # type: ignore[attr-defined]
        management.unload_all_models = self.unload  # type: ignore[attr-defined]
        management.soft_empty_cache = lambda: None  # type: ignore[attr-defined]
        comfy.utils, comfy.model_management = utils, management  # type: ignore[attr-defined]
        paths = ModuleType("folder_paths")
        paths.get_output_directory = lambda: str(self.output)  # type: ignore[attr-defined]
        for module in (comfy, utils, management, paths):
            patch.setitem(sys.modules, module.__name__, module)
        return load(patch)


def load(patch: pytest.MonkeyPatch) -> Any:
    name = "custom_nodes_wanimate"
    for module in [one for one in sys.modules if one == name or one.startswith(f"{name}.")]:
        patch.delitem(sys.modules, module)
    spec = importlib.util.spec_from_file_location(name, PACK / "__init__.py", submodule_search_locations=[str(PACK)])
    assert spec is not None
    assert spec.loader is not None
    pack = importlib.util.module_from_spec(spec)
    patch.setitem(sys.modules, name, pack)
    spec.loader.exec_module(pack)
    return pack
