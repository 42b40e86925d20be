"""A folder of clips -> what a LoRA is trained on: windows of guides and pictures, encoded once and kept on disk.

    data/dance.mp4  data/dance.png      a clip, and a picture of whom it shows (without one: the clip's own first frame)

Letters: K frames of a window (4n+1), T = (K+3)/4 latent frames, h w latent rows and columns, S side of the face pictures.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from wanimate.conditions.latents import known_mask, pack_mask, resize_faces, to_network
from wanimate.conditions.reference import ImageEncoder, letterboxed
from wanimate.config import Mode, PreprocessSettings
from wanimate.errors import InputError
from wanimate.events import Event
from wanimate.media.files import in_utf8, sha256, write_new
from wanimate.media.image import load_image
from wanimate.media.names import remove, remove_leftovers, temporary_name
from wanimate.media.resize import cover
from wanimate.media.stretch import probe_used
from wanimate.media.video import iter_indices
from wanimate.model.vae import VideoVae
from wanimate.preprocess.detect.base import PoseBackend
from wanimate.preprocess.detect.registry import open_detector
from wanimate.preprocess.drive import preprocess
from wanimate.preprocess.layout import job_frames
from wanimate.preprocess.masks.base import MaskBackend
from wanimate.types import Frame, Guides

VIDEOS = (".mp4", ".mov", ".mkv", ".webm", ".m4v", ".avi", ".gif")
PICTURES = (".png", ".jpg", ".jpeg", ".webp")
SHORTEST = 5
"""Frames; shorter ends of clips are left out."""


@dataclass(frozen=True)
class Source:
    """A clip and, if there is one, a picture of the person or character in it."""

    video: Path
    picture: Path | None


@dataclass(frozen=True)
class ExampleSettings:
    """How clips become examples. `overlap`: frames that a window may take over from the one before, half of the time.

    `relit`: that many copies of every reference under other lights are used instead of it (the relighting recipe).
    """

    modes: tuple[Mode, ...]
    area: int
    clip_length: int
    overlap: int
    preprocess: PreprocessSettings
    relit: int = 0
    seed: int = 0


@dataclass(frozen=True)
class Encoders:
    """What examples are encoded with; `name` tells this checkpoint's examples from another's."""

    name: str
    vae: VideoVae
    image: ImageEncoder | None
    face_size: int
    device: torch.device
    chunk: int = 1

    @torch.inference_mode()
    def encode(self, video: Tensor) -> Tensor:
        """[3, K, H, W] in [-1, 1] -> float16 [16, T, h, w] on the CPU."""
        return self.vae.encode(video[None].to(self.device), self.chunk)[0].half().cpu().contiguous()


def find_sources(data: Path) -> list[Source]:
    """The clips of a folder, by name.

    Raises:
        InputError: there is no such folder, or no clip in it.
    """
    if not data.is_dir():
        raise InputError("data", data, "there is no such folder", "Give a folder of clips.")
    videos = sorted(f for f in data.iterdir() if f.suffix.lower() in VIDEOS and f.is_file())
    if not videos:
        rule = f"there is no clip in it ({', '.join(VIDEOS)})"
        raise InputError(
            "data", data, rule, "Put clips of two seconds and more there, each with a picture of its name."
        )
    return [Source(v, next((p for e in PICTURES if (p := v.with_suffix(e)).is_file()), None)) for v in videos]


def prepare(
    sources: Sequence[Source],
    settings: ExampleSettings,
    encoders: Encoders,
    cache: Path,
    detector: PoseBackend | None = None,
    masks: MaskBackend | None = None,
) -> Generator[Event, None, list[Path]]:
    """Files of examples, one a window, in the order of `sources`. What `cache` has already is taken from there.

    `detector`, `masks`: find the person and its pixels; None loads those that the settings name, once they are needed.

    Raises:
        InputError: a clip or picture cannot be used, or no window of 5 frames with a person is in any clip.
    """
    windows: list[Path] = []
    for source in sources:
        folder = cache / f"{source.video.stem[:40]}-{_key(source, settings, encoders)}"
        if not folder.is_dir():
            detector = detector or open_detector(settings.preprocess)
            yield from _encode(source, settings, encoders, folder, detector, masks)
        windows += sorted(folder.glob("*.safetensors"))
    if not windows:
        rule = f"no clip shows a person in {SHORTEST} frames on end"
        raise InputError("data", sources[0].video.parent, rule, "Give clips that show a person throughout.")
    return windows


def _key(source: Source, settings: ExampleSettings, encoders: Encoders) -> str:
    """Whatever the examples depend on, in twelve digits."""
    facts = [
        sha256(source.video), "" if source.picture is None else sha256(source.picture), list(settings.modes), settings.area,
        settings.clip_length, settings.overlap, settings.relit, settings.seed, settings.preprocess.model_dump(mode="json"),
        encoders.name, encoders.face_size,
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def _encode(
    source: Source, settings: ExampleSettings, encoders: Encoders, folder: Path, detector: PoseBackend,
    masks: MaskBackend | None,
) -> Generator[Event, None, None]:  # fmt: skip
    clip = probe_used(source.video, settings.preprocess, "data")
    indices, _ = job_frames(clip, settings.preprocess)
    picture = (
        next(iter_indices(clip, indices[:1])) if source.picture is None else load_image(source.picture, field="data")
    )
    remove_leftovers(folder)
    temporary = temporary_name(folder)
    temporary.mkdir(parents=True)
    with ExitStack() as undo:
        undo.callback(remove, temporary)
        guides = yield from preprocess(
            "replacement",
            clip,
            picture,
            settings.preprocess,
            temporary / "guides",
            settings.area,
            detector,
            masks,
        )
        made = temporary / "made"
        made.mkdir()
        references = _references(guides, settings, encoders)
        for number, (start, stop) in enumerate(cut(guides, settings.clip_length)):
            frames = np.stack([cover(f, *guides.size) for f in iter_indices(clip, indices[start:stop])])
            tensors = _window(guides, frames, start, settings, encoders) | references
            write_new(made / f"window_{number:03d}.safetensors", save(tensors))
        if folder.exists():  # another process was quicker
            shutil.rmtree(made)
        else:
            os.replace(made, folder)


def cut(guides: Guides, clip_length: int) -> Iterator[tuple[int, int]]:
    """Windows [start, stop) of 4n+1 frames, `clip_length` at most, that show a person at least half of the time."""
    for start in range(0, guides.count, clip_length):
        length = (min(clip_length, guides.count - start) - 1) // 4 * 4 + 1
        seen = guides.valid[start : start + length] if guides.valid else (True,) * length
        if length >= SHORTEST and 2 * sum(seen) >= length:
            yield start, start + length


def _references(guides: Guides, settings: ExampleSettings, encoders: Encoders) -> dict[str, Tensor]:
    """reference.N [16, 1, h, w] and, where the network takes them, image.N [257, 1280]."""
    rng = np.random.default_rng(settings.seed)
    pictures = [relit(guides.reference, rng) for _ in range(settings.relit)] or [guides.reference]
    tensors: dict[str, Tensor] = {}
    for i, picture in enumerate(pictures):
        network = letterboxed(picture, guides.size).to(encoders.device)
        tensors[f"reference.{i}"] = encoders.encode(network)
        if encoders.image is not None:
            tensors[f"image.{i}"] = encoders.image.encode(network[:, 0]).half().cpu()
    return tensors


def _window(
    guides: Guides, frames: Frame, start: int, settings: ExampleSettings, encoders: Encoders
) -> dict[str, Tensor]:
    """target, pose [16, T, h, w], face uint8 [K, S, S, 3], person [T, h, w]; known.MODE.R, keep.MODE.R with R known frames."""
    assert guides.background is not None
    assert guides.mask is not None
    span = range(start, start + len(frames))
    video = to_network(frames)
    inpaint_mask = torch.from_numpy(guides.mask.take(span)[..., 0]).float() / 255
    faces = resize_faces(to_network(guides.face.take(span)), encoders.face_size)
    pose = encoders.encode(to_network(guides.pose.take(span)))
    tensors = {
        "target": encoders.encode(video), "pose": pose,
        "face": ((faces.permute(1, 2, 3, 0) + 1) * 127.5).round().clamp(0, 255).byte().contiguous(),
        "person": pack_mask(1 - known_mask(len(frames), 0, (pose.shape[2], pose.shape[3]), inpaint_mask)).mean(0).half(),
    }  # fmt: skip
    for mode in settings.modes:
        scene = to_network(guides.background.take(span)) if mode == "replacement" else torch.zeros_like(video)
        person = inpaint_mask if mode == "replacement" else None
        for known in {0, min(settings.overlap, len(frames) - 4)}:
            keep = pack_mask(known_mask(len(frames), known, (pose.shape[2], pose.shape[3]), person))
            tensors[f"known.{mode}.{known}"] = encoders.encode(torch.cat((video[:, :known], scene[:, known:]), dim=1))
            tensors[f"keep.{mode}.{known}"] = keep.half()
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def relit(picture: Frame, rng: np.random.Generator) -> Frame:
    """A picture as if under another light: an ambient colour, and a coloured one that fades across it. uint8 RGB [H, W, 3]."""
    height, width = picture.shape[:2]
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    side = np.clip(0.5 + 0.5 * (x * np.cos(angle) + y * np.sin(angle)), 0, 1)[..., None]
    warm = rng.normal(0, 0.15) * np.array([1.0, 0.05, -1.0])
    strength = rng.uniform(0.2, 0.8)
    level = rng.uniform(0.7, 1.2)
    light = level * ((1 - 0.5 * warm) * (1 - 0.7 * strength) + (1 + warm) * strength * 1.4 * side)
    return np.asarray(np.clip(picture * light, 0, 255).round(), dtype=np.uint8)


@dataclass
class Examples:
    """Draws one window at a time. Batch n is the same whenever it is asked for."""

    files: Sequence[Path]
    device: torch.device
    seed: int = 0
    _names: dict[Path, list[str]] = field(default_factory=dict, repr=False)

    def draw(self, number: int) -> tuple[Tensor, ...]:
        """target, pose, known, reference, keep, person, face of one `latents.LatentClips`; then image tokens, if any."""
        rng = np.random.default_rng((self.seed, number))
        path = self.files[int(rng.integers(len(self.files)))]
        try:
            return self._drawn(path, rng)
        except (SafetensorError, OSError, LookupError, ValueError) as error:
            rule = "this example is damaged"
            raise InputError("work", path, rule, "Remove its folder, and it is made again.") from error

    def _drawn(self, path: Path, rng: np.random.Generator) -> tuple[Tensor, ...]:
        with in_utf8(path) as name, safe_open(name, "pt") as file:
            names = self._names.setdefault(path, sorted(file.keys()))
            ways = [n.removeprefix("known.") for n in names if n.startswith("known.")]
            views = [n.removeprefix("reference.") for n in names if n.startswith("reference.")]
            way, view = ways[int(rng.integers(len(ways)))], views[int(rng.integers(len(views)))]
            wanted = ["target", "pose", f"known.{way}", f"reference.{view}", f"keep.{way}", "person", "face"]
            if f"image.{view}" in names:
                wanted.append(f"image.{view}")
            tensors = [file.get_tensor(n)[None].to(self.device) for n in wanted]
        return tuple(t if t.dtype == torch.uint8 else t.float() for t in tensors)
