"""The nodes: animate, replace, load guides."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import folder_paths
import torch

from wanimate import Result
from wanimate.config import Mode
from wanimate.errors import InputError, plainly
from wanimate.finish.lock import record_path
from wanimate.finish.naming import is_quarantined, quarantined
from wanimate.finish.record import renamed
from wanimate.media.files import json_bytes, write_new
from wanimate.preprocess.guides import load_guides
from wanimate.types import Guides

from . import files, inputs, running

_CLIPS = ("video", "video_path", "frames")
"""The inputs that give a clip."""


class _Node:
    """A job as a node: picture and clip, or guides, to a video."""

    MODE: ClassVar[Mode]
    MORE: ClassVar[Mapping[str, Any]] = {}
    """Optional inputs beside those that all have."""
    CATEGORY = "wanimate"
    FUNCTION = "run"
    OUTPUT_NODE = True
    RETURN_TYPES = ("IMAGE", "AUDIO", "FLOAT", "STRING")
    RETURN_NAMES = ("frames", "audio", "fps", "path")
    OUTPUT_TOOLTIPS = (
        "The frames of the result.",
        "Its sound; nothing where the clip has none.",
        "Its frames a second.",
        "The file of the result; its record lies beside it.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, dict[str, Any]]:
        return {"required": inputs.REQUIRED, "optional": {**inputs.OPTIONAL, **cls.MORE, **inputs.STRETCH}}

    @classmethod
    def IS_CHANGED(cls, **given: Any) -> str:
        """Files that inputs name are looked at: the node runs again when one has changed."""
        named = [given.get("video_path"), given.get("checkpoint"), *inputs.lora_files(given.get("loras") or "")]
        return "; ".join(_state(Path(name)) for name in named if name)

    def run(self, **given: Any) -> dict[str, Any]:
        """Do the job; the result's file lies in ComfyUI's output folder."""
        values = inputs.with_defaults(self.INPUT_TYPES(), given)
        clip = next((name for name in _CLIPS if _is_given(values[name])), _CLIPS[0])
        names = inputs.NAMES | {"video": clip}
        words: dict[Path, str] = {}
        with running.spelled(lambda field: names.get(field, plainly(field)), words):
            _check_sources(values)
            output = Path(folder_paths.get_output_directory()).absolute()
            folder, name = files.place(values["filename_prefix"], output)
            with running.workplace(folder) as work:
                words[work / "image.png"], words[work / "clip.mkv"] = "the connected picture", "the connected clip"
                out = work / files.free_name(folder, name, inputs.ENDINGS[values["codec"]])
                result = self._made(values, work, out)
                kept = _moved(result.out, folder, name)
                pictures, fps = files.video_images(kept)
                shown = {"filename": kept.name, "subfolder": str(folder.relative_to(output)), "type": "output"}
                return {
                    "ui": {"images": [shown], "animated": (True,)},
                    "result": (pictures, files.sound(kept), float(fps), str(kept)),
                }

    def _made(self, values: dict[str, Any], work: Path, out: Path) -> Result:
        runtime = inputs.runtime_of(values, running.device())
        guides = values["guides"]
        if guides is not None:
            _check_mode(guides, self.MODE)
            with running.animator(values["checkpoint"], runtime, values["keep_loaded"]) as animator:
                return running.follow(
                    animator.generate(guides, out, inputs.generate_of(values), inputs.output_of(values))
                )
        job = inputs.job_of(
            self.MODE, values, files.picture_file(values["image"], work / "image.png"), _clip(values, work), out
        )
        with running.animator(values["checkpoint"], runtime, values["keep_loaded"]) as animator:
            return running.follow(animator.run(job))


class WanimateAnimate(_Node):
    """The character of the picture performs what the performer of the clip does."""

    DESCRIPTION = "The character of a picture performs what a performer does in a clip."
    MODE = "animation"


class WanimateReplace(_Node):
    """The character of the picture in the place of the performer of the clip; the scene stays."""

    DESCRIPTION = "The character of a picture takes the place of the performer of a clip. The scene stays."
    MODE = "replacement"
    MORE = inputs.IN_THE_SCENE


class WanimateLoadGuides:
    """A folder of guides, made by `wanimate preprocess` or a published set, for the other nodes and to look at."""

    DESCRIPTION = "Loads guides that exist already, for Wanimate Animate or Wanimate Replace, and to look at."
    CATEGORY = "wanimate"
    FUNCTION = "load"
    RETURN_TYPES = ("WANIMATE_GUIDES", "IMAGE", "IMAGE", "IMAGE")
    RETURN_NAMES = ("guides", "skeletons", "faces", "masks")
    OUTPUT_TOOLTIPS = (
        "For the input guides of Wanimate Animate or Wanimate Replace.",
        "The skeletons that are drawn after.",
        "The crops of the performer's face.",
        "White where the character is drawn; in guides of an animation that is everywhere.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, dict[str, Any]]:
        tooltip = "Folder made by wanimate preprocess, or a published set of src_*.mp4 files."
        return {"required": {"folder": ("STRING", {"default": "", "tooltip": tooltip})}}

    @classmethod
    def IS_CHANGED(cls, folder: str) -> str:
        return _state(Path(folder))

    def load(self, folder: str) -> tuple[Guides, torch.Tensor, torch.Tensor, torch.Tensor]:
        with running.spelled(lambda field: "folder" if field == "guides" else plainly(field), {}):
            guides = load_guides(Path(folder))
            skeletons = files.images(guides.pose)
            masks = torch.ones_like(skeletons[:1]).expand_as(skeletons)
            if guides.mask is not None:
                masks = files.images(guides.mask)
            return guides, skeletons, files.images(guides.face), masks


def _is_given(value: Any) -> bool:
    return value is not None and not (isinstance(value, str) and not value.strip())


def _check_sources(values: dict[str, Any]) -> None:
    """Either guides, or a picture and one clip. Raises InputError."""
    clips = [name for name in _CLIPS if _is_given(values[name])]
    if values["guides"] is not None:
        beside = [name for name in ("image", *clips) if _is_given(values[name])]
        if beside:
            rule = f"{' and '.join(beside)} cannot be used beside them"
            raise InputError("guides", "connected", rule, "Connect guides alone, or image and clip.")
        return
    if values["image"] is None:
        raise InputError("image", "nothing", "the character is needed", "Connect a picture, or guides.")
    if len(clips) != 1:
        rule = "the performer's clip is needed" if not clips else f"{' and '.join(clips)} are given"
        raise InputError(
            clips[0] if clips else "video",
            "nothing" if not clips else "connected",
            rule,
            f"Give one of {', '.join(_CLIPS)}.",
        )


def _check_mode(guides: Guides, mode: Mode) -> None:
    if guides.mode != mode:
        node = "Wanimate Replace" if guides.mode == "replacement" else "Wanimate Animate"
        raise InputError("guides", guides.folder, f"they are of {guides.mode}", f"Connect them to {node}.")


def _clip(values: dict[str, Any], work: Path) -> Path:
    if values["video"] is not None:
        return files.video_file(values["video"], work / "clip.mkv")
    if values["frames"] is not None:
        return files.clip_file(values["frames"], values["fps"], work / "clip.mkv")
    return Path(values["video_path"].strip())


def _moved(made: Path, folder: Path, name: str) -> Path:
    """The result and its record under a free name of the output folder. What is quarantined stays so."""
    kept = folder / files.free_name(folder, name, made.suffix)
    kept = quarantined(kept) if is_quarantined(made) else kept
    record = json.loads(record_path(made).read_bytes())
    write_new(record_path(kept), json_bytes(renamed(record, kept), 2))
    os.rename(made, kept)
    return kept


def _state(path: Path) -> str:
    """What changes when a file, or a file in a folder, is another."""
    places = sorted(path.iterdir()) if path.is_dir() else [path]
    found = []
    for one in places:
        with suppress(OSError):
            stat = one.stat()
            found.append(f"{one.name} {stat.st_size} {stat.st_mtime_ns}")
    return ", ".join(found)
