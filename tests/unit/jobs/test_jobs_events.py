"""Events: how far the whole job is, what they are on the wire, and a preview that anybody can show."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from wanimate.api import Animator
from wanimate.config import GenerateSettings, OutputSettings
from wanimate.errors import Cancelled, setting
from wanimate.events import (
    SCHEMA,
    Clock,
    Expected,
    Finished,
    Notice,
    Picture,
    Stage,
    StageFinished,
    StageProgress,
    StageStarted,
    StepDone,
    from_dict,
    to_dict,
)
from wanimate.finish.lock import work_path
from wanimate.finish.preview import ColourMap, LatentPreview
from wanimate.jobs.cancel import CancelToken
from wanimate.types import Result

LOSSLESS = OutputSettings(codec="ffv1")
MakeGuides = Callable[..., Path]
PIXELS = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
EVENTS = [
    StageStarted(stage=Stage.DRAW, total=3, fraction=0.25, seconds_left=1.5),
    StageProgress(stage=Stage.DECODE, done=1, total=9, segment=1),
    StageFinished(stage=Stage.LOAD, seconds=0.5),
    StepDone(segment=0, segments=2, step=1, steps=4, skipped=1),
    Notice(text=f"give {setting('preprocess.area')}", level="warning"),
    Finished(result=Result(Path("a.mp4"), 9, (32, 16), Fraction(30000, 1001), 7, Path("a.png"), {"schema": 2})),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_events_travel_as_json(event: StageStarted) -> None:
    data = json.loads(json.dumps(to_dict(event)))
    assert data["schema"] == SCHEMA
    assert from_dict(data) == event


def test_a_preview_travels_where_it_is_wanted() -> None:
    event = StepDone(segment=0, segments=1, step=1, steps=1, preview=Picture(PIXELS))
    assert "preview" not in to_dict(event)
    got = from_dict(json.loads(json.dumps(to_dict(event, previews=True))))
    assert isinstance(got, StepDone)
    assert got.preview is not None
    assert (got.preview.picture() == PIXELS).all()


@pytest.mark.parametrize("data", [{"event": "step", "schema": SCHEMA + 1}, {"event": "dance", "schema": SCHEMA}, {}])
def test_what_is_no_event_is_refused(data: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="not an event of schema"):
        from_dict(data)


def test_a_job_tells_how_far_it_is(animator: Animator, guides: MakeGuides, tmp_path: Path) -> None:
    """Never less than before, within 0 and 1, and 1 with the last event only."""
    events = list(animator.generate(guides(11), tmp_path / "a.mkv", GenerateSettings(steps=4, seed=7), LOSSLESS))
    told = [event for event in events if not isinstance(event, Notice)]
    fractions = [event.fraction for event in told]
    assert all(fraction is not None for fraction in fractions)
    assert fractions == sorted(fractions)
    assert 0 <= fractions[0] < 0.5
    assert max(fractions[:-1]) < 1
    assert fractions[-1] == 1
    assert all(event.seconds_left >= 0 for event in told)
    assert told[-1].seconds_left == 0


def test_the_fraction_follows_the_work_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("wanimate.events.time.perf_counter", lambda: now[0])
    clock = Clock()
    clock.expect([Expected(Stage.DETECT, 10, 1.0), Expected(Stage.DENOISE, 10, 9.0)])
    (first,) = clock.start(Stage.DETECT, 10)
    assert (first.fraction, first.seconds_left) == (0.0, 100.0)
    now[0] = 10.0
    (half,) = clock.note(StageProgress(stage=Stage.DETECT, done=5, total=10))
    assert half.seconds_left == pytest.approx(10 + 90), "units count as long as they have taken"
    now[0] = 20.0
    *_, begun = clock.start(Stage.DENOISE, 10, 0)
    assert begun.seconds_left == pytest.approx(90)
    assert clock.seconds == {"detect": 20.0}
    for step in range(1, 11):
        now[0] += 2.0
        (done,) = clock.note(StepDone(segment=0, segments=1, step=step, steps=10))
        assert done.seconds_left == pytest.approx(2.0 * (10 - step))


def test_a_token_cancels_a_job(animator: Animator, guides: MakeGuides, tmp_path: Path) -> None:
    token = CancelToken()
    events = animator.generate(
        guides(11), tmp_path / "a.mkv", GenerateSettings(steps=4, seed=7), LOSSLESS, cancel=token
    )
    next(event for event in events if isinstance(event, StepDone))
    token.cancel()
    with pytest.raises(Cancelled):
        next(events)
    assert list(tmp_path.iterdir()) == []


def test_the_preview_is_fitted_to_what_the_latents_stand_for() -> None:
    """Any linear coding of colours is undone, also with channels that say nothing."""
    torch.manual_seed(0)
    colours = F.interpolate(torch.rand(1, 3, 4, 5) * 2 - 1, (8, 10))[0]
    mixing = torch.randn(16, 3)
    mixing[5] = 0
    latents = torch.einsum("cr,rhw->chw", mixing, colours) + 0.3
    found = ColourMap(lambda: [(latents[:, None], colours[:, None])])
    video = torch.stack([latents * 0, latents, latents * 0], dim=1)
    wanted = ((colours + 1) * 127.5).permute(1, 2, 0).numpy()
    assert np.abs(LatentPreview(found, video).picture() - wanted).max() < 3


def test_a_picture_of_one_colour_gives_a_preview() -> None:
    latents, colours = torch.full((16, 1, 4, 4), 0.7), torch.full((3, 1, 4, 4), -0.5)
    picture = ColourMap(lambda: [(latents, colours)]).picture(latents[:, 0])
    assert np.abs(picture.astype(int) - 64).max() <= 2


def test_every_event_tells_how_far_the_job_is(animator: Animator, guides: MakeGuides, tmp_path: Path) -> None:
    drawn_seed = GenerateSettings(steps=12, cache="taylor")
    events = list(animator.generate(guides(11), tmp_path / "a.mp4", drawn_seed))
    assert sum(isinstance(event, Notice) for event in events) >= 2
    assert [event for event in events if event.fraction is None] == []


def test_a_job_that_is_closed_before_it_ends_leaves_no_sheet(
    animator: Animator, guides: MakeGuides, tmp_path: Path
) -> None:
    settings = GenerateSettings(steps=1, seed=7)
    job = animator.generate(guides(11), tmp_path / "a.mp4", settings, OutputSettings(sheet=True))
    last = next(event for event in job if isinstance(event, StageFinished) and event.stage is Stage.WRITE)
    job.close()
    assert (last.stage, list(tmp_path.iterdir())) == (Stage.WRITE, [work_path(tmp_path / "a.mp4")])


def test_a_job_that_is_done_is_not_cancelled(animator: Animator, guides: MakeGuides, tmp_path: Path) -> None:
    token = CancelToken()
    job = animator.generate(guides(11), tmp_path / "a.mp4", GenerateSettings(steps=1, seed=7), cancel=token)
    for event in job:
        if isinstance(event, StageFinished) and event.stage is Stage.WRITE:
            token.cancel()
    assert isinstance(event, Finished)
    assert event.result.out.exists()
