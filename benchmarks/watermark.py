"""What does the invisible watermark withstand, what does it cost, and how often is it found where it is not?

    python benchmarks/watermark.py CLIP … [--frames 24] [--keys 5000]
    python benchmarks/watermark.py CLIP … --job [--frames 24]

Every clip is marked at each strength, encoded and scaled, and read back. False alarms: the residual of each unmarked clip is
read with many random keys. Nothing depends on which key is the one in use, so this is as good as as many unmarked videos.

With --job: what marks cost in the part of a job that takes frames to a file, and whether memory grows with its length.
"""

from __future__ import annotations

import argparse
import io
import math
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from fractions import Fraction
from multiprocessing import get_context
from pathlib import Path

import av
import cv2
import numpy as np
import torch
from hardware import described

from wanimate.config import MarkSettings
from wanimate.finish.lock import OutputLock
from wanimate.finish.record import peak_rss
from wanimate.jobs.delivery import Delivery, Order
from wanimate.media.levels import from_levels
from wanimate.media.probe import probe
from wanimate.media.video import iter_indices
from wanimate.post.base import VideoSpec
from wanimate.provenance.about import About, new_id
from wanimate.provenance.code import CHECK, decode
from wanimate.provenance.watermark import FITS, Detector, Watermark, chance_of, correlations
from wanimate.types import Frame

PAYLOAD = 0xA5C3197E
CASES = (
    "as marked",
    "crf 23",
    "crf 28",
    "crf 35",
    "half size, crf 23",
    "x1.5 and back, crf 23",
    "one frame, crf 23",
    "5 % cropped",
)


