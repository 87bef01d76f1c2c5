"""Loopback ports of the embedded servers: the usual one where it is free, and the same one again after a restart."""

import socket

import psutil

LOOPBACK = "127.0.0.1"

SEARCHED = 100
"""How many ports from the usual one upwards are tried: low numbers, that no outgoing connection occupies by chance."""

PATIENCE = 5
"""Starts in a row that may find an announced port taken before the server moves: clients know the old address."""


def is_free(port: int) -> bool:
    """Whether a server could listen on the loopback `port` now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do: TIME_WAIT is no obstacle
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def listens(pid: int, port: int) -> bool:
    """Process `pid` itself listens on `port`; another program that was there first must not pass for our server."""
    try:
        connections = psutil.Process(pid).net_connections(kind="tcp")
    except psutil.Error:
        return False
    return any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in connections)


class LoopbackPort:
    """The port of one server. `number` is the port to use; call `choose` before each start of the server."""

    def __init__(self, usual: int, remembered: int | None, instead: str, *, searched: int = SEARCHED) -> None:
        """`instead`: the setting that names a server to use in place of this one, for the sentence about a taken port.

        `searched`: how many ports from `usual` upwards are tried.
        """
        self.notice: str | None = None
        """A sentence, once another program was found on the port and the server has moved."""
        self._instead = instead
        self._usual = usual
        self._searched = searched
        self._announced = False
        self._refusals = 0
        self.number = remembered or usual

    def choose(self) -> None:
        """Move to a free port if the present one is taken, and either unknown to clients or taken for long.

        Raises OSError when none of the ports is free. Another process can take the port before the server binds it:
        see `was_lost`.
        """
        if is_free(self.number):
            return
        self._refusals += 1
        if self._announced and self._refusals < PATIENCE:
            return
        end = self._usual + self._searched
        for candidate in range(self._usual, end):
            if is_free(candidate):
                if self.notice is None:
                    taken = f"port {self.number} is taken"
                    self.notice = f"{taken}; to use a server that runs already, set {self._instead}"
                self.number = candidate
                self._refusals = 0
                return
        raise OSError(
            f"no loopback port from {self._usual} to {end - 1} is free: free one of them, or name a "
            f"server that runs already in {self._instead}"
        )

    def was_lost(self) -> bool:
        """Whether the server, which has just ended, found its port taken, and no client knows that port yet.

        Then the next start is at another port, and may be at once: nothing is wrong with the server.
        """
        return not self._announced and not is_free(self.number)

    def announce(self) -> None:
        """The server answers on this port: from now on clients may know it."""
        self._announced = True
        self._refusals = 0
