"""Relay: stands before a server, forwards what is said to it and by it, and on demand falls silent, as a stopped one.

Connections stay open and new ones are taken, as the kernel does for a process that is stopped.
"""

import socket
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

_CHUNK = 1 << 16


class Relay:
    """Listens on `address`: the path of a UNIX socket, or, None, a free port of 127.0.0.1."""

    def __init__(self, target: str | tuple[str, int], address: Path | None = None) -> None:
        self._target = target
        self._flowing = threading.Event()
        self._flowing.set()
        self._ended = False
        self._open: list[socket.socket] = []
        if address is None:
            self._listening = socket.create_server(("127.0.0.1", 0))
            self.port = self._listening.getsockname()[1]
        else:
            self._listening = socket.socket(socket.AF_UNIX)
            self._listening.bind(str(address))
            self._listening.listen()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended = True
        self.resume()
        for each in (self._listening, *self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def fall_silent(self) -> None:
        self._flowing.clear()

    def resume(self) -> None:
        self._flowing.set()

    def _accept(self) -> None:
        while not self._ended:
            try:
                client, _ = self._listening.accept()
                if isinstance(self._target, str):
                    server = socket.socket(socket.AF_UNIX)
                    server.connect(self._target)
                else:
                    server = socket.create_connection(self._target)
            except OSError:
                return
            self._open += [client, server]
            for pair in ((client, server), (server, client)):
                threading.Thread(target=self._forward, args=pair, daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while said := source.recv(_CHUNK):
                self._flowing.wait()
                sink.sendall(said)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
