"""What the nodes take: the declaration of their inputs, and jobs made of the values."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

from wanimate.config import (
    ClipLimits,
    GenerateSettings,
    Job,
    Mode,
    OutputSettings,
    PreprocessSettings,
    RuntimeSettings,
    Speed,
)
from wanimate.config.values import parse_lora

Given = Mapping[str, Any]
"""Values of a node's inputs, by name."""

MOST_SEED = 2**53 - 1
"""The largest whole number that a browser keeps exact."""
ENDINGS = {"h264": ".mp4", "h265": ".mp4", "ffv1": ".mkv"}
RELIGHT = {"auto": None, "on": True, "off": False}
REQUIRED: dict[str, Any] = {
    "checkpoint": (
        "STRING",
        {"default": "", "tooltip": "Folder of the checkpoint, or its transformer's file. Empty: the small mannequin."},
    ),
    "seed": (
        "INT",
        {
            "default": 0, "min": 0, "max": MOST_SEED, "control_after_generate": True,
            "tooltip": "The same seed and inputs on the same machine give the same frames.",
        },
    ),
    "steps": ("INT", {"default": 0, "min": 0, "max": 1000, "tooltip": "Denoising steps. 0: the checkpoint's own."}),
    "size": (
        "STRING",
        {"default": "", "tooltip": "Pixel area as WIDTHxHEIGHT; the aspect is kept. Empty: the checkpoint's own."},
    ),
    "speed": (
        list(get_args(Speed)),
        {"default": RuntimeSettings().speed, "tooltip": "fast computes in 8 bits where the GPU can; turbo also skips steps."},
    ),
}  # fmt: skip
OPTIONAL: dict[str, Any] = {
    "image": ("IMAGE", {"tooltip": "The character: one picture. Needed, unless guides are connected."}),
    "video": ("VIDEO", {"tooltip": "The performer's clip."}),
    "video_path": ("STRING", {"default": "", "tooltip": "The performer's clip as a file, in place of video."}),
    "frames": ("IMAGE", {"tooltip": "The performer's clip as pictures, in place of video; fps is their rate."}),
    "fps": (
        "FLOAT",
        {"default": 24.0, "min": 1.0, "max": 240.0, "step": 0.001, "tooltip": "Rate of frames in pictures a second."},
    ),
    "guides": ("WANIMATE_GUIDES", {"tooltip": "Guides that exist already, in place of image and clip."}),
    "loras": (
        "STRING",
        {"default": "", "multiline": True, "tooltip": "LoRA files, one a line: FILE, FILE:0.8 or FILE:1.0@0-50%."},
    ),
    "person": (
        "STRING",
        {"default": PreprocessSettings().person, "tooltip": "Who is followed: largest, left, right, 2 or x,y; 2@1.5."},
    ),
    "any_length": ("BOOLEAN", {"default": False, "tooltip": "Take clips shorter than 2 s and longer than 30 s, too."}),
    "watermark": ("BOOLEAN", {"default": OutputSettings().watermark, "tooltip": 'Write "AI generated" into the corner.'}),
    "codec": (
        list(ENDINGS),
        {"default": OutputSettings().codec, "tooltip": "Encoder of the file that frames are read from; ffv1 is lossless."},
    ),
    "filename_prefix": (
        "STRING",
        {"default": "wanimate/video", "tooltip": "Name of the file in ComfyUI's output folder; a number is added."},
    ),
    "keep_loaded": ("BOOLEAN", {"default": True, "tooltip": "Keep the weights in memory for the next run."}),
}  # fmt: skip
IN_THE_SCENE: dict[str, Any] = {
    "relight": (
        list(RELIGHT),
        {
            "default": "auto",
            "tooltip": "Light the character as the scene is. auto: if the checkpoint has a LoRA for it.",
        },
    ),
    "composite": (
        "BOOLEAN",
        {"default": OutputSettings().composite, "tooltip": "Keep every pixel of the scene outside of the character."},
    ),
}

STRETCH: dict[str, Any] = {
    "start": (
        "FLOAT",
        {"default": 0.0, "min": 0.0, "max": 36000.0, "step": 0.001, "tooltip": "Use the clip from this second on."},
    ),
    "end": (
        "FLOAT",
        {
            "default": 0.0,
            "min": 0.0,
            "max": 36000.0,
            "step": 0.001,
            "tooltip": "Use it up to this second. 0: to its end.",
        },
    ),
}
"""Last of all: saved workflows know inputs by their place."""

NAMES = {
    "image": "image", "guides": "guides", "checkpoint": "checkpoint", "out": "filename_prefix", "generate.seed": "seed",
    "generate.steps": "steps", "generate.lora": "loras", "generate.relight": "relight", "preprocess.area": "size",
    "preprocess.person": "person", "preprocess.start": "start", "preprocess.end": "end",
    "preprocess.limits.max_seconds": "any_length", "runtime.speed": "speed",
    "output.codec": "codec", "output.composite": "composite", "output.watermark": "watermark",
}  # fmt: skip
"""How the nodes call the settings that they have; the performer's clip is spelled by the input that gave it."""


def with_defaults(declared: Mapping[str, Mapping[str, Any]], given: Given) -> dict[str, Any]:
    """The values of all inputs: those not given have their default, sockets that are not connected None."""
    inputs = {**declared["required"], **declared["optional"]}
    return {name: given.get(name, declaration[1].get("default")) for name, declaration in inputs.items()}


def runtime_of(given: Given, device: str | None) -> RuntimeSettings:
    return RuntimeSettings(speed=given["speed"], device=device)


def lora_files(text: str) -> list[str]:
    """The files of LoRAs, one a line; lines that name none are left out."""
    found = []
    for line in _lines(text):
        with suppress(ValueError):
            found.append(parse_lora(line)["path"])
    return found


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def generate_of(given: Given) -> GenerateSettings:
    return GenerateSettings(
        steps=given["steps"] or None, seed=given["seed"], lora=_lines(given["loras"]),  # type: ignore[arg-type]
        relight=RELIGHT[given.get("relight", "auto")],
    )  # fmt: skip


def output_of(given: Given) -> OutputSettings:
    return OutputSettings(codec=given["codec"], watermark=given["watermark"], composite=given.get("composite", True))


def job_of(mode: Mode, given: Given, image: Path, video: Path, out: Path) -> Job:
    """The job of a node whose picture and clip lie in files."""
    limits = ClipLimits(min_seconds=0, max_seconds=None) if given["any_length"] else ClipLimits()
    size = given["size"].strip() or None
    return Job(
        image=image, video=video, out=out, mode=mode, generate=generate_of(given), output=output_of(given),
        preprocess=PreprocessSettings(
            area=size, person=given["person"], start=given["start"], end=given["end"] or None, limits=limits
        ),
    )  # fmt: skip
