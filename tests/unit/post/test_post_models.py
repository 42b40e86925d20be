from __future__ import annotations

from pathlib import Path

import pytest

from wanimate.errors import InputError
from wanimate.post import models


def test_missing_models_say_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=rf"rife-4\.25\.pkl not found\. Run `python -m wanimate\.post\.models --models {tmp_path}`"
    ):
        models.read(models.RIFE, tmp_path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / models.RIFE).write_bytes(b"other")
    with pytest.raises(InputError, match=r"its checksum is wrong\. Run `python -m wanimate\.post\.models"):
        models.read(models.RIFE, tmp_path)
    (tmp_path / f"{models.SPAN}.bin").write_bytes(models.read(f"{models.SPAN}.bin")[:-4])
    with pytest.raises(InputError, match="its checksum is wrong"):
        models.read(f"{models.SPAN}.bin", tmp_path)
