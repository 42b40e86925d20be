"""A job never writes over its inputs, and its own files never meet."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from wanimate.api import Animator
from wanimate.config import GenerateSettings, Job, OutputSettings, PreprocessSettings
from wanimate.errors import InputError, OutputError
from wanimate.integrations.published import write_published_guides
from wanimate.jobs import run as jobs
from wanimate.jobs.workspace import workspace
from wanimate.post.base import VideoSpec


@pytest.mark.parametrize("guides", ["a.mp4", "a.json", "a.sheet.png", ".", "a.mp4/guides"])
def test_guides_are_kept_apart_from_the_result(tmp_path: Path, guides: str) -> None:
    with (
        pytest.raises(OutputError, match="in each other's way") as refused,
        workspace(tmp_path / "a.mp4", OutputSettings(), (), tmp_path / guides),
    ):
        pass
    assert refused.value.field == "keep_guides"
    assert not list(tmp_path.iterdir())


def test_guides_do_not_replace_a_folder_with_an_input(tmp_path: Path) -> None:
    image = tmp_path / "guides" / "reference.png"
    image.parent.mkdir()
    image.write_bytes(b"")
    with (
        pytest.raises(OutputError, match=r"reference\.png in it is an input"),
        workspace(tmp_path / "a.mp4", OutputSettings(), (image,), image.parent),
    ):
        pass
    with pytest.raises(OutputError, match=r"reference\.png in it is an input"):
        next(jobs.preprocess("animation", image, tmp_path / "v.mp4", image.parent, PreprocessSettings(), 2**14))
    assert image.exists()


@pytest.mark.parametrize("sheet", ["g/why.png", "g/deep/why.png", "g"])
def test_a_mask_sheet_in_the_guides_is_refused_before_any_work(tmp_path: Path, sheet: str) -> None:
    """It would keep the folder from getting its name in the end."""
    settings = PreprocessSettings(mask_debug=tmp_path / sheet)
    with pytest.raises(OutputError, match=r"in the way of .*g, which the job writes") as refused:
        next(jobs.preprocess("replacement", tmp_path / "a.png", tmp_path / "v.mp4", tmp_path / "g", settings, 2**14))
    assert refused.value.field == "preprocess.mask_debug"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("sheet", ["a.sheet.png", "frames.png/why.png", "kept/why.png"])
def test_a_mask_sheet_is_kept_apart_from_the_result(animator: Animator, tmp_path: Path, sheet: str) -> None:
    out = tmp_path / ("frames.png" if "frames" in sheet else "a.mp4")
    job = Job(
        image=tmp_path / "a.png", video=tmp_path / "v.mp4", out=out, mode="replacement", keep_guides=tmp_path / "kept",
        preprocess=PreprocessSettings(mask_debug=tmp_path / sheet),
    )  # fmt: skip
    with pytest.raises(OutputError, match=r"which the job writes\. Choose another name"):
        list(animator.run(job))


def test_a_sheet_is_not_written_over_an_input(tmp_path: Path) -> None:
    image = tmp_path / "a.sheet.png"
    image.write_bytes(b"")
    with (
        pytest.raises(OutputError, match=r"a\.sheet\.png: this is an input of the job"),
        workspace(tmp_path / "a.mp4", OutputSettings(sheet=True), (image,)),
    ):
        pass
    with workspace(tmp_path / "a.mp4", OutputSettings(), (image,)):
        pass


def test_a_result_is_not_written_over_its_guides(
    animator: Animator, guides: Callable[..., Path], tmp_path: Path
) -> None:
    out = guides(11) / "pose.mkv"
    before = out.read_bytes()
    with pytest.raises(OutputError, match="this is an input of the job"):
        list(animator.generate(guides(11), out, GenerateSettings(steps=1), OutputSettings(codec="ffv1")))
    assert out.read_bytes() == before


@pytest.mark.parametrize(("sheet", "fits"), [(False, True), (True, False)])
def test_room_for_record_and_sheet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sheet: bool, fits: bool) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=4 * 2**20))
    with workspace(tmp_path / "a.mp4", OutputSettings(sheet=sheet), ()) as place:
        if fits:
            place.check_room(VideoSpec((64, 64), Fraction(16), 10), "animation")
            return
        with pytest.raises(OutputError, match=r"the disk has 4\.2 MB free"):
            place.check_room(VideoSpec((64, 64), Fraction(16), 10), "animation")


@pytest.mark.parametrize(
    ("guides", "out", "field"), [(None, "a.mp4", "guides"), (5, "a.mp4", "guides"), ("g", 5, "out")]
)
def test_what_is_no_path_is_refused(animator: Animator, guides: Any, out: Any, field: str) -> None:
    with pytest.raises(InputError) as refused:
        list(animator.generate(guides, out))
    assert refused.value.field == field


def test_a_folder_for_published_guides_that_do_not_come_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody(*_: object) -> Any:
        raise InputError("video", "v.mp4", "nobody was found", "Give another.")
        yield

    monkeypatch.setattr("wanimate.integrations.published.preprocess", nobody)
    none, settings = cast(Any, SimpleNamespace()), PreprocessSettings(area=2**14)
    making = write_published_guides("animation", none, none, settings, tmp_path / "new" / "g", none, (), {})
    with pytest.raises(InputError, match="nobody"):
        list(making)
    assert not list(tmp_path.iterdir())
