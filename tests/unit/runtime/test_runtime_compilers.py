"""No code is loaded from a folder that others can foresee and fill."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from wanimate.runtime.compilers import FOLDERS, keep_caches_private


@pytest.fixture
def unset(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for variable in FOLDERS:
        monkeypatch.setenv(variable, "")
    monkeypatch.setenv("WANIMATE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_compilers_write_into_the_users_cache(unset: Path) -> None:
    keep_caches_private()
    for variable, name in FOLDERS.items():
        folder = Path(os.environ[variable])
        assert folder == unset / "compiled" / name
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_what_the_user_has_set_stays(unset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", "/somewhere")
    keep_caches_private()
    assert os.environ["TRITON_CACHE_DIR"] == "/somewhere"


def test_a_folder_that_others_may_write_into_is_not_used(unset: Path) -> None:
    (unset / "compiled" / "inductor").mkdir(parents=True)
    (unset / "compiled" / "inductor").chmod(0o777)
    (unset / "compiled" / "triton").touch()
    keep_caches_private()
    for variable in FOLDERS:
        folder = Path(os.environ[variable])
        assert unset not in folder.parents
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "entry", ["wanimate.api", pytest.param("wanimate.runtime.parallel.team", marks=pytest.mark.slow)]
)
def test_every_entry_has_it_and_nothing_comes_to_the_temporary_folder(tmp_path: Path, entry: str) -> None:
    (tmp_path / "tmp").mkdir()
    code = f"import os, {entry}; print(os.environ['TORCHINDUCTOR_CACHE_DIR'], os.environ['TRITON_CACHE_DIR'])"
    plain = {key: value for key, value in os.environ.items() if key not in FOLDERS}
    env = plain | {"TMPDIR": str(tmp_path / "tmp"), "WANIMATE_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    said = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert said.stdout.split() == [str(tmp_path / "cache" / "compiled" / name) for name in ("inductor", "triton")]
    assert os.listdir(tmp_path / "tmp") == []
