"""Stages for frames that come from elsewhere: who makes the frames calls, and gets what has come of them.

Stages draw their frames; a job hands its frames on. The two meet by a thread that runs while the caller waits, and only then.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from types import TracebackType

import torch
from torch import Tensor

from wanimate.post.base import PostStage, VideoSpec, result_of, run_stages


class Pump:
    """Runs stages over chunks that are pushed. Use as a context manager; nothing runs between two calls, so that the memory of
    a stage is never taken beside the caller's own work.

    Attributes:
        result: what comes out.
    """

    def __init__(self, stages: Sequence[PostStage], spec: VideoSpec) -> None:
        self.result = result_of(stages, spec)
        self._stages, self._spec = stages, spec
        self._given: Tensor | None = None
        self._made: list[Tensor] = []
        self._turn, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._error: BaseException | None = None
        self._ended = self._stopped = False
        self._thread = threading.Thread(target=self._run, name="wanimate-post", daemon=True)
        self._thread.start()

    def push(self, frames: Tensor) -> list[Tensor]:
        """Hand on frames, float32 [n, 3, H, W] in [0, 1]; returns the finished chunks that they lead to, none to several.

        Raises:
            InputError: frames of another size, or more than were told. Whatever a stage raises.
        """
        self._given = frames
        return self._let_run()

    def end(self) -> list[Tensor]:
        """All frames have been pushed; returns what was still inside.

        Raises:
            InputError: they were fewer than were told. Whatever a stage raises.
        """
        self._ended = True
        return self._let_run()

    def close(self) -> None:
        """Stop the thread and give the stages' memory back. Nothing happens the second time."""
        if self._thread.is_alive():
            self._stopped = True
            self._turn.release()
            self._thread.join()
        for stage in self._stages:
            stage.close()

    def _let_run(self) -> list[Tensor]:
        if self._thread.is_alive():
            self._turn.release()
            self._back.acquire()
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        made, self._made = self._made, []
        return made

    def _run(self) -> None:
        try:
            self._wait()
            with torch.inference_mode():
                for chunk in run_stages(self._stages, self._spec, self._chunks()):
                    self._made.append(chunk)
        except _Stopped:
            return
        except BaseException as error:
            self._error = error
        self._back.release()

    def _chunks(self) -> Iterator[Tensor]:
        while True:
            if self._given is not None:
                given, self._given = self._given, None
                yield given
            elif self._ended:
                return
            else:
                self._back.release()
                self._wait()

    def _wait(self) -> None:
        self._turn.acquire()
        if self._stopped:
            raise _Stopped

    def __enter__(self) -> Pump:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


class _Stopped(Exception):
    """The caller has closed the pump."""
