"""`python -m wanimate`, and the entry point of the console script: a signal ends it in one line, also while modules load."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from typing import NoReturn


def stops() -> list[signal.Signals]:
    """Signals that end a command: Ctrl-C, the system, a terminal or connection that is gone. `nohup` has the last one
    ignored."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [signal.SIGINT, signal.SIGTERM, *([] if ignored else [signal.SIGHUP])]


def main(*chosen: str) -> NoReturn:
    """Run this process's command line, or, with `chosen`, that of one command: main("compat", "generate")."""
    _open_streams()
    before = [(number, signal.signal(number, _stop)) for number in stops()]
    try:
        from wanimate.cli.main import main as run

        run(*chosen)
    finally:
        for number, handler in before:
            if signal.getsignal(number) is _stop:
                signal.signal(number, handler)


def _open_streams() -> None:
    """Where the process was started without stdin, stdout or stderr, no file of a job may get their numbers, and what is said
    goes nowhere."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets the lowest free number
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115 - until the end


def _stop(*_: object) -> NoReturn:
    """Nothing has begun that would have to be tidied up. `cli.report` has handlers of its own while a command runs."""
    with suppress(OSError):  # nobody reads it any more
        if "--json" in sys.argv:
            os.write(1, b'{"event": "error", "kind": "Cancelled", "message": "stopped", "exit_code": 130}\n')
        else:
            os.write(2, b"cancelled\n")
    os._exit(130)


if __name__ == "__main__":
    main()
