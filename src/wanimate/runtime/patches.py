"""Changes of how a network computes, made from outside: one list a network, each with its name.

A patch sets attributes on parts of a network (a method such as `forward`, or what a part looks up, such as `attend`) and can be
taken off again. Patches of different names set different attributes, so that their order does not matter. LoRA views are deep
copies, so that they have the patches of the network they were made of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import MethodType
from typing import Any

from torch import nn

_LIST = "_patches"
_MISSING = object()

Change = tuple[nn.Module, str, Any]
"""A part, the attribute, and what it is set to."""


@dataclass
class _Patch:
    """`before`: what each part had under the attribute itself, `_MISSING` where its class answered."""

    name: str
    detail: str = ""
    before: list[tuple[nn.Module, str, Any]] = field(default_factory=list)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Patch:
        # `_MISSING` is known by identity, and methods are bound to the copied parts.
        import copy

        copied = [(copy.deepcopy(part, memo), name, old if old is _MISSING else copy.deepcopy(old, memo))
                  for part, name, old in self.before]  # fmt: skip
        return _Patch(self.name, self.detail, copied)


def install(network: nn.Module, name: str, changes: Iterable[Change], detail: str = "") -> None:
    """Put a patch on a network, in place of one of the same name. Without changes there is none of that name afterwards."""
    remove(network, name)
    patch = _Patch(name, detail)
    for part, attribute, value in changes:
        patch.before.append((part, attribute, part.__dict__.get(attribute, _MISSING)))
        part.__dict__[attribute] = value
    if patch.before:
        network.__dict__.setdefault(_LIST, []).append(patch)


def remove(network: nn.Module, name: str) -> None:
    """Take a patch off, if it is there."""
    patches: list[_Patch] = network.__dict__.get(_LIST, [])
    for patch in [patch for patch in patches if patch.name == name]:
        for part, attribute, old in reversed(patch.before):
            if old is _MISSING:
                part.__dict__.pop(attribute, None)
            else:
                part.__dict__[attribute] = old
        patches.remove(patch)


def installed(network: nn.Module) -> list[str]:
    """The patches on a network, in the order in which they were put on: "fused blocks", "attention (float8)"."""
    patches: list[_Patch] = network.__dict__.get(_LIST, [])
    return [f"{patch.name} ({patch.detail})" if patch.detail else patch.name for patch in patches]


def method(part: nn.Module, attribute: str, function: Callable[..., Any]) -> Change:
    """A change that makes `function`, called with the part first, a method of the part."""
    return part, attribute, MethodType(function, part)
