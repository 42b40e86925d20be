"""The detector that the settings name: `mediapipe` works offline and is the default, `published` uses onnxruntime."""

from __future__ import annotations

from wanimate.config import PreprocessSettings
from wanimate.errors import InputError, setting
from wanimate.preprocess.detect.base import PoseBackend
from wanimate.preprocess.people.choice import parse_choice


def open_detector(settings: PreprocessSettings) -> PoseBackend:
    """The backend that the settings name, its models loaded.

    Raises:
        InputError: models or the optional package of the backend are missing; the message says what to run.
    """
    choice = parse_choice(settings.person)
    if settings.compat and not choice.is_anybody:
        rule = "the published code takes the largest person of every frame"
        raise InputError("preprocess.person", settings.person, rule, f"Leave it or {setting('preprocess.compat')} out")
    if settings.backend == "published":
        from wanimate.preprocess.detect.yolo_vitpose import PublishedBackend

        return PublishedBackend.load(settings.models, settings.compat, choice)
    from wanimate.preprocess.detect.mediapipe import MediapipeBackend
    from wanimate.preprocess.detect.models import find

    return MediapipeBackend(find(settings.models), choice)
