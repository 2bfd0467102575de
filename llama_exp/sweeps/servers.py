"""The launcher's side of its servers: starts one for each environment, talks with them, hears what they say."""

from __future__ import annotations

import contextlib
import os
import selectors
from collections.abc import Iterator, Mapping
from typing import Any

from llama_exp.sweeps.app import App
from llama_exp.sweeps.channel import Channel, Inbox
from llama_exp.sweeps.child import Seat, Work
from llama_exp.sweeps.server import start_root

Environment = tuple[tuple[str, str], ...]


class Server:
    """One server.

    Attributes:
        is_ready: it has imported what jobs need.
        trouble: why it forks nothing, ever; None: it does, or will.
    """

    def __init__(self, channel: Channel):
        self.channel = channel
        self.is_ready = False
        self.trouble: str | None = None


class Servers:
    """All servers of a launcher, and the root that forks them."""

    def __init__(self, work: Work, app: App):
        self._root, self._root_pid = start_root(work, app)
        self._servers: dict[Environment, Server] = {}
        self._selector = selectors.DefaultSelector()

    def close(self) -> None:
        """Returns when none of them is left, nor any of their jobs."""
        for server in self._servers.values():
            server.channel.close()
        self._root.close()
        os.waitpid(self._root_pid, 0)  # it waits for its servers, and they for their jobs
        self._selector.close()

    def get(self, environment: Mapping[str, str]) -> Server:
        """The server of an environment; a new one starts at once, and says later that it is ready."""
        key = tuple(sorted(environment.items()))
        if key not in self._servers:
            here, there = Channel.make_pair()
            server = self._servers[key] = Server(here)
            if not self._root.send("serve", dict(environment), files=[there.fileno()]):
                server.trouble = "could not start: the process that forks servers was killed"
            there.close()
            self._selector.register(here, selectors.EVENT_READ, key)
        return self._servers[key]

    def run(self, server: Server, seat: Seat) -> Inbox:
        """Asks for a job; its result comes into the inbox."""
        reader, writer = os.pipe()
        server.channel.send("run", seat, files=[writer])
        os.close(writer)
        inbox = Inbox(reader)
        self._selector.register(reader, selectors.EVENT_READ, inbox)
        return inbox

    def forget(self, inbox: Inbox) -> None:
        """The job of an inbox has ended."""
        with contextlib.suppress(KeyError):  # at its end already
            self._selector.unregister(inbox.descriptor)
        os.close(inbox.descriptor)

    def hear(self, seconds: float) -> Iterator[tuple[Server, tuple[Any, ...]]]:
        """What servers say in a time, see `server`; ("gone",) is the last word of one that died."""
        ready = [key for key, _ in self._selector.select(seconds)]
        for key in [key for key in ready if isinstance(key.data, Inbox)]:  # before a message closes one of them
            if not key.data.drain():
                self._selector.unregister(key.fd)
        for key in [key for key in ready if not isinstance(key.data, Inbox)]:
            server = self._servers[key.data]
            try:
                message, _ = server.channel.receive()
            except EOFError:
                self._bury(key.data, server)
                message = ("gone",)
            if message[0] == "ready":
                server.is_ready, server.trouble = message[1] is None, message[1]
            yield server, message

    def _bury(self, key: Environment, server: Server) -> None:
        """One that had been ready makes place for another; one that never was would not be the next time."""
        self._selector.unregister(server.channel)
        server.channel.close()
        if server.is_ready:
            del self._servers[key]
        elif server.trouble is None:
            server.trouble = "could not start: its server ended while it imported what jobs need"
        server.is_ready = False
