"""A server on loopback that says to each connection what a test wrote down, and remembers what it was asked."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

Say = Callable[[Callable[[bytes], None], bytes], None]
"""What is done with a connection: it is given a function that sends bytes, and the head of the request."""


def answer(body: bytes = b"", status: str = "200 OK", *headers: str, length: int | None = None) -> bytes:
    """A whole answer as bytes; `length`: another Content-Length than the true one."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


@dataclass
class Server:
    port: int
    asked: list[bytes] = field(default_factory=list)
    """Heads of requests, and what came with them."""
    stopped: threading.Event = field(default_factory=threading.Event)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


@contextmanager
def serving(say: Say | bytes, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> Iterator[Server]:
    """The server within the block. Clients that go away are nothing to it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listening:
        listening.settimeout(0.05)
        server = Server(listening.getsockname()[1])

        def talk(connection: socket.socket) -> None:
            with suppress(OSError), connection:
                connection.settimeout(5)
                with tls.wrap_socket(connection, server_side=True) if tls else connection as spoken:
                    head = b""
                    while b"\r\n\r\n" not in head and (piece := spoken.recv(65536)):
                        head += piece
                    server.asked.append(head)
                    if isinstance(say, bytes):
                        spoken.sendall(say)
                    else:
                        say(spoken.sendall, head)

        def accept() -> None:
            while not server.stopped.is_set():
                with suppress(TimeoutError):
                    connection, _ = listening.accept()
                    threading.Thread(target=talk, args=(connection,), daemon=True).start()

        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        try:
            yield server
        finally:
            server.stopped.set()
            accepting.join()
