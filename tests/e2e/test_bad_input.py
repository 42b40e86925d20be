"""Bad files and settings through the real command: exit 2, one sentence of what, why and what to do, nothing lost.

The checkpoint folder these jobs are given is empty, so a job that gets past its inputs ends differently: what is
refused here is refused before any weights are opened.
"""

from __future__ import annotations

import errno
import os
import struct
import subprocess
import sys
import zlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "media"))
from make_clips import make_clip, make_sound

from wanimate.cli.main import app
from wanimate.finish.lock import OutputLock


class Job:
    """`wanimate animate` with good inputs, each of which a test can replace."""

    command = "animate"

    def __init__(self, folder: Path) -> None:
        self.folder, self.checkpoint = folder, folder / "checkpoint"
        self.checkpoint.mkdir()
        self.image, self.video, self.out = folder / "hero.png", folder / "dance.mp4", folder / "result.mp4"
        Image.new("RGB", (64, 96), (200, 30, 60)).save(self.image)
        make_clip(self.video)

    def run(self, *more: str) -> Result:
        files = ["--image", str(self.image), "--video", str(self.video), "--out", str(self.out)]
        words = [self.command, *files, "--checkpoint", str(self.checkpoint), *more]
        return CliRunner().invoke(app, words, env={"COLUMNS": "500", "NO_COLOR": "1"})

    def refused(self, *parts: str, options: tuple[str, ...] = ()) -> str:
        """The error, after checking that the job ended as a bad input should."""
        before = contents(self.folder)
        done = self.run(*options)
        assert done.exit_code == 2, done.output
        assert done.stdout == ""
        (line,) = done.stderr.strip().splitlines()
        assert line.startswith("error ")
        for part in parts:
            assert part in line
        assert contents(self.folder) == before
        return line


def contents(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): p.stat().st_size for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


def test_good_inputs_get_as_far_as_the_checkpoint(job: Job) -> None:
    message = job.refused("checkpoint")
    for parameter in ("--video", "--image", "--out"):
        assert parameter not in message


def test_missing_video(job: Job) -> None:
    job.video = job.folder / "nothing.mp4"
    job.refused("--video", "nothing.mp4", "no such file", "Check the path")


def test_missing_image(job: Job) -> None:
    job.image = job.folder / "nothing.png"
    job.refused("--image", "nothing.png", "no such file")


def test_text_named_mp4(job: Job) -> None:
    job.video.write_text("these are words, not pictures\n" * 100)
    job.refused("--video", "not a video file", "Give an mp4")


