"""Where compilers keep the code they make: a folder of this user alone."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

from wanimate.media.files import cache_folder, private_folder

FOLDERS = {"TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}
"""Variables that the compilers read, and the folders in the user's cache that they are set to."""


def keep_caches_private() -> None:
    """Tell PyTorch's compiler and Triton to keep their code in the user's cache. PyTorch's own choice is a folder of a known
    name in /tmp, from which it loads code, whoever has put it there. What the user has set stays.

    Where the cache cannot be had, or others may write into it, a new temporary folder is used until this process ends.
    """
    for variable, name in FOLDERS.items():
        if not os.environ.get(variable):
            os.environ[variable] = str(compiled_folder(name))


def compiled_folder(name: str) -> Path:
    """The folder of this name for code that was made here, private to this user; a temporary one as above."""
    return _folder(name, os.environ.get("WANIMATE_CACHE"))


@cache
def _folder(name: str, chosen: str | None) -> Path:
    try:
        return private_folder(cache_folder() / "compiled" / name)
    except (OSError, RuntimeError):  # RuntimeError: this user has no home
        folder = Path(tempfile.mkdtemp(prefix="wanimate-compiled-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return folder
