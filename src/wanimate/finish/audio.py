"""The clip's sound in the result: packets copied as they are where the container allows, else encoded anew as AAC."""

from __future__ import annotations

from collections.abc import Generator
from itertools import chain
from typing import Any

import av

from wanimate.media.container import open_video
from wanimate.media.writer import StreamWriter
from wanimate.types import Clip

MP4_AUDIO = frozenset({"aac", "mp3", "ac3", "eac3", "alac", "opus"})
_PCM = frozenset({"pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le"})
MOV_AUDIO = MP4_AUDIO | _PCM | {"pcm_s16be", "pcm_s24be", "pcm_s32be", "pcm_f32be"}
MKV_AUDIO = MP4_AUDIO | _PCM | {"flac", "vorbis", "mp2", "dts"}
HELD = {".mp4": MP4_AUDIO, ".m4v": MP4_AUDIO, ".mov": MOV_AUDIO, ".mkv": MKV_AUDIO}
"""What is copied into each kind of file."""
# Encoders start with a packet of silence before the first sound; players know that it is not to be heard.
PRIMING_SECONDS = 0.06


class AudioCopy:
    """Feeds the first sound track of `clip`, from `start` seconds on, into a video being written, alongside its frames. It is
    silent for the first `lead` seconds.

    `copied` tells whether packets pass bit for bit. Only one packet is held in memory. A track that turns out to be
    damaged ends early and sets `failure`; it does not cost the video.

    Sound keeps its time to the sample. Of a packet that the start cuts through, players of mp4 skip what lies before it.
    Matroska cannot say so, and what is encoded anew begins with a whole block: there that packet is left out.
    """

    def __init__(self, clip: Clip, writer: StreamWriter, ending: str, start: float = 0.0, lead: float = 0.0) -> None:
        self.writer, self.codec = writer, clip.audio[0].codec
        self.copied = self.codec in HELD[ending]
        self.failure: str | None = None
        self._container = open_video(clip.path, "video")
        video = self._container.streams[clip.stream]
        self._source = self._container.streams.audio[clip.audio[0].index]
        self._zero = float((video.start_time or 0) * video.time_base) + start
        self._lead = lead
        self._cuts = start > 0 and ending == ".mkv"
        if self.copied:
            self._stream = writer.container.add_stream_from_template(self._source)
            self._packets = self._copy()
        else:
            rate = self._source.codec_context.sample_rate
            self._stream = writer.container.add_stream("aac", rate=rate if rate in (44100, 48000) else 48000)
            self._stream.layout = "mono" if self._source.codec_context.channels == 1 else "stereo"
            self._stream.bit_rate = 192_000
            self._packets = self._encode()
        self._next = next(self._packets, None)

    def advance(self, seconds: float) -> None:
        """Write the packets whose greater part is heard before `seconds` of the video."""
        while self._next is not None and self._next[0] < seconds:
            self.writer.mux(self._next[1])
            self._next = next(self._packets, None)

    def close(self) -> None:
        self._packets.close()
        self._container.close()

    def _copy(self) -> Generator[tuple[float, Any], None, None]:
        try:
            for packet in self._container.demux(self._source):
                if packet.size == 0 or packet.pts is None:
                    continue
                shift, lead = (round(seconds / packet.time_base) for seconds in (self._zero, self._lead))
                packet.pts -= shift
                packet.dts = packet.pts if packet.dts is None else packet.dts - shift
                packet.stream = self._stream
                timed = _timed(packet)
                if packet.pts >= 0 if self._cuts else timed[0] > -PRIMING_SECONDS:
                    packet.pts, packet.dts = packet.pts + lead, packet.dts + lead
                    yield timed[0] + self._lead, packet
        except av.error.FFmpegError as e:
            self.failure = str(e)

    def _encode(self) -> Generator[tuple[float, Any], None, None]:
        context = self._stream.codec_context
        resampler = av.AudioResampler("fltp", self._stream.layout, context.sample_rate, frame_size=1024)
        shift, lead = (round(seconds * context.sample_rate) for seconds in (self._zero, self._lead))
        try:
            for sound in chain(self._container.decode(self._source), [None]):
                for part in resampler.resample(sound):
                    part.pts -= shift
                    if part.pts >= 0:
                        part.pts += lead
                        yield from map(_timed, self._stream.encode(part))
            yield from map(_timed, self._stream.encode(None))
        except av.error.FFmpegError as e:
            self.failure = str(e)


def _timed(packet: Any) -> tuple[float, Any]:
    """(middle of the packet in seconds, packet)."""
    return float((packet.pts + (packet.duration or 0) / 2) * packet.time_base), packet
