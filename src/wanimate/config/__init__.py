"""Settings of a job: the groups, how their values can be written (`values`), and what they have in common (`base`)."""

from wanimate.config.codecs import FORMATS, Alpha, Codec
from wanimate.config.finishing import FinishingSettings, Interpolate, Style
from wanimate.config.generate import CacheKind, Defaults, GenerateSettings, LoraUse, Solver
from wanimate.config.job import SCHEMA, Job, Mode
from wanimate.config.marks import MarkSettings
from wanimate.config.output import BurnIn, OutputSettings
from wanimate.config.preprocess import ClipLimits, Detectors, PreprocessSettings, Retarget
from wanimate.config.runtime import (
    Attention,
    BlocksMode,
    ParallelSettings,
    RuntimeSettings,
    Speed,
    WeightsType,
    check_spread,
)

__all__ = [
    "FORMATS",
    "SCHEMA",
    "Alpha",
    "Attention",
    "BlocksMode",
    "BurnIn",
    "CacheKind",
    "ClipLimits",
    "Codec",
    "Defaults",
    "Detectors",
    "FinishingSettings",
    "GenerateSettings",
    "Interpolate",
    "Job",
    "LoraUse",
    "MarkSettings",
    "Mode",
    "OutputSettings",
    "ParallelSettings",
    "PreprocessSettings",
    "Retarget",
    "RuntimeSettings",
    "Solver",
    "Speed",
    "Style",
    "WeightsType",
    "check_spread",
]
