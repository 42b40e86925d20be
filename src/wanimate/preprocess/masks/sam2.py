"""SAM 2 as mask backend (Ravi et al., arXiv 2408.00714), from a checkpoint in transformers' layout (`Sam2VideoModel`).

Prompts and input are as published (preprocess spec, section 11): a clip is taken in chunks that know nothing of each other,
the body's joints are clicked in a few frames of each, and the masks in between are propagated. In memory are the frames of
one chunk, one frame as the network takes it, and the memory features of as many frames as the network attends to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from wanimate.errors import InputError, is_fault
from wanimate.media.json_file import read_json
from wanimate.preprocess.masks.base import Mask
from wanimate.preprocess.masks.sam_prompts import CHUNK, clicks, key_frames
from wanimate.types import Frame, Keypoints

_FIELD = "preprocess.sam2"
_REMEDY = "Give the folder of a SAM 2 video checkpoint: config.json and model.safetensors"
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CHUNK_BYTES, _LEAST_CHUNK = 256 * 2**20, 16
_PERSON = 1
"""The one object's number."""
_MOST_JSON, _LARGEST_NUMBER, _LONGEST_LIST = 2**20, 2**14, 256
"""Of a configuration: bytes, numbers and lists."""
_LARGEST_GAP = 8
"""Gaps of at most so many pixels in the network's own mask are filled, as published."""

Clicks = dict[int, list[tuple[int, int]]]
"""Frame of a chunk -> positive clicks in pixels."""


