"""Reading the golden numbers, comparing with them, and noting which of them were read.

`READ` holds every value that a test has asked for. `test_every_golden_value` fails where a file has one that no test reads.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import ItemsView, Iterator, Sequence, ValuesView
from pathlib import Path
from typing import Any

import cv2
import detgen
import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

FOLDER = Path(__file__).parent.parent / "golden"
READ: defaultdict[str, set[str]] = defaultdict(set)
"""File, relative to the golden folder -> places of the values read: a tensor's or array's name, a path in a JSON file."""
READERS = ("Golden(", "read_json(", "read_npz(", "read_png(", "golden_json", "golden_npz", "golden_png")
"""Words by which a module that reads golden values is known."""


class Golden:
    """One golden file of the model side: `golden[name]` is a tensor; `meta` its metadata, JSON values parsed."""

    def __init__(self, name: str) -> None:
        self.name = f"model/{name}.safetensors"
        self.file = safe_open(FOLDER / self.name, "pt")
        self.meta: dict[str, Any] = {}
        for key, value in (self.file.metadata() or {}).items():
            try:
                self.meta[key] = json.loads(value)
            except json.JSONDecodeError:
                self.meta[key] = value

    def __getitem__(self, name: str) -> Tensor:
        READ[self.name].add(name)
        return self.file.get_tensor(name)

    def names(self) -> list[str]:
        return list(self.file.keys())


class Noted(dict[str, Any]):
    """Golden values by name; whichever is asked for is noted in `READ`."""

    def __init__(self, file: str, place: str, values: dict[str, Any]) -> None:
        super().__init__(values)
        self._note = lambda key: READ[file].add(place + key)

    def __getitem__(self, key: str) -> Any:
        self._note(key)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        if key in self:
            self._note(key)
        return super().get(key, default)

    def items(self) -> ItemsView[str, Any]:
        for key in self:
            self._note(key)
        return super().items()

    def values(self) -> ValuesView[Any]:
        return dict(self.items()).values()


def read_json(name: str) -> Any:
    """A JSON file of the golden folder, every object in it a `Noted`."""

    def noted(value: Any, place: str) -> Any:
        if isinstance(value, dict):
            return Noted(name, place, {k: noted(v, f"{place}{k}.") for k, v in value.items()})
        if holds_objects(value):
            return [noted(v, f"{place}{i}.") for i, v in enumerate(value)]
        return value

    return noted(json.loads((FOLDER / name).read_text()), "")


def read_npz(name: str) -> Noted:
    """The arrays of an .npz file of the golden folder."""
    with np.load(FOLDER / name) as data:
        return Noted(name, "", {key: data[key] for key in data.files})


def read_png(name: str) -> npt.NDArray[np.uint8]:
    """A picture of the golden folder, RGB [H, W, 3]."""
    READ[name].add("")
    picture = cv2.imread(str(FOLDER / name))
    assert picture is not None, name
    return np.ascontiguousarray(picture[..., ::-1], dtype=np.uint8)


def holds_objects(value: Any) -> bool:
    """Whether a JSON list is a list of cases, and not one value."""
    return isinstance(value, list) and any(isinstance(v, dict) for v in value)


def places(name: str) -> set[str]:
    """Places of all values in a golden file, spelled as in `READ`."""
    path = FOLDER / name
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            return set(file.keys())
    if path.suffix == ".npz":
        with np.load(path) as data:
            return set(data.files)
    if path.suffix == ".png":
        return {""}
    assert path.suffix == ".json", f"{name}: no test knows how to read this"

    def leaves(value: Any, place: str) -> Iterator[str]:
        if isinstance(value, dict) and value:
            for key, part in value.items():
                yield from leaves(part, f"{place}.{key}")
        elif holds_objects(value):
            for i, part in enumerate(value):
                yield from leaves(part, f"{place}.{i}")
        else:
            yield place.removeprefix(".")

    return set(leaves(json.loads(path.read_text()), ""))


def unread(read: dict[str, set[str]]) -> list[str]:
    """ "file: place" of every golden value that is not among those `read`."""
    files = (p.relative_to(FOLDER).as_posix() for p in sorted(FOLDER.rglob("*")) if p.is_file() and p.suffix != ".md")
    return [f"{name}: {place}" for name in files for place in sorted(places(name) - read.get(name, set()))]


NOT_VALUES = {
    r"preprocess/manifest\.json: .*": "with what the files were made",
    r"preprocess/\w+\.json: note": "a remark for readers",
    r"preprocess/person_box\.json: \d+\.name": "what the case is called",
    r"preprocess/retarget\.json: \d+\.note": "a remark for readers",
    r"preprocess/masks\.json: edge_cases\.6\.sum": "of a mask that is not stored",
    r"preprocess/allneg_fallback\.json: first_frame_error": "the published code fails there; this one does not",
}


def unread_values(read: dict[str, set[str]]) -> list[str]:
    """`unread` without what is no value."""
    return [place for place in unread(read) if not any(re.fullmatch(rule, place) for rule in NOT_VALUES)]


def readers() -> set[Path]:
    """The modules that read golden values."""
    modules = FOLDER.parent.rglob("test_*.py")
    return {path for path in modules if any(word in path.read_text() for word in READERS)}


def every_reader_is_in(
    arguments: Sequence[str], collected: Sequence[pytest.Item], chosen: Sequence[pytest.Item]
) -> bool:
    """Whether a run has every module that reads golden values, whole, slow tests apart.

    Args:
        arguments: what pytest was asked to run; `collected`: the tests found there; `chosen`: those of them that will run.
    """
    runs = {item.nodeid for item in chosen}
    whole = {i.path for i in collected} - {
        i.path for i in collected if i.nodeid not in runs and "slow" not in i.keywords
    }
    return readers() <= whole and not any("::" in argument for argument in arguments)


def fill(module: nn.Module, prefix: str = "", seed_prefix: str = "") -> nn.Module:
    """Give every parameter and buffer its deterministic golden value; `prefix` is the module's place in the published model."""
    with torch.no_grad():
        for key, tensor in module.state_dict().items():
            tensor.copy_(detgen.param(seed_prefix + prefix + key, tensor.shape))
    return module.eval()


