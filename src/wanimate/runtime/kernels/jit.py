"""Triton's `jit`, of kernels that are compiled, and not run, where they get tensors without values (`runtime.ahead`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from triton import JITFunction, knobs
from triton import jit as jit_of_triton


class Kernel(JITFunction):  # type: ignore[misc]
    """Its first argument is a tensor, and all its tensors have values or none has."""

    def run(self, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        return super().run(*args, grid=grid, warmup=warmup or args[0].is_meta, **options)


def jit(function: Callable[..., Any]) -> Any:
    """A function as a kernel, or as part of one. With TRITON_INTERPRET=1 it is Triton's, which runs on a processor."""
    return jit_of_triton(function) if knobs.runtime.interpret else Kernel(function)
