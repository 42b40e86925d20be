"""Settings of a job: the groups, how their values can be written (`values`), and what they have in common (`base`)."""

from wanimate.config.generate import CacheKind, Codec, Defaults, GenerateSettings, LoraUse, OutputSettings, Solver
from wanimate.config.job import SCHEMA, Job, Mode
from wanimate.config.marks import MarkSettings
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
    "SCHEMA",
    "Attention",
    "BlocksMode",
    "CacheKind",
    "ClipLimits",
    "Codec",
    "Defaults",
    "Detectors",
    "GenerateSettings",
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
    "WeightsType",
    "check_spread",
]
