"""One of the other ranks: a process of its own that does its share of every call of rank 0 (`workers` starts it)."""

from __future__ import annotations

import ctypes
import os
import signal
import sys


def _die_with_the_parent() -> None:
    """The kernel ends this process with its parent. A parent that was gone before that was set is noticed here."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != int(os.environ["WANIMATE_PARENT"]):
        os._exit(1)


def _end_with_the_input() -> None:
    """Rank 0 holds the other end of the standard input and never writes: its end is the end of rank 0."""
    os.read(0, 1)
    os._exit(1)


def main() -> None:
    """Join, follow rank 0 until it says stop; an error is one JSON object on the last line."""
    _die_with_the_parent()
    import json
    import threading
    from pathlib import Path

    threading.Thread(target=_end_with_the_input, daemon=True).start()
    from wanimate.errors import as_ours
    from wanimate.runtime.parallel.ranks import join, leave
    from wanimate.runtime.parallel.team import follow

    try:
        follow(join(Path(os.environ["WANIMATE_MEETING"]), int(os.environ["RANK"]), int(os.environ["WANIMATE_RANKS"])))
        leave()
    except Exception as error:
        ours = as_ours(error)
        print(json.dumps({"message": str(ours), "exit_code": ours.exit_code}), flush=True)
        os._exit(ours.exit_code)


if __name__ == "__main__":
    main()