def main() -> None:
    """Measure and print the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="+", metavar="CLIP[@WIDTHxHEIGHT]", help="clips, scaled if asked to")
    parser.add_argument("--frames", type=int, default=24, help="frames of each")
    parser.add_argument("--strengths", type=float, nargs="+", default=[1.25, 1.5])
    parser.add_argument("--keys", type=int, default=5000, help="random keys that each unmarked clip is read with")
    parser.add_argument("--job", action="store_true", help="cost and memory in a job alone")
    given = parser.parse_args()
    if given.job:
        tell_jobs(given.clips, given.frames)
        return
    print("# The invisible watermark\n")
    print("\n".join(described(threads=1)))
    names = " ".join(Path(clip).name for clip in given.clips)
    print(f"- printed by `python benchmarks/watermark.py {names} --frames {given.frames} --keys {given.keys}`\n")
    print("| clip | strength | PSNR, dB | H.264 grows | ms a frame | " + " | ".join(CASES) + " |")
    print("|" + "---|" * (5 + len(CASES)))
    fits: list[tuple[str, np.ndarray]] = []
    for clip in given.clips:
        name, frames = read(clip, given.frames)
        for strength in given.strengths:
            print(row(name, frames, strength), flush=True)
        fits.append((name, alarms(frames, given.keys)))
    tell(fits)


def tell_jobs(clips: list[str], most: int) -> None:
    """Cost of marks in a job, with the frames of each clip once and eight times over."""
    print("# Marks in a job\n")
    print("\n".join(described(threads=1)))
    print(
        f"- printed by `python benchmarks/watermark.py {' '.join(Path(c).name for c in clips)} --job --frames {most}`\n"
    )
    print(
        "| clip | frames | marks | CPU ms a frame | s to mark the file | peak memory, MiB |\n|---|---|---|---|---|---|"
    )
    for clip in clips:
        name, frames = read(clip, most)
        for times in (1, 8):
            for marks in (None, MarkSettings(invisible=False, sign=False), MarkSettings(sign=False)):
                with ProcessPoolExecutor(1, get_context("spawn")) as own:  # peaks are of a process
                    cells = own.submit(in_job, frames, times, marks).result()
                print(f"| {name} | {times * len(frames)} | {cells} |", flush=True)


def in_job(frames: list[Frame], times: int, marks: MarkSettings | None) -> str:
    """Cells of one job: H.264 at the usual quality, four frames at once, as the engine gives them."""
    height, width = frames[0].shape[:2]
    torch.set_num_threads(1)
    order = Order(VideoSpec((width, height), Fraction(24), times * len(frames)), marks=marks, id=new_id())
    about = About(order.id, "animation", datetime.now(UTC))
    with tempfile.TemporaryDirectory() as folder, OutputLock(Path(folder) / "a.mp4", marks=marks) as lock:
        start, late = time.process_time(), 0.0
        with Delivery(order, lock) as delivery:
            for first in range(0, times * len(frames), 4):
                some = [frames[i % len(frames)] for i in range(first, min(first + 4, times * len(frames)))]
                delivery.add(from_levels(np.stack(some)))
            delivery.finish()
            cost = (time.process_time() - start) / delivery.written
            if marks is not None:
                start = time.process_time()
                delivery.mark(about)
                late = time.process_time() - start
    what = "none" if marks is None else "watermark, XMP" if marks.invisible else "XMP"
    return f"{what} | {1000 * cost:.0f} | {late:.2f} | {peak_rss() / 2**20:.0f}"


def read(clip: str, most: int) -> tuple[str, list[Frame]]:
    """Name and frames of a clip."""
    path, _, size = clip.partition("@")
    found = probe(Path(path), limits=None)
    frames = list(iter_indices(found, range(min(found.count, most))))
    if size:
        wanted = tuple(map(int, size.split("x")))
        frames = [cv2.resize(frame, wanted, interpolation=cv2.INTER_AREA) for frame in frames]
    height, width = frames[0].shape[:2]
    return f"{Path(path).stem} at {width}x{height}", frames


def row(name: str, frames: list[Frame], strength: float) -> str:
    """One clip at one strength. Cells hold how well the payload fits; a payload that is not read is bracketed."""
    height, width = frames[0].shape[:2]
    mark = Watermark(width, height, PAYLOAD, strength=strength)
    start = time.process_time()
    marked = [mark.on_bytes(frame) for frame in frames]
    cost = (time.process_time() - start) / len(frames)
    error = np.mean([np.mean((a.astype(np.float32) - b) ** 2) for a, b in zip(marked, frames, strict=True)])
    plain, before = encoded(frames, 23)
    coded, after = encoded(marked, 23)
    half = (width // 4 * 2, height // 4 * 2)
    more = (width * 3 // 4 * 2, height * 3 // 4 * 2)
    top, left = height // 40, width // 40
    results = [
        marked, coded, encoded(marked, 28)[0], encoded(marked, 35)[0], encoded(marked, 23, half)[0],
        encoded(encoded(marked, 23, more)[0], 23, (width, height))[0], encoded(marked[:1], 23)[0],
        [np.ascontiguousarray(frame[top : height - top, left : width - left]) for frame in marked],
    ]  # fmt: skip
    assert detected(plain) is None
    cells = [detected(result) for result in results]
    psnr = 10 * math.log10(255**2 / error)
    told = " | ".join("not read" if cell is None else f"{cell:.0f}" for cell in cells)
    return f"| {name} | {strength} | {psnr:.1f} | {100 * (after / before - 1):.0f} % | {1000 * cost:.0f} | {told} |"


def detected(frames: list[Frame]) -> float | None:
    """How well the payload fits; None where it is not read."""
    found = detector(frames).found()
    return found.score if found.payload == PAYLOAD else None


def detector(frames: list[Frame]) -> Detector:
    reader = Detector(frames[0].shape[1], frames[0].shape[0])
    for frame in frames:
        reader.add(frame)
    return reader


def encoded(frames: list[Frame], crf: int, size: tuple[int, int] | None = None) -> tuple[list[Frame], int]:
    """Frames after H.264, scaled before if asked to, and the bytes of the file."""
    frames = [cv2.resize(f, size, interpolation=cv2.INTER_AREA) for f in frames] if size else frames
    height, width = frames[0].shape[:2]
    with io.BytesIO() as file:
        with av.open(file, "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=24, options={"crf": str(crf)})
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode(None))
        count = file.tell()
        file.seek(0)
        with av.open(file) as container:
            return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)], count


def alarms(frames: list[Frame], keys: int) -> np.ndarray:
    """How well the best code word fits the unmarked frames, for each key; negative where its CRC is right."""
    residual = detector(frames).residual
    every = (decode(correlations(residual, b"benchmark %d" % i)) for i in range(keys))
    return np.array([fit if payload is None else -fit for payload, fit in every])


def tell(fits: list[tuple[str, np.ndarray]]) -> None:
    """False alarms, clip by clip and together."""
    print(
        "\n| unmarked clip | keys | mean fit | deviation | highest | right CRCs | false alarms |\n|---|---|---|---|---|---|---|"
    )
    for name, some in [*fits, ("all", np.concatenate([some for _, some in fits]))]:
        size, right = np.abs(some), some < 0
        false = int((right & (size >= FITS)).sum())
        values = f"{size.mean():.2f} | {size.std():.3f} | {size.max():.2f} | {int(right.sum())} | {false}"
        print(f"| {name} | {len(some)} | {values} |")
    every = np.abs(np.concatenate([some for _, some in fits]))
    print(f"\nShare of fits from {FITS} on, whatever the CRC: {(every >= FITS).mean():.1e}.")
    print(
        f"Times a CRC that is right by chance, 2^-{CHECK}: {(every >= FITS).mean() * 2.0**-CHECK:.1e} false alarms a video."
    )
    tail = np.sort(every)[-max(len(every) // 100, 10) :]
    slope = 1 / float(np.mean(tail - tail[0]))
    beyond = len(tail) / len(every) * math.exp(-slope * max(FITS - float(tail[0]), 0))
    print(f"Extrapolated from the highest hundredth (exponential from {tail[0]:.2f}): {beyond * 2.0**-CHECK:.1e}.")
    print(f"Bound for any video, over random keys: {chance_of(FITS):.1e}.")


if __name__ == "__main__":
    main()
