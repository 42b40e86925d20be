"""wanimate: a character performs what a performer does in a clip, on the Wan2.2-Animate architecture.

>>> import wanimate
>>> wanimate.animate(image="character.png", video="performer.mp4", out="result.mp4")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wanimate.api import Animator, animate, replace, shot_record
    from wanimate.config import GenerateSettings, Job, OutputSettings, PreprocessSettings
    from wanimate.errors import WanimateError
    from wanimate.events import Event, Finished
    from wanimate.types import Guides, Result

__all__ = [
    "Animator",
    "Event",
    "Finished",
    "GenerateSettings",
    "Guides",
    "Job",
    "OutputSettings",
    "PreprocessSettings",
    "Result",
    "WanimateError",
    "animate",
    "replace",
    "shot_record",
]

_HOMES = {
    "config": ("GenerateSettings", "Job", "OutputSettings", "PreprocessSettings"),
    "errors": ("WanimateError",),
    "api": ("Animator", "animate", "replace", "shot_record"),
    "events": ("Event", "Finished"),
    "types": ("Guides", "Result"),
}


def __getattr__(name: str) -> Any:
    """Public names come from their modules on first use, so that importing a part does not import the whole."""
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"wanimate.{module}"), name)
    raise AttributeError(f"module 'wanimate' has no attribute {name!r}")
