"""The guides on disk: one folder of lossless videos, a PNG and a manifest, or the published set of files.

Own folder: pose.mkv, face.mkv (and background.mkv, mask.mkv), reference.png, keypoints.npz, manifest.json.
Published set (preprocess spec, section 2): src_pose.mp4, src_face.mp4, src_ref.png (and src_bg.mp4, src_mask.mp4).
A folder appears whole or not at all.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from wanimate.errors import InputError, setting
from wanimate.media.files import sha256, write_new
from wanimate.media.image import MIN_SIDE, load_image
from wanimate.media.png import SRGB
from wanimate.media.video import LosslessWriter, VideoFrames, write_h264
from wanimate.preprocess.folder import FORMAT, MANIFEST, NewFolder
from wanimate.preprocess.manifest import (
    AGAIN,
    FACE_SIDES,
    MAX_RATE,
    MAX_TERM,
    PARTS,
    VERSION,
    inside,
    read_manifest,
    stretches,
)
from wanimate.preprocess.pose.keypoints import COUNT, joined
from wanimate.types import Frame, Frames, FrameSource, Guides, Keypoints, Mode

_VIDEOS = {"pose": "pose.mkv", "face": "face.mkv", "background": "background.mkv", "mask": "mask.mkv"}
_REFERENCE, _KEYPOINTS = "reference.png", "keypoints.npz"
_PUBLISHED = {"pose": "src_pose.mp4", "face": "src_face.mp4", "background": "src_bg.mp4", "mask": "src_mask.mp4"}
PUBLISHED_REFERENCE = "src_ref.png"
_PUBLISHED_CRF = 23


def check_format(area: int, size: tuple[int, int], fps: Fraction, face_size: int) -> None:
    """Refuse guides that could not be written, or not be read again by `load_guides` and the generation.

    Args:
        area: pixel area asked for, from which `size` (width, height) came: multiples of 16 within the area.
        face_size: side of the face crops in pixels.

    Raises:
        InputError: a side is too short or too long, or the rate is out of range.
    """
    if min(size) < MIN_SIDE:
        rule = f"the guides would have {size[0]}x{size[1]} pixels, but each side has to be at least {MIN_SIDE}"
        raise InputError("preprocess.area", area, rule, "Give a larger area")
    least, most = FACE_SIDES
    if not least <= face_size <= most:
        rule = f"the side of a face crop has to be from {least} to {most} pixels"
        raise InputError("preprocess.face_size", face_size, rule, "Give 512, or leave it out")
    if fps > MAX_RATE:
        raise InputError("preprocess.fps", fps, f"above the limit of {MAX_RATE} frames a second", "Give a lower rate")
    if max(fps.numerator, fps.denominator) > MAX_TERM:
        rule = "its numerator or denominator has more than 31 bits"
        raise InputError("preprocess.fps", fps, rule, "Give it as a ratio such as 30000/1001")


class GuidesWriter:
    """Writes a guides folder frame by frame, in a `with` block; `finish` has to be the last call in it.

    Args:
        size, face_size: output (width, height) and the side of the face crops in pixels.
    """

    def __init__(self, folder: Path, mode: Mode, fps: Fraction, size: tuple[int, int], face_size: int) -> None:
        self._folder, self._mode, self._fps, self._size, self._face_size = folder, mode, fps, size, face_size
        self.count = 0

    def __enter__(self) -> GuidesWriter:
        self._open = ExitStack()
        self._place = self._open.enter_context(NewFolder(self._folder))
        try:
            self._videos = ExitStack()
            self._open.push(self._videos)
            self._writers = []
            for name in PARTS[self._mode]:
                width, height = (self._face_size,) * 2 if name == "face" else self._size
                writer = LosslessWriter(self._place / _VIDEOS[name], self._fps, width, height)
                self._writers.append(self._videos.enter_context(writer))
        except BaseException as error:
            self._open.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def write(self, *frames: Frame) -> None:
        """One job frame: pose and face; in replacement mode also background and mask."""
        for writer, frame in zip(self._writers, frames, strict=True):
            writer.write(frame)
        self.count += 1

    def finish(self, reference: Frame, manifest: dict[str, Any], arrays: dict[str, npt.NDArray[Any]]) -> None:
        """Write the character picture, the points as measured and drawn, and the manifest.

        Counts, rate, sizes, file names and the files' SHA-256 are added to `manifest`.
        """
        self._videos.close()
        write_png(self._place / _REFERENCE, reference)
        packed = io.BytesIO()
        np.savez_compressed(packed, allow_pickle=False, **arrays)
        write_new(self._place / _KEYPOINTS, packed.getbuffer())
        width, height = self._size
        files = {name: _VIDEOS[name] for name in PARTS[self._mode]}
        head = {
            "format": FORMAT,
            "version": VERSION,
            "mode": self._mode,
            "fps": str(self._fps),
            "count": self.count,
            "size": [width, height],
            "face_size": self._face_size,
            "files": files,
            "reference": _REFERENCE,
            "keypoints": _KEYPOINTS,
            "sha256": hashes(self._place, [*files.values(), _REFERENCE, _KEYPOINTS]),
        }
        write_new(self._place / MANIFEST, (json.dumps(head | manifest, indent=1) + "\n").encode())

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._open.__exit__(kind, error, tb)


def hashes(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """SHA-256 in hex of files in a folder, by name."""
    return {name: sha256(folder / name) for name in names}


def load_guides(folder: Path) -> Guides:
    """A guides folder of either kind as `Guides`; frames are read when they are needed.

    The published set does not tell which frames show the person. Its mask is made black and white again (above 127 is white).

    Raises:
        InputError: no guides there, a part missing or unreadable, or parts that do not fit each other.
    """
    folder = Path(folder)
    if (folder / MANIFEST).is_file():
        return _load_own(folder)
    if (folder / _PUBLISHED["pose"]).is_file():
        return _load_published(folder)
    rule = f"neither {MANIFEST} nor {_PUBLISHED['pose']} is in it" if folder.is_dir() else "there is no such folder"
    raise InputError("guides", folder, rule, "Give a folder made by `wanimate preprocess` or a published set")


def _load_own(folder: Path) -> Guides:
    manifest, found = read_manifest(folder / MANIFEST)
    sources = [_open(inside(folder, manifest.files[part])) for part in PARTS[manifest.mode]]
    reference = load_image(inside(folder, manifest.reference), field="guides")
    guides = _guides(folder, manifest.mode, manifest.rate, sources, reference, found)
    stated = manifest.count, tuple(manifest.size), (manifest.face_size,) * 2
    if (guides.count, guides.size, guides.face.size) != stated:
        raise InputError("guides", folder, f"the videos are not those of the manifest ({guides})", AGAIN)
    valid = np.ones(guides.count, dtype=bool)
    for nobody in stretches(manifest):
        valid[nobody] = False
    return replace(guides, valid=tuple(valid.tolist()))


def _load_published(folder: Path) -> Guides:
    mode: Mode = (
        "replacement" if any((folder / _PUBLISHED[p]).exists() for p in ("background", "mask")) else "animation"
    )
    # The published code writes H.264 without tags, from RGB by the matrix of BT.601, whatever the size.
    videos = [_open(folder / _PUBLISHED[part], sd=True) for part in PARTS[mode]]
    sources: list[FrameSource] = [*videos]
    if mode == "replacement":
        sources[3] = BlackAndWhite(videos[3])
    reference = load_image(folder / PUBLISHED_REFERENCE, field="guides")
    return _guides(folder, mode, videos[0].fps, sources, reference, {})


def _open(path: Path, sd: bool = False) -> VideoFrames:
    return VideoFrames(path, "guides", sd)


def _guides(
    folder: Path,
    mode: Mode,
    fps: Fraction,
    sources: Sequence[FrameSource],
    reference: Frame,
    manifest: dict[str, Any],
) -> Guides:
    pose, face, *rest = sources
    for part, source in zip(PARTS[mode], sources, strict=True):
        if source.count != pose.count:
            rule = f"the {part} video has {source.count} frames, the pose video {pose.count}"
            raise InputError("guides", folder, rule, AGAIN)
    for part, source in zip(PARTS[mode][2:], rest, strict=True):
        if source.size != pose.size:
            rule = (
                f"the {part} video is {source.size[0]}x{source.size[1]}, the pose video {pose.size[0]}x{pose.size[1]}"
            )
            raise InputError("guides", folder, rule, AGAIN)
    if face.size[0] != face.size[1]:
        raise InputError("guides", folder, f"the face video is {face.size[0]}x{face.size[1]}, not square", AGAIN)
    background, mask = rest if rest else (None, None)
    return Guides(mode, fps, pose, face, reference, background, mask, None, folder, manifest)


def drawn_points(guides: Guides) -> Keypoints:
    """The points as the guides have drawn them [n, 133, 3], in pixels of the result. Where the guides do not tell, as a
    published set, all have confidence 0.

    Raises:
        InputError: the file of points is damaged.
    """
    nobody: Keypoints = np.zeros((guides.count, COUNT, 3))
    name = guides.manifest.get("keypoints")
    if guides.folder is None or not isinstance(name, str):
        return nobody
    path = inside(guides.folder, name)
    try:
        with np.load(path, allow_pickle=False) as stored:
            if not {"body", "left_hand", "right_hand"} <= set(stored):
                return nobody
            points = joined(stored["body"], stored["left_hand"], stored["right_hand"])
    except (OSError, ValueError, IndexError, zipfile.BadZipFile) as error:
        raise InputError("guides", path, f"its points cannot be read ({error})", AGAIN) from error
    if points.shape != nobody.shape or not np.isfinite(points[..., 2]).all():
        raise InputError("guides", path, f"it has points of {len(points)} frames, not of {guides.count}", AGAIN)
    return np.nan_to_num(points)


class BlackAndWhite:
    """A mask from a lossy codec, with only 0 and 255 in it again."""

    def __init__(self, source: VideoFrames) -> None:
        self._source, self.path = source, source.path

    @property
    def count(self) -> int:
        return self._source.count

    @property
    def size(self) -> tuple[int, int]:
        return self._source.size

    def take(self, indices: Sequence[int]) -> Frames:
        return np.where(self._source.take(indices) > 127, np.uint8(255), np.uint8(0))


def export_published(guides: Guides, folder: Path) -> None:
    """Write the published set of files, H.264 at CRF 23 as the published code does (lossy).

    Raises:
        InputError: the face crops have an odd side, which the codec cannot hold.
        OutputError: `folder` exists and is not empty, or cannot be written.
    """
    check_published(guides.face.size[0])
    parts = zip(PARTS[guides.mode], (guides.pose, guides.face, guides.background, guides.mask), strict=False)
    with NewFolder(folder) as place:
        for part, source in parts:
            assert source is not None
            with write_h264(place / _PUBLISHED[part], guides.fps, *source.size, _PUBLISHED_CRF) as writer:
                for i in range(source.count):
                    writer.write(source.take([i])[0])
        write_png(place / PUBLISHED_REFERENCE, guides.reference)


def check_published(face_size: int) -> None:
    """Refuse face crops that the published set cannot hold. Raises InputError where the side is odd."""
    if face_size % 2:
        remedy = f"Preprocess with an even {setting('preprocess.face_size')}"
        raise InputError("preprocess.face_size", face_size, "H.264 needs an even side", remedy)


def write_png(path: Path, image: Frame) -> None:
    """An RGB picture as PNG."""
    with open(path, "xb") as file:
        tags = PngInfo()
        tags.add(*SRGB)
        Image.fromarray(image).save(file, format="PNG", compress_level=1, pnginfo=tags)
        file.flush()
        os.fsync(file.fileno())
