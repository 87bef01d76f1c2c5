"""Frames between launcher, forkserver and a starting run: a JSON object behind its length, at times with a socket."""

import array
import json
import os
import socket
import struct
from collections.abc import Mapping
from typing import Any

_LENGTH = struct.Struct("!I")


class FrameError(Exception):
    """The other side sent something else than a frame, or ended in the middle of one."""


def send_frame(channel: socket.socket, message: Mapping[str, Any], passed: socket.socket | None = None) -> None:
    """Send `message`, and with it a copy of the socket `passed`. Raises OSError if the other side is gone."""
    body = json.dumps(message).encode()
    length = _LENGTH.pack(len(body))
    if passed is None:
        channel.sendall(length)
    else:
        rights = array.array("i", [passed.fileno()])
        channel.sendmsg([length], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
    channel.sendall(body)


def receive_frame(channel: socket.socket) -> dict[str, Any] | None:
    """The next message; None if the other side has closed the channel.

    Raises:
        FrameError: the channel ended in the middle of a frame.
        TimeoutError: nothing came within the channel's timeout.
    """
    message, passed = receive_frame_and_socket(channel)
    if passed is not None:
        passed.close()
    return message


def receive_frame_and_socket(channel: socket.socket) -> tuple[dict[str, Any] | None, socket.socket | None]:
    """Like `receive_frame`, with the socket that came along, if one did."""
    length, descriptors, _, _ = socket.recv_fds(channel, _LENGTH.size, 1)
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    passed = socket.socket(fileno=descriptors[0]) if descriptors else None
    try:
        if not length:
            return None, passed
        length += _receive_exactly(channel, _LENGTH.size - len(length))
        message = json.loads(_receive_exactly(channel, _LENGTH.unpack(length)[0]))
    except BaseException:
        if passed is not None:
            passed.close()
        raise
    if not isinstance(message, dict):
        raise FrameError(f"a frame holds a JSON object, not {type(message).__name__}")
    return message, passed


def _receive_exactly(channel: socket.socket, count: int) -> bytes:
    parts = []
    while count:
        part = channel.recv(count)
        if not part:
            raise FrameError("the channel ended in the middle of a frame")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
