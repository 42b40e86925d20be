"""Calls beside the caller's work: in order, waited for, and never failing in silence."""

from __future__ import annotations

import threading
from functools import partial

import pytest

from wanimate.finish.background import Background


def raising(error: Exception) -> None:
    raise error


def test_calls_are_done_in_order_in_another_thread() -> None:
    work, done = Background(), list[tuple[int, str]]()
    for i in range(20):
        work.do(lambda i=i: done.append((i, threading.current_thread().name)))
    work.finish()
    assert [i for i, _ in done] == list(range(20))
    assert threading.current_thread().name not in {name for _, name in done}


def test_the_caller_goes_on_until_too_much_waits() -> None:
    gate, done = threading.Event(), list[int]()
    work = Background(waiting=2)
    work.do(gate.wait)
    for i in range(2):
        work.do(partial(done.append, i))  # these two wait; a third one would have to
    assert done == []
    gate.set()
    work.finish()
    assert done == [0, 1]


@pytest.mark.parametrize("last", ["do", "finish"])
def test_a_failure_reaches_the_caller_once_and_ends_the_work(last: str) -> None:
    work, done, failed = Background(), list[int](), threading.Event()
    work.do(partial(raising, OSError("disk full")))
    work.do(failed.set)  # left out
    work.do(partial(done.append, 1)) if last == "finish" else None
    with pytest.raises(OSError, match="disk full"):
        work.finish() if last == "finish" else [work.do(partial(done.append, i)) for i in range(1000)]
    work.abandon()
    assert not failed.is_set()
    assert done == []


def test_what_is_abandoned_is_left_out() -> None:
    gate, begun, done = threading.Event(), threading.Event(), list[int]()
    work = Background()

    def first() -> None:
        begun.set()
        gate.wait()

    work.do(first)
    work.do(partial(done.append, 1))
    begun.wait()
    threading.Timer(0.05, gate.set).start()
    work.abandon()
    assert done == []
