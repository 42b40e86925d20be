"""Guides under the published file names, in a folder that other programmes may have files in."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from wanimate.config import PreprocessSettings
from wanimate.errors import OutputError
from wanimate.events import Event
from wanimate.media.files import missing_folders, output_error, remove_empty
from wanimate.media.writer import Encoding, StreamWriter
from wanimate.preprocess.detect.base import PoseBackend
from wanimate.preprocess.drive import preprocess
from wanimate.preprocess.guides import check_published, export_published, hashes, load_guides, write_png
from wanimate.preprocess.manifest import MANIFEST
from wanimate.types import Clip, Frame, Guides, Mode

NAMES = {"pose": "src_pose.mp4", "face": "src_face.mp4", "background": "src_bg.mp4", "mask": "src_mask.mp4"}
REFERENCE, KEYPOINTS = "src_ref.png", "keypoints.npz"
REDRAWN = {"performer": "tpl_edit.png", "character": "refer_edit.png"}
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
    ours = [*NAMES.values(), *REDRAWN.values(), REFERENCE, KEYPOINTS, MANIFEST]
    for path in inputs:
        if path.resolve().parent == folder.resolve() and path.name in ours:
            raise OutputError("guides", folder, f"{path.name} in it is an input of the job", "Choose another folder.")
    made_for_it = missing_folders(folder / MANIFEST)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        place = tempfile.TemporaryDirectory(prefix=".guides-", suffix=".part", dir=folder)
    except OSError as error:
        remove_empty(made_for_it)
        raise output_error(folder, error, "guides") from error
    with ExitStack() as undo:
        undo.callback(remove_empty, made_for_it)
        temporary = undo.enter_context(place)
        made = Path(temporary) / "made"
        guides = yield from preprocess(mode, clip, image, settings, made, settings.area, detector)
        published = Path(temporary) / "published"
        if settings.compat:
            export_published(guides, published)
        else:
            _write_lossless(guides, made, published)
        for name, picture in redrawn.items():
            write_png(published / REDRAWN[name], picture)
        try:
            _move(published, folder, ours)
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


def _move(new: Path, folder: Path, known: Sequence[str]) -> None:
    """Exchange the set in `folder`. What a reader looks for first goes first and comes last, so a half-moved set is none."""
    heads = (MANIFEST, NAMES["pose"])
    for name in (*heads, *known):
        (folder / name).unlink(missing_ok=True)
    files = sorted(new.iterdir(), key=lambda file: heads[::-1].index(file.name) if file.name in heads else -1)
    for file in files:
        os.replace(file, folder / file.name)