def test_truncated_mp4(job: Job) -> None:
    data = job.video.read_bytes()
    job.video.write_bytes(data[: len(data) // 2])
    job.refused("--video", "cut off", "again")


def test_truncated_mp4_with_its_index_in_front(job: Job) -> None:
    data = make_clip(job.video, muxer={"movflags": "+faststart"}).read_bytes()
    job.video.write_bytes(data[: len(data) * 2 // 3])
    job.refused("--video", "cut off")


def test_no_frames(job: Job) -> None:
    data = make_clip(job.video, muxer={"movflags": "frag_keyframe+empty_moov"}).read_bytes()
    job.video.write_bytes(data[: data.index(b"moof") - 4])
    job.refused("--video", "0 frames")


def test_half_a_second(job: Job) -> None:
    make_clip(job.video, frames=15)
    job.refused("--video", "0.50 s long, shorter than 2 s", "longer clip")


def test_forty_seconds_and_the_option_that_lifts_the_limit(job: Job) -> None:
    make_clip(job.video, frames=200, fps=5)
    job.refused("--video", "40.00 s long, longer than 30 s", "--allow-any-length")
    assert "--video" not in job.refused("checkpoint", options=("--allow-any-length",))


def test_short_side_of_150(job: Job) -> None:
    make_clip(job.video, size=(300, 150))
    job.refused("--video", "300x150", "over 200")


def test_aspect_of_four_to_one(job: Job) -> None:
    make_clip(job.video, size=(880, 220))
    job.refused("--video", "880x220", "between 1:3 and 3:1")


def test_201_megabytes(job: Job) -> None:
    os.truncate(job.video, 201 * 2**20)
    job.refused("--video", "201.0 MB", "200 MB")


def test_sound_only(job: Job) -> None:
    make_sound(job.video)
    job.refused("--video", "only sound")


def test_gif_and_webm_are_accepted(job: Job) -> None:
    job.video = make_clip(job.folder / "a.gif", frames=25, fps=10, codec="gif", pixels="rgb8")
    assert "--video" not in job.refused("checkpoint")
    fast = {"deadline": "realtime", "cpu-used": "8"}
    job.video = make_clip(job.folder / "a.webm", codec="libvpx-vp9", options=fast)
    assert "--video" not in job.refused("checkpoint")


def test_variable_rate_rotated_and_odd_clips_are_accepted(job: Job) -> None:
    make_clip(job.video, frames=60, times=[Fraction(i * i, 1500) for i in range(60)])
    assert "--video" not in job.refused("checkpoint")
    make_clip(job.video, rotation=90)
    assert "--video" not in job.refused("checkpoint")
    make_clip(job.video, size=(321, 243), pixels="yuv444p")
    assert "--video" not in job.refused("checkpoint")


def test_png_bomb(job: Job) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress(bytes(2**20)))
    job.image.write_bytes(b"\x89PNG\r\n\x1a\n" + header + rows + chunk(b"IEND", b""))
    job.refused("--image", "above the limit of 100 megapixels", "Scale it down")


def test_text_named_png(job: Job) -> None:
    job.image.write_text("a portrait in words")
    job.refused("--image", "not a picture")


def test_cmyk_sixteen_bit_and_alpha_pictures_are_accepted(job: Job) -> None:
    values = np.linspace(0, 65535, 64 * 96).reshape(96, 64).astype(np.uint16)
    for name, picture in (
        ("a.jpg", Image.new("CMYK", (64, 96), (10, 200, 30, 0))),
        ("b.png", Image.fromarray(values)),
        ("c.png", Image.new("RGBA", (64, 96), (10, 200, 30, 40))),
        ("d.png", Image.new("L", (64, 96), 90)),
    ):
        job.image = job.folder / name
        picture.save(job.image)
        assert "--image" not in job.refused("checkpoint")


def test_folder_that_is_a_file(job: Job) -> None:
    job.out = job.image / "result.mp4"
    job.refused("--out", "not a folder", "Choose another folder")


def test_folder_that_may_not_be_written(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def refuse(file: str, flags: int, *rest: int, **named: int) -> int:
        if flags & os.O_CREAT and str(file).startswith(str(job.folder)):
            raise PermissionError(errno.EACCES, "Permission denied")  # root, as whom tests may run, is never refused
        return real(file, flags, *rest, **named)

    monkeypatch.setattr(os, "open", refuse)
    job.refused("--out", "not writable", "Choose a folder")


def test_name_without_a_known_ending(job: Job) -> None:
    job.out = job.folder / "result.avi"
    job.refused("--out", "result.avi", ".mp4", "--codec")


def test_result_over_an_input(job: Job) -> None:
    job.out = job.video
    job.refused("--out", "an input of the job", "another name")


def test_two_processes_and_one_name(job: Job) -> None:
    script = (
        "import sys, time; from pathlib import Path; from wanimate.finish.lock import OutputLock\n"
        "claim = OutputLock(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", script, str(job.out)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        job.refused("--out", f"another job (process {other.pid}) is writing it", "Wait for it")
    finally:
        other.kill()
        other.wait()
    lock = job.out.with_name(".result.mp4.lock")
    assert lock.exists()  # a killed process leaves it behind; it stops nobody
    assert job.run().exit_code == 2
    assert not lock.exists()


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--solver", "heun", "'dpm++', 'unipc' or 'euler'"),
        ("--steps", "0", "greater than or equal to 1"),
        ("--area", "large", "not an area"),
    ],
)
def test_bad_settings(job: Job, option: str, value: str, words: str) -> None:
    job.refused(f"{option} = {value}", words, options=(option, value))


def test_no_checkpoint_folder(job: Job) -> None:
    job.checkpoint = job.folder / "nowhere"
    job.refused("checkpoint", "nowhere", "no such folder")


def test_generate_without_guides(job: Job) -> None:
    (job.folder / "empty").mkdir()
    for name in ("empty", "nowhere"):
        words = ["generate", str(job.folder / name), "--out", str(job.out), "--checkpoint", str(job.checkpoint)]
        done = CliRunner().invoke(app, words, env={"COLUMNS": "500", "NO_COLOR": "1"})
        assert done.exit_code == 2
        assert name in done.stderr
        assert not job.out.exists()
    with OutputLock(job.out):
        pass  # nothing holds the name any more
