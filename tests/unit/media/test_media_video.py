"""Frame sources and writers: exact frames, flat memory, and files that appear whole or not at all."""

from __future__ import annotations

import errno
import tracemalloc
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from make_clips import make_clip, number_of, numbered

from wanimate.errors import InputError, OutputError
from wanimate.media.files import AtomicFile
from wanimate.media.probe import probe
from wanimate.media.video import ArrayFrames, LosslessWriter, VideoFrames, iter_frames, plan_frames, write_h264


def noise(count: int, width: int, height: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def write(path: Path, frames: np.ndarray, fps: Fraction = Fraction(30)) -> Path:
    with LosslessWriter(path, fps, frames.shape[2], frames.shape[1]) as writer:
        for frame in frames:
            writer.write(frame)
    return path


@pytest.mark.parametrize("size", [(64, 48), (33, 17), (512, 512)])
def test_lossless_round_trip_is_exact(tmp_path: Path, size: tuple[int, int]) -> None:
    frames = noise(7, *size)
    source = VideoFrames(write(tmp_path / "a.mkv", frames, Fraction(30000, 1001)))
    assert (source.count, source.size, source.fps) == (7, size, Fraction(30000, 1001))
    assert (source.take(range(7)) == frames).all()


def test_take_in_any_order_with_repeats(tmp_path: Path) -> None:
    frames = noise(40, 40, 30)
    for source in (VideoFrames(write(tmp_path / "a.mkv", frames)), ArrayFrames(frames)):
        for wanted in ([39, 0, 5, 5, 38], [0], [20, 19, 18], [], list(range(40)), [39, 39]):
            taken = source.take(wanted)
            assert taken.shape == (len(wanted), 30, 40, 3)
            assert (taken == frames[wanted]).all()
        with pytest.raises(IndexError):
            source.take([40])
        with pytest.raises(IndexError):
            source.take([-1])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", {"options": {"preset": "medium", "bf": "3", "g": "12"}}),
        ("one-key.mp4", {"options": {"preset": "ultrafast", "g": "250"}}),
        ("open-gop.mkv", {"options": {"preset": "medium", "bf": "3", "g": "12", "x264-params": "open-gop=1"}}),
        ("a.ts", {"options": {"preset": "medium", "bf": "2", "g": "12"}}),
        ("a.avi", {"codec": "mpeg4", "options": {"g": "12"}}),
        ("a.gif", {"codec": "gif", "pixels": "rgb8", "fps": 10}),
    ],
)
def test_take_from_ordinary_files(tmp_path: Path, name: str, options: dict) -> None:
    source = VideoFrames(make_clip(tmp_path / name, **options))
    source._cache_frames = 2  # so that going back decodes again
    for wanted in ([0, 1, 2], [59], [3, 40], [13, 12, 11], [58, 59], [0, 30]):
        assert [number_of(f) for f in source.take(wanted)] == wanted


def test_sources_read_what_probe_describes(tmp_path: Path) -> None:
    source = VideoFrames(make_clip(tmp_path / "a.mp4", size=(240, 320), rotation=90))
    assert source.size == (240, 320)
    assert [number_of(f) for f in source.take([7, 3])] == [7, 3]


def test_plan_frames(tmp_path: Path) -> None:
    clip = probe(make_clip(tmp_path / "a.mp4", frames=130, fps=60))
    assert plan_frames(clip, None) == (tuple(range(0, 130, 2)), 30)
    assert plan_frames(clip, Fraction(60)) == (tuple(range(130)), 60)
    indices, rate = plan_frames(clip, Fraction(24))
    assert rate == 24
    assert len(indices) == 52
    assert [number_of(f) for f in iter_frames(clip, Fraction(24))] == list(indices)
    assert plan_frames(clip, None, max_fps=Fraction(20))[1] == 20


