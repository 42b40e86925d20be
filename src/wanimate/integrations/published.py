"""Guides under the published file names, in a folder that other programmes may have files in."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from wanimate.config import PreprocessSettings
from wanimate.errors import OutputError
from wanimate.events import Event
from wanimate.media.files import output_error, read_marked
from wanimate.media.lock import NameLock
from wanimate.media.names import remove, temporary_name
from wanimate.media.places import check_apart_from
from wanimate.media.writer import Encoding, StreamWriter
from wanimate.preprocess.detect.base import PoseBackend
from wanimate.preprocess.drive import preprocess
from wanimate.preprocess.folder import FORMAT, MANIFEST
from wanimate.preprocess.guides import check_published, export_published, hashes, load_guides, write_png
from wanimate.types import Clip, Frame, Guides, Mode

NAMES = {"pose": "src_pose.mp4", "face": "src_face.mp4", "background": "src_bg.mp4", "mask": "src_mask.mp4"}
REFERENCE, KEYPOINTS = "src_ref.png", "keypoints.npz"
REDRAWN = {"performer": "tpl_edit.png", "character": "refer_edit.png"}
_OURS = (*NAMES.values(), *REDRAWN.values(), REFERENCE, KEYPOINTS, MANIFEST)
_SET = "guides"
"""What the set is called in temporary names."""
_LOSSLESS = Encoding("mp4", "libx264rgb", "rgb24", {"qp": "0", "preset": "veryfast", "g": "1"})


def write_published_guides(
    mode: Mode, clip: Clip, image: Frame, settings: PreprocessSettings, folder: Path, detector: PoseBackend,
    inputs: Sequence[Path], redrawn: Mapping[str, Frame],
) -> Generator[Event, None, Guides]:  # fmt: skip
    """Preprocess into `src_pose.mp4` and so on in `folder`; other files there stay, an older set is replaced.

    The videos are lossless H.264 in RGB with our manifest beside them; with `settings.compat` they are lossy, and there is no
    manifest, as published. `redrawn` is read when preprocessing is done: pictures of the "performer" or "character" that
    measuring made, for inspection. Yields the events of preprocessing and returns the guides.

    Raises:
        InputError: see `preprocess.drive.preprocess`. OutputError: `folder` cannot be written, or would lose one of `inputs`.
    """
    assert settings.area is not None, "the published command line has an area"
    if settings.compat:
        check_published(settings.face_size)
    _check_places(folder, inputs)
    with ExitStack() as undo:
        undo.enter_context(NameLock(folder / _SET, "guides"))
        temporary = temporary_name(folder / _SET)
        try:
            temporary.mkdir()
        except OSError as error:
            raise output_error(folder, error, "guides") from error
        undo.callback(remove, temporary)
        made = temporary / "made"
        guides = yield from preprocess(mode, clip, image, settings, made, settings.area, detector)
        published = temporary / "published"
        if settings.compat:
            export_published(guides, published)
        else:
            _write_lossless(guides, made, published)
        for name, picture in redrawn.items():
            write_png(published / REDRAWN[name], picture)
        try:
            _move(published, folder)
        except OSError as error:
            raise output_error(folder, error, "guides") from error
    return load_guides(folder)


def _write_lossless(guides: Guides, made: Path, published: Path) -> None:
    """The folder `made` once more, under the published names."""
    manifest = json.loads((made / MANIFEST).read_text())
    published.mkdir()
    for part in manifest["files"]:
        source = getattr(guides, part)
        width, height = source.size
        with StreamWriter(published / NAMES[part], guides.fps, width, height, _LOSSLESS, "guides") as writer:
            for i in range(source.count):
                writer.write(source.take([i])[0])
    write_png(published / REFERENCE, guides.reference)
    shutil.move(made / manifest["keypoints"], published / KEYPOINTS)
    files = {part: NAMES[part] for part in manifest["files"]}
    manifest |= {
        "files": files,
        "reference": REFERENCE,
        "keypoints": KEYPOINTS,
        "sha256": hashes(published, [*files.values(), REFERENCE, KEYPOINTS]),
    }
    (published / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")


def _check_places(folder: Path, inputs: Sequence[Path]) -> None:
    """Refuse to write over inputs, and over files of names that others use, too, where no manifest of ours is beside them."""
    check_apart_from("guides", [folder / name for name in _OURS], inputs)
    if read_marked(folder / MANIFEST, FORMAT) is None:
        for name in (MANIFEST, KEYPOINTS):
            if os.path.lexists(folder / name):
                raise OutputError("guides", folder, f"{name} in it is not ours to replace", "Choose another folder.")


def _move(new: Path, folder: Path) -> None:
    """Exchange the set in `folder`. What a reader looks for first goes first and comes last, so a half-moved set is none."""
    heads = (MANIFEST, NAMES["pose"])
    for name in (*heads, *_OURS):
        (folder / name).unlink(missing_ok=True)
    files = sorted(new.iterdir(), key=lambda file: heads[::-1].index(file.name) if file.name in heads else -1)
    for file in files:
        os.replace(file, folder / file.name)