class Taps:
    """Records the outputs of chosen modules while `with` it; leaving it fails if one of them never gave any."""

    def __init__(self, **modules: nn.Module) -> None:
        self._modules, self._out = modules, dict[str, Tensor]()

    def __enter__(self) -> Taps:
        def keep(name: str) -> Any:
            return lambda module, given, out: self._out.__setitem__(name, out)

        self._hooks = [module.register_forward_hook(keep(name)) for name, module in self._modules.items()]
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()
        silent = self._modules.keys() - self._out.keys()
        if kind is None and silent:
            raise AssertionError(f"never called as modules: {', '.join(sorted(silent))}")

    def items(self) -> ItemsView[str, Tensor]:
        return self._out.items()

    def __getitem__(self, name: str) -> Tensor:
        return self._out[name]


def check(name: str, ours: Tensor, golden: Tensor, atol: float, rl2: float) -> None:
    """Fail, naming the tap, unless max error <= atol and relative L2 error <= rl2."""
    assert ours.shape == golden.shape, f"{name}: shape {tuple(ours.shape)}, golden {tuple(golden.shape)}"
    difference = ours.double() - golden.double()
    worst = difference.abs().max().item()
    relative = (difference.norm() / golden.double().norm().clamp_min(1e-30)).item()
    print(f"{name}: max {worst:.2e} (<= {atol:g}), rl2 {relative:.2e} (<= {rl2:g})")
    assert worst <= atol, f"{name}: max error {worst:.3e} > {atol:g}"
    assert relative <= rl2, f"{name}: relative L2 {relative:.3e} > {rl2:g}"