def test_a_damaged_packet_costs_one_frame_and_not_the_clip(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", np.stack([numbered(i, 320, 240) for i in range(60)]))
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    pos, size = packets[10]
    data[pos + size // 3 : pos + size] = bytes(size - size // 3)
    path.write_bytes(data)
    numbers = [number_of(f) for f in iter_frames(probe(path))]
    assert len(numbers) == 60
    assert numbers[:10] + numbers[11:] == list(range(10)) + list(range(11, 60))


def test_h264_writer_is_tagged_and_close(tmp_path: Path) -> None:
    frame = numbered(0b10110101, 128, 96)
    with write_h264(tmp_path / "a.mp4", Fraction(25), 128, 96, crf=10) as writer:
        for _ in range(5):
            writer.write(frame)
    with av.open(str(tmp_path / "a.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt, context.colorspace) == ("h264", "yuv420p", 1)
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    read = VideoFrames(tmp_path / "a.mp4").take([0, 4])
    assert np.abs(read.astype(int) - frame).mean() < 3


def write_and_fail(make: type, path: Path, error: BaseException) -> None:
    with make(path, Fraction(30), 64, 48) as writer:
        writer.write(noise(1, 64, 48)[0])
        raise error


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    for make in (LosslessWriter, write_h264):
        with pytest.raises(ZeroDivisionError):
            write_and_fail(make, tmp_path / "a.mkv", ZeroDivisionError())
        assert list(tmp_path.iterdir()) == []


def test_an_error_keeps_the_older_file(tmp_path: Path) -> None:
    (tmp_path / "a.mkv").write_text("old")
    with pytest.raises(KeyboardInterrupt):
        write_and_fail(LosslessWriter, tmp_path / "a.mkv", KeyboardInterrupt())
    assert [p.name for p in tmp_path.iterdir()] == ["a.mkv"]
    assert (tmp_path / "a.mkv").read_text() == "old"


@pytest.mark.parametrize("make", [LosslessWriter, write_h264])
@pytest.mark.parametrize(("room", "frames"), [(0, 3), (600, 3), (3000, 60)], ids=["header", "close", "middle"])
def test_disk_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: type, room: int, frames: int) -> None:
    def fill() -> None:
        with make(tmp_path / "a.mkv", Fraction(30), 320, 240) as writer:
            for i in range(frames):
                writer.write(numbered(i, 320, 240))

    fill_disk_after(room, monkeypatch)
    with pytest.raises(OutputError, match="disk is full") as caught:
        fill()
    assert caught.value.exit_code == 2
    assert list(tmp_path.iterdir()) == []


def fill_disk_after(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    written = 0
    whole = AtomicFile.write

    def write(self: AtomicFile, data: bytes) -> int:
        nonlocal written
        written += len(data)
        if written > room:
            self.error = OSError(errno.ENOSPC, "No space left on device")
            raise self.error
        return whole(self, data)

    monkeypatch.setattr(AtomicFile, "write", write)


def test_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="not a folder"):
        LosslessWriter(tmp_path / "file" / "a.mkv", Fraction(30), 64, 48)
    (tmp_path / "taken").mkdir()
    with pytest.raises(OutputError, match="this is a folder"):
        LosslessWriter(tmp_path / "taken", Fraction(30), 64, 48)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(OutputError, match="not writable"):
        LosslessWriter(tmp_path / "a.mkv", Fraction(30), 64, 48)


def test_memory_does_not_grow_with_length(tmp_path: Path) -> None:
    peaks = []
    for count in (40, 160):
        clip = probe(make_clip(tmp_path / f"{count}.mp4", frames=count, fps=20, size=(640, 480)))
        tracemalloc.start()
        assert sum(1 for _ in iter_frames(clip)) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 2**20


def test_a_file_that_vanished_after_the_probe(tmp_path: Path) -> None:
    clip = probe(make_clip(tmp_path / "a.mp4"))
    clip.path.unlink()
    with pytest.raises(InputError, match="no such file"):
        next(iter_frames(clip))


def test_frames_that_the_encoder_cannot_hold_are_an_output_error(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match=r"^guides = .*a\.mkv: ffv1 cannot encode frames of 1x16 pixels"),
        LosslessWriter(tmp_path / "a.mkv", Fraction(25), 1, 16) as writer,
    ):
        writer.write(np.zeros((16, 1, 3), np.uint8))
    assert list(tmp_path.iterdir()) == []


def test_the_same_frames_make_the_same_file(tmp_path: Path) -> None:
    """x264's routines for AVX-512 read what lies in memory where pictures are flat: of forty files some differed."""
    frames = np.empty((30, 96, 160, 3), np.uint8)
    frames[:] = 160, 80, 120
    for i, frame in enumerate(frames):
        frame[24 + i :][:20, 20 + 2 * i : 60 + 2 * i] = 230
        for bit in range(6):
            frame[:16, bit * 16 : (bit + 1) * 16] = 255 * (i >> bit & 1)
    files = set()
    for n in range(40):
        with write_h264(tmp_path / f"{n}.mp4", Fraction(15), 160, 96, crf=23) as writer:
            for i, frame in enumerate(frames):
                writer.write(frame)
                np.random.default_rng(n + i).random((1 + 37 * (n * i % 8), 997))  # other things lie in memory
        files.add((tmp_path / f"{n}.mp4").read_bytes())
    assert len(files) == 1
