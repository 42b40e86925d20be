"""CUDA C++ compiled when it is first wanted, by the compiler that PyTorch brings (NVRTC), and launched through the driver.

For what Triton does not express. Nothing is built at installation, and nothing here is loaded before it is asked for.
"""

from __future__ import annotations

import ctypes
import hashlib
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wanimate.runtime.kept import kept_bytes

_DYNAMIC_SHARED_MEMORY = 8
_BYTES, _NO_INTERLEAVE, _SWIZZLE_128, _PROMOTE_256, _FILL_ZEROS = 0, 0, 3, 3, 0


class Kernel:
    """One kernel of a source file on one device.

    Raises:
        RuntimeError: there is no NVRTC or no driver, or they refuse; with what they say.
    """

    def __init__(
        self, source: Path, name: str, device: torch.device, shared: int, defines: tuple[str, ...] = ()
    ) -> None:
        """`shared`: bytes of dynamic shared memory of a thread block. `defines`: names that the source tests for."""
        self.shared = shared
        self._module, self._function = ctypes.c_void_p(), ctypes.c_void_p()
        with torch.cuda.device(device):
            torch.cuda.current_stream().synchronize()  # PyTorch makes the device's context
            _do("cuModuleLoadData", ctypes.byref(self._module), compiled(source, device, defines))
            _do("cuModuleGetFunction", ctypes.byref(self._function), self._module, name.encode())
            _do("cuFuncSetAttribute", self._function, _DYNAMIC_SHARED_MEMORY, shared)

    def launch(self, grid: tuple[int, int], threads: int, arguments: Sequence[TensorMap | Tensor | int]) -> None:
        """On the current stream of the current device; tensors are handed over as pointers, numbers as 32-bit integers."""
        held: list[Any] = []
        for a in arguments:
            if isinstance(a, Tensor):
                held.append(ctypes.c_void_p(a.data_ptr()))
            else:
                held.append(a if isinstance(a, TensorMap) else ctypes.c_int(a))
        places = (ctypes.c_void_p * len(held))(
            *(a.address if isinstance(a, TensorMap) else ctypes.addressof(a) for a in held)
        )
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        _do("cuLaunchKernel", self._function, *grid, 1, threads, 1, 1, self.shared, stream, places, None)


class TensorMap:
    """How the tensor memory accelerator finds boxes of a matrix of bytes [R, C]; rows go to shared memory swizzled by 128
    bytes, what lies outside of the matrix as zeros."""

    def __init__(self, matrix: Tensor, rows: int, columns: int) -> None:
        """Boxes of `rows` x `columns`; a row of the matrix is a multiple of 16 bytes."""
        self._buffer = ctypes.create_string_buffer(128 + 64)
        self.address = -(-ctypes.addressof(self._buffer) // 64) * 64
        _do(
            "cuTensorMapEncodeTiled", ctypes.c_void_p(self.address), _BYTES, 2, ctypes.c_void_p(matrix.data_ptr()),
            (ctypes.c_uint64 * 2)(matrix.shape[1], matrix.shape[0]), (ctypes.c_uint64 * 1)(matrix.stride(0)),
            (ctypes.c_uint32 * 2)(columns, rows), (ctypes.c_uint32 * 2)(1, 1), _NO_INTERLEAVE, _SWIZZLE_128,
            _PROMOTE_256, _FILL_ZEROS,
        )  # fmt: skip


@cache
def compiled(source: Path, device: torch.device, defines: tuple[str, ...] = ()) -> bytes:
    """The source as machine code of the device's architecture, with all its own instructions; kept on disk (`runtime.kept`)."""
    major, minor = torch.cuda.get_device_capability(device)
    architecture = f"--gpu-architecture=sm_{major}{minor}{'a' if major >= 9 else ''}"
    options = (architecture, "-std=c++17", *(f"-D{name}" for name in defines))
    text = source.read_bytes()
    key = [hashlib.sha256(text).hexdigest(), *options, *_nvrtc_version()]
    return kept_bytes("cuda", key, lambda: compile_source(text, source.name, options))


def compile_source(text: bytes, name: str, options: Sequence[str]) -> bytes:
    """CUDA C++ as machine code, by NVRTC with these options.

    Raises:
        RuntimeError: there is no NVRTC, or it refuses; with what it says.
    """
    nvrtc, program, size = _nvrtc(), ctypes.c_void_p(), ctypes.c_size_t()
    _check(
        nvrtc.nvrtcCreateProgram(ctypes.byref(program), text, name.encode(), 0, None, None),
        "NVRTC",
    )
    words = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    try:
        failed = nvrtc.nvrtcCompileProgram(program, len(options), words)
        if failed:
            nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
            log = ctypes.create_string_buffer(size.value)
            nvrtc.nvrtcGetProgramLog(program, log)
            raise RuntimeError(f"{name} does not compile here: {log.value.decode(errors='replace').strip()}")
        _check(nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size)), "NVRTC")
        code = ctypes.create_string_buffer(size.value)
        _check(nvrtc.nvrtcGetCUBIN(program, code), "NVRTC")
        return code.raw
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


@cache
def _nvrtc_version() -> tuple[int, int]:
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(_nvrtc().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)), "NVRTC")
    return major.value, minor.value


@cache
def _nvrtc() -> Any:
    """The one that belongs to PyTorch's CUDA, by the loader's own search or among the packages beside PyTorch."""
    major = (torch.version.cuda or "0").split(".")[0]
    name = f"libnvrtc.so.{major}"
    for place in [name, *(str(p) for f in sys.path for p in Path(f).glob(f"nvidia/*/lib/{name}"))]:
        try:
            return ctypes.CDLL(place)
        except OSError:
            continue
    raise RuntimeError(f"{name} was not found, which CUDA packages of PyTorch bring along")


@cache
def _driver() -> Any:
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise RuntimeError(f"there is no CUDA driver: {error}") from error


def _do(function: str, *arguments: object) -> None:
    _check(getattr(_driver(), function)(*arguments), function)


def _check(code: int, what: str) -> None:
    if code:
        raise RuntimeError(f"{what} failed with error {code}")
