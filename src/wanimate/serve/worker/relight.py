"""One moment of a replacement, generated with and without the relighting LoRA: small, short, and in few steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from wanimate.api import Animator
from wanimate.config import OutputSettings, PreprocessSettings
from wanimate.events import Event, Finished
from wanimate.media.png import write_png
from wanimate.media.probe import probe
from wanimate.media.stretch import stretch_of
from wanimate.media.video import iter_indices
from wanimate.preprocess.people.choice import parse_choice
from wanimate.serve.worker.work import Work
from wanimate.types import Clip, Guides, Result

FRAMES = 13
"""Four latent frames. With fewer, networks that were trained on longer stretches draw worse than they do in a video."""
STEPS = 6
AREA = 480 * 272


def moment(clip: Clip, settings: PreprocessSettings, area: int) -> PreprocessSettings:
    """The settings of a stretch of `FRAMES` frames: where the person is chosen, else in the middle of what is used."""
    used, choice = stretch_of(clip, settings), parse_choice(settings.person)
    rate = float(settings.fps or min(clip.fps, settings.max_fps))
    seconds = FRAMES / rate
    last = used.start + used.seconds - seconds
    at = used.start + used.seconds / 2 if choice.is_anybody else used.start
    start = max(used.start, min(at if choice.at is None else choice.at, last))
    start = clip.times[stretch_of(clip, settings.model_copy(update={"start": start, "end": None, "handles": 0})).first]
    limits = settings.limits.model_copy(update={"min_seconds": 0.0})
    more = {"start": start, "end": min(start + seconds, clip.duration), "limits": limits}
    return settings.model_copy(update=more | {"area": min(settings.area or area, AREA)})


def compare_relighting(work: Work, animator: Animator, guides: Guides, usual_steps: int) -> Iterator[Event]:
    """Both pictures into the storage, of one seed. `usual_steps`: the checkpoint's own."""
    guides = replace(guides, manifest={name: told for name, told in guides.manifest.items() if name != "source"})
    settings = work.submission.generate_settings(work.settings)
    steps = min(settings.steps or usual_steps, STEPS)
    seed = 1 if settings.seed is None else settings.seed
    result: Result | None = None
    for half, (name, relight) in enumerate((("without", False), ("with", True))):
        chosen = settings.model_copy(update={"relight": relight, "steps": steps, "seed": seed})
        out = work.scratch / f"{name}.mkv"
        for event in animator.generate(guides, out, chosen, OutputSettings(codec="ffv1"), work.cancel):
            if isinstance(event, Finished):
                result = event.result
            else:
                yield _of_half(event, half)
        stored = f"{work.place}/{name}.png"
        work.keep(_middle(out, work.scratch / f"{name}.png"), stored)
        work.result[name] = stored
    assert result is not None
    work.facts |= {"size": list(result.size), "frames": result.count, "steps": steps, "seed": seed}


def _of_half(event: Event, half: int) -> Event:
    """An event of the first or the second of two drawings that take as long."""
    if event.fraction is None:
        return event
    left = event.seconds_left if half or event.seconds_left is None else 2 * event.seconds_left
    return replace(event, fraction=(half + event.fraction) / 2, seconds_left=left)


def _middle(video: Path, place: Path) -> Path:
    clip = probe(video, None)
    (frame,) = iter_indices(clip, [clip.count // 2])
    write_png(place, frame)
    return place
