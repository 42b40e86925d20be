"""A private Postgres from the system's packages: a cluster of its own in a folder, reached by a unix socket."""

from __future__ import annotations

import glob
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

USERS = ("postgres", "nobody")
"""Who runs it where we are root, whom it refuses."""


def binaries() -> Path | None:
    """The folder of initdb, postgres and pg_ctl; None where they are not installed."""
    for folder in sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda p: int(Path(p).parent.name), reverse=True):
        if (Path(folder) / "initdb").exists():
            return Path(folder)
    found = shutil.which("initdb")
    return Path(found).resolve().parent if found else None


class Cluster:
    """Runs from construction to `close`. `url` names the database "postgres" of it; it takes any user of this machine.

    Raises:
        FileNotFoundError: Postgres is not installed. RuntimeError: it does not start; the text holds its log.
    """

    def __init__(self) -> None:
        found = binaries()
        if found is None:
            raise FileNotFoundError("Postgres is not installed (Debian: apt-get install postgresql)")
        self._bin = found
        self._folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # a socket's path has at most 107 letters
        self._as: list[str] = []
        if os.geteuid() == 0:
            user = next(name for name in USERS if _is_known(name))
            shutil.chown(self._folder, user)
            self._as = ["setpriv", f"--reuid={user}", f"--regid={pwd.getpwnam(user).pw_gid}", "--clear-groups"]
        self._run(
            "initdb", "-D", str(self._folder / "data"), "-A", "trust", "-U", "wanimate", "--no-sync", "-E", "UTF8"
        )
        self.start()

    @property
    def url(self) -> str:
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        return f"postgresql+psycopg://wanimate@/{database}?host={self._folder}"

    def start(self) -> None:
        """Returns once it takes connections."""
        # Without fsync, for speed. Commits stay synchronous, else `stop` would lose the last ones.
        options = f"-k {self._folder} -c listen_addresses='' -F -c max_connections=200"
        self._run(
            "pg_ctl", "-D", str(self._folder / "data"), "-w", "-l", str(self._folder / "log"), "-o", options, "start"
        )

    def stop(self, how: str = "immediate") -> None:
        """`immediate` is as if its processes were killed; `fast` drops connections in good order."""
        self._run("pg_ctl", "-D", str(self._folder / "data"), "-w", "-m", how, "stop")

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, name: str, *arguments: str) -> None:
        out = subprocess.DEVNULL if name == "pg_ctl" else subprocess.PIPE  # the server would hold a pipe of pg_ctl open
        done = subprocess.run(
            [*self._as, str(self._bin / name), *arguments], cwd="/", stdin=subprocess.DEVNULL, stdout=out, stderr=out, text=True
        )  # fmt: skip
        if done.returncode:
            log = self._folder / "log"
            raise RuntimeError(f"{name}: {done.stderr or ''}{log.read_text()[-2000:] if log.exists() else ''}")


def _is_known(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
