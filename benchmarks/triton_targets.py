"""Triton kernels compiled for GPUs that are not here: registers, spills and shared memory. Needs Triton and no GPU."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TARGETS = {80: 163, 86: 99, 89: 99, 90: 227, 120: 99}
"""Compute capabilities, and the shared memory that a block may have there, in KiB."""
WIDTH, HEADS = 128, 40


@dataclass(frozen=True)
class Built:
    """stack and local: bytes of a thread's memory, which spills take; shared: bytes."""

    registers: int
    stack: int
    local: int
    shared: int


def built(
    kernel: Any, types: dict[str, str], constants: dict[str, Any], options: dict[str, int], target: int,
    aligned: tuple[str, ...] = (),
) -> Built:  # fmt: skip
    """`types`: of the arguments that are not constants; those that are pointers or `aligned` are multiples of 16."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = kernel.arg_names
    even = [name for name, kind in types.items() if kind.startswith("*") or name in aligned]
    signature = {name: "constexpr" if name in constants else types[name] for name in names}
    source = ASTSource(
        kernel, signature, constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in even},
    )  # fmt: skip
    made = triton.compile(source, target=GPUTarget("cuda", target, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
        words = [str(tool), "--dump-resource-usage", file.name]
        said = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout
    found = {name: int(value) for name, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", said)}
    return Built(found["REG"], found["STACK"], found["LOCAL"], made.metadata.shared)


def int8_kernels(target: int) -> dict[str, Built]:
    """The int8 kernels for a compute capability, as they are called for the published network."""
    from wanimate.runtime.kernels import attention_int8, product_int8, rows

    pointer8, pointer16, scales = "*i8", "*bf16", "*fp32"
    found = {}
    types = {
        "q": pointer8, "q_scale": scales, "k": pointer8, "k_scale": scales, "v": "*fp16", "v_scale": scales,
        "lists": "*i16", "counts": "*i32", "out": pointer16, "queries": "i32", "tokens": "i32", "most": "i32",
        "factor": "fp32",
    }  # fmt: skip
    sizes = {"N": HEADS, "d": WIDTH, "QUERIES": attention_int8.QUERIES, "KEYS": attention_int8.KEYS}
    options = {"num_warps": attention_int8.WARPS, "num_stages": attention_int8.STAGES}
    for name, listed in (("attention", False), ("attention, listed", True)):
        found[name] = built(attention_int8._attend, types, sizes | {"LISTED": listed}, options, target)

    shape = product_int8.shape_for((target // 10, target % 10))
    options = {name: shape[name] for name in ("num_warps", "num_stages")}
    blocks = {name: value for name, value in shape.items() if name not in options}
    types = {
        "x": pointer8, "w": pointer8, "x_scale": scales, "w_scale": scales, "bias": pointer16, "out": pointer16,
        "rows": "i32", "outs": "i32", "ins": "i32",
    }  # fmt: skip
    constants = blocks | {"GROUP": product_int8.GROUP, "WHOLE": True, "BIASED": True}
    found["product"] = built(product_int8._multiply, types, constants, options, target, ("outs", "ins"))

    types = {
        "x": "*i32", "weight": "*i32", "cosine": scales, "sine": scales, "shift": "*i32", "steps": scales, "signs": pointer16,
        "out": pointer8, "scales": scales, "eps": "fp32",
    }  # fmt: skip
    constants = {"N": HEADS, "d": WIDTH, "HEADS": 64, "SHIFTS": True, "INT8": True}
    found["queries and keys"] = built(rows._rms_eight, types, constants, {"num_warps": 4}, target)
    return found
