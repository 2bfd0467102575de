"""Messages between the launcher, its servers and their jobs: pickles with their length before them."""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import struct
from collections.abc import Sequence
from typing import Any

_LENGTH = struct.Struct("!Q")
_MOST_FILES = 4


class Channel:
    """One end of a pair of sockets; the other one's death ends it.

    Both ends are of one program that was forked, so that what comes is as trusted as its own memory.
    """

    def __init__(self, end: socket.socket):
        self._end = end

    @classmethod
    def make_pair(cls) -> tuple[Channel, Channel]:
        """Two ends."""
        one, other = socket.socketpair()
        return cls(one), cls(other)

    @classmethod
    def adopt(cls, descriptor: int) -> Channel:
        """The end that arrived as a file descriptor."""
        return cls(socket.socket(fileno=descriptor))

    def fileno(self) -> int:
        """For a selector, and to send the end itself."""
        return self._end.fileno()

    def send(self, *message: Any, files: Sequence[int] = ()) -> bool:
        """Sends a tuple, and open files with it; False: the other end is gone."""
        data = pickle.dumps(message)
        try:
            socket.send_fds(self._end, [_LENGTH.pack(len(data))], list(files))
            self._end.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def receive(self) -> tuple[tuple[Any, ...], list[int]]:
        """Waits for a message; the files that came with it are the caller's to close.

        Raises:
            EOFError: the other end is gone.
        """
        try:
            head, files, _, _ = socket.recv_fds(self._end, _LENGTH.size, _MOST_FILES)
            head += self._read(_LENGTH.size - len(head)) if head else b""
            if not head:
                raise EOFError
            return pickle.loads(self._read(*_LENGTH.unpack(head))), files
        except ConnectionResetError as error:
            raise EOFError from error

    def close(self) -> None:
        """The other end notices."""
        self._end.close()

    def _read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            block = self._end.recv(size - len(data))
            if not block:
                raise EOFError
            data += block
        return bytes(data)


class Inbox:
    """The reading end of a pipe through which a job sends one thing: its result.

    Processes that the job started may hold the other end for ever, so that its length, not its end, says that it is
    whole.
    """

    def __init__(self, descriptor: int):
        os.set_blocking(descriptor, False)
        self.descriptor = descriptor
        self._data = bytearray()

    def drain(self) -> bool:
        """Takes what is there, which keeps the sender going; False: there will be no more."""
        with contextlib.suppress(BlockingIOError):
            while block := os.read(self.descriptor, 1 << 20):
                self._data += block
            return False
        return True

    def read(self) -> Any:
        """What was sent; None: nothing, or not all of it, or it cannot be made again here."""
        self.drain()
        size = _LENGTH.size
        if len(self._data) < size or len(self._data) < size + _LENGTH.unpack(self._data[:size])[0]:
            return None
        return pickle.loads(self._data[size:])


def post(descriptor: int, value: Any) -> None:
    """What an `Inbox` reads; waits until all of it is sent."""
    data = pickle.dumps(value)
    left = memoryview(_LENGTH.pack(len(data)) + data)
    with contextlib.suppress(BrokenPipeError):  # the launcher is gone, and this process soon will be
        while left:
            left = left[os.write(descriptor, left) :]
