"""The final file: exact rate and frames, sound copied bit for bit, whole or not there, one job a name."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from make_clips import make_clip, number_of, numbered

from wanimate.config import OutputSettings
from wanimate.errors import OutputError
from wanimate.finish.encode import OutputWriter
from wanimate.finish.lock import OutputLock
from wanimate.media.files import AtomicFile
from wanimate.media.levels import from_levels
from wanimate.media.probe import probe
from wanimate.media.video import VideoFrames, iter_frames
from wanimate.types import Clip

NTSC = Fraction(30000, 1001)


def frames(count: int = 60, width: int = 320, height: int = 240) -> np.ndarray:
    return np.stack([numbered(i, width, height) for i in range(count)])


def write(
    path: Path, pixels: np.ndarray, fps: Fraction = Fraction(30), clip: Clip | None = None, **settings
) -> OutputWriter:
    with OutputWriter(path, fps, pixels.shape[2], pixels.shape[1], OutputSettings(**settings), clip) as writer:
        for start in range(0, len(pixels), 7):
            writer.write(from_levels(pixels[start : start + 7]))
    return writer


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def sound_of(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(p) for p in container.demux(audio=0) if p.size]


@pytest.mark.parametrize(
    ("name", "codec", "stored"),
    [
        ("a.mp4", "h264", ("h264", "yuv420p")),
        ("a.mkv", "h264", ("h264", "yuv420p")),
        ("a.mov", "h265", ("hevc", "yuv420p")),
        ("a.mkv", "ffv1", ("ffv1", "bgr0")),
    ],
)
def test_codecs_and_containers(tmp_path: Path, name: str, codec: str, stored: tuple[str, str]) -> None:
    pixels = frames()
    write(tmp_path / name, pixels, NTSC, codec=codec)
    assert names(tmp_path) == [name]
    clip = probe(tmp_path / name)
    assert (clip.count, clip.fps, clip.width, clip.height) == (60, NTSC, 320, 240)
    with av.open(str(tmp_path / name)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == stored
    read = np.stack(list(iter_frames(clip)))
    assert [number_of(f) for f in read] == list(range(60))
    if codec == "ffv1":
        assert (read == pixels).all()
    else:
        assert np.abs(read.astype(int) - pixels).mean() < 2


@pytest.mark.parametrize("number", [10**15, -(10**15)])
def test_decode_times_that_an_encoder_makes_up(tmp_path: Path, number: int) -> None:
    """x265 does so for one or two frames, at random; mp4 refuses some, and players stumble over others."""
    with OutputWriter(tmp_path / "a.mp4", Fraction(30), 320, 240, OutputSettings(codec="h265")) as writer:
        stream = writer._sink.stream

        class Stream:
            def encode(self, picture: object) -> list[av.Packet]:
                packets = stream.encode(picture)
                for packet in packets:
                    packet.dts = number + packet.pts
                return packets

        writer._sink.stream = Stream()
        writer.write(from_levels(frames(2)))
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert [packet.pts - packet.dts for packet in container.demux(video=0) if packet.size] == [0, 0]


def test_index_is_at_the_front(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", frames(5))
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_crf_sets_the_quality(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (5, 96, 128, 3), dtype=np.uint8)
    sizes = []
    for crf in (5, 40):
        write(tmp_path / f"{crf}.mp4", noise, crf=crf)
        sizes.append((tmp_path / f"{crf}.mp4").stat().st_size)
    assert sizes[0] > 3 * sizes[1]


def test_odd_sizes_are_kept_and_said(tmp_path: Path) -> None:
    writer = write(tmp_path / "a.mp4", frames(60, 321, 243))
    clip = probe(tmp_path / "a.mp4")
    assert (clip.width, clip.height) == (321, 243)
    assert "321x243 is odd" in writer.notices[0].message


def test_png_sequence(tmp_path: Path) -> None:
    clip = probe(make_clip(tmp_path / "in.mp4", sound="aac"))
    pixels = frames(4)
    writer = write(tmp_path / "out", pixels, clip=clip, codec="png")
    assert names(tmp_path) == ["in.mp4", "out"]
    assert names(tmp_path / "out") == [f"{i:06d}.png" for i in range(4)]
    for i in range(4):
        assert (cv2.imread(str(tmp_path / "out" / f"{i:06d}.png"))[..., ::-1] == pixels[i]).all()
    assert "sound was left out" in writer.notices[0].message


@pytest.mark.parametrize(
    ("source", "codec", "out"),
    [
        ("in.mp4", "aac", "a.mp4"),
        ("in.mkv", "aac", "a.mp4"),
        ("in.mp4", "aac", "a.mkv"),
        ("in.webm", "libopus", "a.mp4"),
        ("in.mp4", "libmp3lame", "a.mov"),
        ("in.mkv", "flac", "a.mkv"),
    ],
)
def test_sound_is_copied_bit_for_bit(tmp_path: Path, source: str, codec: str, out: str) -> None:
    kind = {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}} if "webm" in source else {}
    clip = probe(make_clip(tmp_path / source, sound=codec, **kind))
    writer = write(tmp_path / out, frames(60), clip=clip)
    assert writer.notices == []
    ours, theirs = sound_of(tmp_path / out), sound_of(tmp_path / source)
    assert len(ours) >= len(theirs) - 2
    assert ours == theirs[: len(ours)]
    track = probe(tmp_path / out).audio[0]
    assert track.duration == pytest.approx(2.0, abs=0.06)


@pytest.mark.parametrize(
    ("source", "codec", "out"),
    [
        ("in.mov", "pcm_s16le", "a.mov"),
        ("in.mkv", "pcm_s24le", "a.mov"),
        ("in.avi", "pcm_s16le", "a.mov"),
        ("in.mov", "pcm_s16be", "a.mov"),
        ("in.mov", "pcm_s24le", "a.mkv"),
    ],
)
def test_uncompressed_sound_stays_as_it_is(tmp_path: Path, source: str, codec: str, out: str) -> None:
    """Editors expect it in mov and Matroska."""
    clip = probe(make_clip(tmp_path / source, sound=codec))
    writer = write(tmp_path / out, frames(60), clip=clip)
    assert writer.notices == []
    ours, theirs = (b"".join(sound_of(tmp_path / name)) for name in (out, source))
    assert len(ours) > 0.97 * len(theirs)
    assert ours == theirs[: len(ours)]
    assert probe(tmp_path / out).audio[0].codec == codec


def test_sound_that_does_not_fit_is_encoded_anew_and_said(tmp_path: Path) -> None:
    clip = probe(make_clip(tmp_path / "in.mkv", sound="flac"))
    writer = write(tmp_path / "a.mp4", frames(60), clip=clip)
    assert "flac sound does not fit into .mp4" in writer.notices[0].message
    (track,) = probe(tmp_path / "a.mp4").audio
    assert track.codec == "aac"
    assert track.duration == pytest.approx(2.0, abs=0.06)
    with av.open(str(tmp_path / "a.mp4")) as container:
        tone = np.concatenate([f.to_ndarray()[0] for f in container.decode(audio=0)])
    spectrum = np.abs(np.fft.rfft(tone[4800 : 4800 + 48000]))
    assert spectrum.argmax() == pytest.approx(440, abs=2)


@pytest.mark.parametrize("source", ["in.mp4", "in.mkv"])
@pytest.mark.parametrize("codec", ["aac", "flac"])
def test_sound_is_trimmed_to_the_frames(tmp_path: Path, source: str, codec: str) -> None:
    clip = probe(make_clip(tmp_path / source, frames=120, sound=codec))
    write(tmp_path / "a.mp4", frames(45), clip=clip)
    made = probe(tmp_path / "a.mp4", None)
    assert made.duration == pytest.approx(1.5)
    assert made.audio[0].duration == pytest.approx(1.5, abs=0.1)


def test_sound_starts_with_the_picture(tmp_path: Path) -> None:
    # The source's first frame is shown at 0.5 s, so half a second of its sound is heard before; the tone rises at 1 s.
    path = make_clip(
        tmp_path / "in.mkv", frames=60, times=[Fraction(1, 2) + Fraction(i, 30) for i in range(60)], sound="aac"
    )
    whole = sound_of(path)
    write(tmp_path / "a.mp4", frames(60), clip=probe(path))
    ours = sound_of(tmp_path / "a.mp4")
    skipped = whole.index(ours[5]) - 5
    assert skipped * 1024 / 48000 == pytest.approx(0.5, abs=0.08)


def test_no_sound_when_not_wanted_or_not_there(tmp_path: Path) -> None:
    clip = probe(make_clip(tmp_path / "in.mp4", sound="aac"))
    write(tmp_path / "a.mp4", frames(5), clip=clip, audio=False)
    assert probe(tmp_path / "a.mp4", None).audio == ()
    write(tmp_path / "b.mp4", frames(5), clip=probe(make_clip(tmp_path / "mute.mp4")))
    assert probe(tmp_path / "b.mp4", None).audio == ()


def test_damaged_sound_does_not_cost_the_video(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "in.mkv", sound="flac")
    with av.open(str(path)) as container:
        places = [(p.pos, p.size) for p in container.demux(audio=0) if p.size]
    data = bytearray(path.read_bytes())
    for pos, size in places[8:]:
        data[pos + size // 2 : pos + size] = bytes(size - size // 2)
    path.write_bytes(data)
    writer = write(tmp_path / "a.mp4", frames(60), clip=probe(path))
    assert probe(tmp_path / "a.mp4").count == 60
    assert any("damaged" in n.message for n in writer.notices)


def write_and_fail(path: Path, error: BaseException, **settings: object) -> None:
    with OutputWriter(path, Fraction(30), 320, 240, OutputSettings(**settings)) as writer:
        writer.write(from_levels(frames(3)))
        raise error


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "h264"), ("a.mkv", "ffv1"), ("a", "png")])
@pytest.mark.parametrize("error", [ValueError("stop"), KeyboardInterrupt()])
def test_an_error_leaves_nothing(tmp_path: Path, name: str, codec: str, error: BaseException) -> None:
    with pytest.raises(type(error)):
        write_and_fail(tmp_path / name, error, codec=codec)
    assert names(tmp_path) == []


def test_an_error_keeps_the_older_result(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", frames(3))
    before = (tmp_path / "a.mp4").read_bytes()
    with pytest.raises(ValueError, match="stop"):
        write_and_fail(tmp_path / "a.mp4", ValueError("stop"), overwrite=True)
    assert names(tmp_path) == ["a.mp4"]
    assert (tmp_path / "a.mp4").read_bytes() == before


@pytest.mark.parametrize(("room", "count"), [(0, 2), (800, 2), (4000, 120)], ids=["header", "close", "middle"])
def test_disk_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int, count: int) -> None:
    written, whole = 0, AtomicFile.write

    def full(self: AtomicFile, data: bytes) -> int:
        nonlocal written
        written += len(data)
        if written > room:
            self.error = OSError(errno.ENOSPC, "No space left on device")
            raise self.error
        return whole(self, data)

    monkeypatch.setattr(AtomicFile, "write", full)
    with pytest.raises(OutputError, match="disk is full"):
        write(tmp_path / "a.mp4", frames(count))
    assert names(tmp_path) == []


def test_disk_full_in_a_png_sequence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = open

    def full(path: object, *rest: object, **named: object) -> object:
        if str(path).endswith("000001.png"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return whole(path, *rest, **named)  # type: ignore[call-overload]

    monkeypatch.setattr("builtins.open", full)
    with pytest.raises(OutputError, match="disk is full"):
        write(tmp_path / "a", frames(2), codec="png")
    assert names(tmp_path) == []


def test_names_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    (tmp_path / "taken.json").write_text('{"notes": "of the user"}')
    for out, codec, message in (
        ("file/a.mp4", "h264", "not a folder"),
        ("folder.mp4", "h264", "this is a folder"),
        ("full", "png", "not empty"),
        ("a.avi", "h264", "needs .mp4 or .mov"),
        ("a.mp4", "ffv1", "needs .mkv"),
        ("a", "h264", "needs .mp4"),
        ("taken.mp4", "h264", "taken.json beside it is not ours"),
        ("x" * 300 + ".mp4", "h264", "too long"),
    ):
        with pytest.raises(OutputError, match=message) as caught:
            OutputLock(tmp_path / out, OutputSettings(codec=codec))
        assert caught.value.exit_code == 2
    clip = make_clip(tmp_path / "in.mp4", frames=1)
    with pytest.raises(OutputError, match="input of the job"):
        OutputLock(tmp_path / "in.mp4", inputs=[clip])
    assert (tmp_path / "taken.json").read_text() == '{"notes": "of the user"}'
    assert not [n for n in names(tmp_path) if n.startswith(".")]

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("os.open", refuse)
    with pytest.raises(OutputError, match="not writable"):
        OutputLock(tmp_path / "a.mp4")


def test_one_job_a_name_within_a_process(tmp_path: Path) -> None:
    with OutputLock(tmp_path / "a.mp4"):
        with pytest.raises(OutputError, match=f"another job \\(process {os.getpid()}\\) is writing it"):
            OutputWriter(tmp_path / "a.mp4", Fraction(30), 64, 48)
        with OutputLock(tmp_path / "b.mp4"):
            pass
    with (
        OutputLock(tmp_path / "a.mp4") as claim,
        OutputWriter(tmp_path / "a.mp4", Fraction(30), 320, 240, lock=claim) as writer,
    ):
        writer.write(from_levels(frames(2)))
    assert names(tmp_path) == ["a.mp4"]


HOLDER = """
import sys, time
from pathlib import Path
from wanimate.finish.lock import OutputLock
claim = OutputLock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def test_one_job_a_name_between_processes_and_the_dead_hold_nothing(tmp_path: Path) -> None:
    out = tmp_path / "a.mp4"
    other = subprocess.Popen([sys.executable, "-c", HOLDER, str(out)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(OutputError, match=f"process {other.pid}"):
            OutputWriter(out, Fraction(30), 64, 48)
        other.send_signal(signal.SIGKILL)
        other.wait()
        assert names(tmp_path) == [".a.json.lock", ".a.mp4.lock"]  # a killed process cannot tidy up
        write(out, frames(2))
        assert names(tmp_path) == ["a.mp4"]
    finally:
        other.kill()
        other.wait()


def test_many_claims_in_a_row_never_overlap(tmp_path: Path) -> None:
    script = """
import sys, time
from pathlib import Path
from wanimate.errors import OutputError
from wanimate.finish.lock import OutputLock
out, mark, won = Path(sys.argv[1]), Path(sys.argv[1] + ".mark"), 0
while won < 30:
    try:
        with OutputLock(out):
            mark.touch(exist_ok=False)  # fails when another holds the claim too
            mark.unlink()
            won += 1
    except OutputError:
        pass
"""
    jobs = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "a.mp4")]) for _ in range(2)]
    deadline = time.monotonic() + 60
    assert [job.wait(max(deadline - time.monotonic(), 1)) for job in jobs] == [0, 0]


def test_video_frames_reads_what_was_written(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", frames(20), NTSC)
    assert [number_of(f) for f in VideoFrames(tmp_path / "a.mp4").take([19, 0])] == [19, 0]


@pytest.mark.parametrize(
    "number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL], ids=errno.errorcode.get
)
def test_a_result_in_a_folder_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The result is there, one notice says so, and no lock file is left."""

    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", flock)
    out = tmp_path / "out.mp4"
    with OutputLock(out) as lock, OutputWriter(out, Fraction(25), 64, 48, OutputSettings(), lock=lock) as writer:
        writer.write(torch.zeros(3, 3, 48, 64))
    assert lock.notices == ["the folder of out.mp4 knows no locks; a file keeps other jobs off"]
    assert os.listdir(tmp_path) == ["out.mp4"]