class Sam2Masks:
    """A `MaskBackend`. Not for use by several threads at once."""

    name = "sam2"

    def __init__(self, folder: Path, compat: bool = False, device: str | None = None) -> None:
        """Args:
            folder: config.json and safetensors, as `save_pretrained` writes them.
            compat: chunks of 400 frames whatever their size, and a click on every joint, seen or not, as published.
            device: None is the GPU where there is one.

        Raises:
            InputError: no such folder, another model, or weights that are missing, misshapen or not finite.
        """
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._model, self._compat = _load(folder).to(self._device).eval(), compat
        size = self._model.config.image_size
        self._side: int = size if isinstance(size, int) else size[0]

    def follow(
        self, frames: Iterable[Frame], people: Keypoints, valid: npt.NDArray[np.bool_], cuts: Sequence[int] = ()
    ) -> Iterator[tuple[Frame, Mask]]:
        """See `MaskBackend`. With `compat`, chunks go on over cuts, as published."""
        rest, start = iter(frames), 0
        while (first := next(rest, None)) is not None:
            size = CHUNK
            if not self._compat:
                shot = min((cut for cut in cuts if cut > start), default=start + CHUNK) - start
                size = min(CHUNK, shot, max(_CHUNK_BYTES // first.nbytes, _LEAST_CHUNK))
            chunk = [first, *islice(rest, size - 1)]
            here = slice(start, start + len(chunk))
            yield from zip(chunk, self._chunk(chunk, people[here], valid[here]), strict=True)
            start += len(chunk)

    def _chunk(self, frames: list[Frame], people: Keypoints, valid: npt.NDArray[np.bool_]) -> Iterator[Mask]:
        height, width = frames[0].shape[:2]
        prompts = self._prompts(people, valid, width, height)
        first = min(prompts, default=len(frames))
        for _ in range(first):
            yield np.zeros((height, width), np.uint8)
        if not prompts:
            return
        session = self._session(frames)
        for i, points in prompts.items():
            self._click(session, i, points, width, height)
        for i in range(first, len(frames)):
            logits = self._propagate(session, i)
            yield _mask(logits, width, height) if valid[i] else np.zeros((height, width), np.uint8)

    def _prompts(self, people: Keypoints, valid: npt.NDArray[np.bool_], width: int, height: int) -> Clicks:
        """Where to click in which frames. The nearest frame with a joint stands in for a key frame without one."""
        found = {
            i: points
            for i, (person, there) in enumerate(zip(people, valid, strict=True))
            if (there or self._compat) and (points := clicks(person, width, height, self._compat))
        }
        if not found:
            return {}
        nearest = (min(found, key=lambda i: abs(i - key)) for key in key_frames(len(people)))
        return {i: found[i] for i in sorted(set(nearest))}

    def _session(self, frames: list[Frame]) -> Any:
        from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

        height, width = frames[0].shape[:2]
        session: Any = Sam2VideoInferenceSession(
            video_height=height, video_width=width, inference_device=self._device, inference_state_device=self._device,
            dtype=torch.float32,
        )  # fmt: skip
        session.processed_frames = Prepared(frames, self._side)
        return session

    @torch.inference_mode()
    def _click(self, session: Any, frame: int, points: list[tuple[int, int]], width: int, height: int) -> None:
        where = torch.tensor(points, dtype=torch.float32) * torch.tensor([self._side / width, self._side / height])
        labels = torch.ones(1, 1, len(points), dtype=torch.int32)
        person = session.obj_id_to_idx(_PERSON)
        session.add_point_inputs(person, frame, {"point_coords": where[None, None], "point_labels": labels})
        session.obj_with_new_inputs = [_PERSON]
        self._model(session, frame_idx=frame)
        self._forget(session, frame)

    @torch.inference_mode()
    def _propagate(self, session: Any, frame: int) -> Tensor:
        """The network's mask of a frame, logits [h, w] at its own size."""
        logits: Tensor = self._model(session, frame_idx=frame).pred_masks[0, 0]
        self._forget(session, frame)
        return logits

    def _forget(self, session: Any, frame: int) -> None:
        """Drop what the network will not attend to again; transformers' session keeps everything."""
        config, outputs = self._model.config, session.output_dict_per_obj[session.obj_id_to_idx(_PERSON)]
        oldest = frame - max(config.num_maskmem, config.max_object_pointers_in_encoder)
        followed = outputs["non_cond_frame_outputs"]
        for old in [i for i in followed if i <= oldest]:
            del followed[old]
        for kind in outputs.values():
            if frame in kind:
                kind[frame].pop("high_res_masks", None)  # of use only while the memory of the frame itself is made


class Prepared(Sequence[Tensor]):
    """A chunk's frames as the network takes them, float32 [3, side, side], each prepared when it is asked for (section 11)."""

    def __init__(self, frames: list[Frame], side: int) -> None:
        self._frames, self._side = frames, side

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: Any) -> Any:
        small = Image.fromarray(self._frames[index]).resize((self._side, self._side), Image.Resampling.BICUBIC)
        picture = torch.from_numpy(np.array(small)).permute(2, 0, 1).float() / 255
        return (picture - torch.tensor(_MEAN).view(3, 1, 1)) / torch.tensor(_STD).view(3, 1, 1)


def _mask(logits: Tensor, width: int, height: int) -> Mask:
    low = logits.float().cpu().numpy()
    count, pieces, facts, _ = cv2.connectedComponentsWithStats((low <= 0).astype(np.uint8), connectivity=8)
    small = [i for i in range(1, count) if facts[i, cv2.CC_STAT_AREA] <= _LARGEST_GAP]
    filled = torch.from_numpy(np.where(np.isin(pieces, small), np.float32(0.1), low))
    large = F.interpolate(filled[None, None], (height, width), mode="bilinear", align_corners=False)[0, 0]
    return np.asarray(large.numpy() > 0, dtype=np.uint8)


def _load(folder: Path) -> Any:
    if not (folder / "config.json").is_file():
        rule = "config.json is not in it" if folder.is_dir() else "there is no such folder"
        raise InputError(_FIELD, folder, rule, _REMEDY)
    from transformers import AutoConfig, Sam2VideoModel
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # it would draw over our own
    try:
        _check_config(folder)
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        _check_size(Sam2VideoModel, config, folder)
        model, found = Sam2VideoModel.from_pretrained(
            folder, config=config, local_files_only=True, use_safetensors=True, dtype=torch.float32,
            ignore_mismatched_sizes=True, output_loading_info=True,
        )  # fmt: skip
    except InputError:
        raise
    except BaseException as error:  # libraries raise anything for files they cannot read, panics among it
        if not is_fault(error):
            raise
        rule = "cannot be loaded: a file of it is missing or damaged"
        raise InputError(_FIELD, folder, rule, _REMEDY) from error
    finally:
        if shown:
            logging.enable_progress_bar()
    wrong = sorted(str(key) for kind in ("missing_keys", "mismatched_keys") for key in found[kind])
    if wrong:
        rule = f"{len(wrong)} tensors are missing or of another shape, among them {wrong[0]}"
        raise InputError(_FIELD, folder, rule, "Download it again")
    bad = next((name for name, p in model.named_parameters() if not torch.isfinite(p).all()), None)
    if bad is not None:
        raise InputError(_FIELD, folder, f"{bad} is not finite", "Download it again")
    return model


def _check_config(folder: Path) -> None:
    try:
        config = read_json(folder / "config.json", _MOST_JSON)
        if not isinstance(config, dict):
            raise ValueError("it is not a table of keys")
    except (OSError, ValueError) as error:
        raise InputError(
            _FIELD, folder, f"cannot be loaded: its config.json cannot be read ({error})", _REMEDY
        ) from error
    if (kind := config.get("model_type")) != "sam2_video":
        raise InputError(_FIELD, folder, f"it holds a {str(kind)[:40]} model, not sam2_video", _REMEDY)
    level: list[Any] = [config]
    while level:
        item = level.pop()
        level += item.values() if isinstance(item, dict) else item if isinstance(item, list) else []
        if (isinstance(item, int) and abs(item) > _LARGEST_NUMBER) or (
            isinstance(item, list) and len(item) > _LONGEST_LIST
        ):
            raise InputError(_FIELD, folder, "its config.json describes a network larger than any SAM 2", _REMEDY)


def _check_size(kind: Any, config: Any, folder: Path) -> None:
    """Weights that the files do not hold would be made up, of whatever size the configuration says."""
    with torch.device("meta"):
        wanted = sum(p.nbytes for p in kind(config).parameters())
    there = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    if wanted > 4 * there + 2**20:
        rule = "cannot be loaded: its config.json describes more weights than its files hold"
        raise InputError(_FIELD, folder, rule, _REMEDY)
