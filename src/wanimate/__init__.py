"""wanimate: a character performs what a performer does in a clip, on the Wan2.2-Animate architecture.

>>> import wanimate
>>> wanimate.animate(image="character.png", video="performer.mp4", out="result.mp4")
"""

from wanimate.config import GenerateSettings, Job, OutputSettings, PreprocessSettings
from wanimate.errors import WanimateError
from wanimate.pipeline import Animator, animate
from wanimate.types import Event, Finished, Guides, Result

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
]
