"""`generate` takes sound from the clip that the guides name, if it is the clip they were made of."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "media"))
from make_clips import make_clip

from wanimate.api import Animator
from wanimate.config import GenerateSettings
from wanimate.events import Finished, Notice
from wanimate.finish import encode
from wanimate.finish.audio import AudioCopy
from wanimate.media.files import sha256
from wanimate.media.probe import probe
from wanimate.media.writer import StreamWriter
from wanimate.types import Clip

COUNT = 5


@pytest.mark.parametrize("change", [None, "another clip", "no clip"])
def test_sound_of_the_very_clip_only(
    animator: Animator, guides: Callable[..., Path], tmp_path: Path, change: str | None
) -> None:
    folder = Path(shutil.copytree(guides(COUNT), tmp_path / "guides"))
    clip = make_clip(tmp_path / "dance.mp4", COUNT, size=(64, 48), sound="aac")
    source = {"path": str(clip), "sha256": sha256(clip), "frames": list(range(COUNT))}
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"source": source, "settings": {"wings": 2}}))
    if change == "another clip":
        make_clip(clip, COUNT + 1, size=(64, 48), sound="aac")
    elif change == "no clip":
        clip.unlink()
    events = list(animator.generate(folder, tmp_path / "a.mp4", GenerateSettings(steps=2, seed=7)))
    warnings = [event.message for event in events if isinstance(event, Notice) and event.level == "warning"]
    assert bool(probe(tmp_path / "a.mp4", None).audio) == (change is None)
    assert any("without its sound" in text for text in warnings) == (change is not None)
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert finished.result.manifest["warnings"] == warnings
    assert finished.result.manifest["preprocess"] is None, "settings that are none are not repeated"


def test_sound_begins_at_the_first_frame_that_was_taken(
    animator: Animator, guides: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(guides(COUNT), tmp_path / "guides"))
    clip = make_clip(tmp_path / "dance.mp4", 2 * COUNT, size=(64, 48), sound="aac")
    path, frames = folder / "manifest.json", list(range(3, 3 + COUNT))
    source = {"path": str(clip), "sha256": sha256(clip), "frames": frames}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"source": source}))
    starts = []

    class Heard(AudioCopy):
        def __init__(
            self, clip: Clip, writer: StreamWriter, ending: str, start: float = 0.0, lead: float = 0.0
        ) -> None:
            starts.append(start)
            super().__init__(clip, writer, ending, start, lead)

    monkeypatch.setattr(encode, "AudioCopy", Heard)
    list(animator.generate(folder, tmp_path / "a.mp4", GenerateSettings(steps=1, seed=7)))
    assert starts == [pytest.approx(3 / 30)]
