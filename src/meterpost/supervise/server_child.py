"""A supervised server that is an object, not an argument list (PostgreSQL, for one)."""

from __future__ import annotations

import threading
from typing import Protocol

from meterpost.core.errors import MeterpostError
from meterpost.supervise.model import RestartPolicy


class ManagedServer(Protocol):
    """Starts, stops and watches a server process of its own."""

    def start(self) -> object:
        """Return when the server can work."""
        ...

    def stop(self) -> None:
        """Return when it has ended."""
        ...

    def is_running(self) -> bool:
        """Whether it is alive."""
        ...

    def pid(self) -> int | None:
        """Its process number while it is alive."""
        ...

    def tend(self) -> None:
        """Housekeeping, every second or so."""
        ...


class ServerChild:
    """Makes a `ManagedServer` look like any other child.

    `launch` returns when the server is ready, however long its recovery takes. The server does
    not die with the supervisor: its own object finds it again.
    """

    launch_may_take_long = True

    def __init__(
        self,
        name: str,
        server: ManagedServer,
        *,
        policy: RestartPolicy | None = None,
        grace_s: float = 180.0,
    ) -> None:
        self.name = name
        self.policy = policy or RestartPolicy()
        self.ready_within_s = 60.0
        self.grace_s = grace_s
        self._server = server
        self._stopping: threading.Thread | None = None
        self._said: str | None = None

    def launch(self) -> None:
        """Start the server, or take over the one that a killed run left."""
        self._stopping = None
        self._server.start()

    def ready(self) -> bool:
        """A server that runs after `launch` is ready."""
        return self.running()

    def running(self) -> bool:
        """Whether the server is alive, or still being stopped."""
        stopping = self._stopping is not None and self._stopping.is_alive()
        return stopping or self._server.is_running()

    def pid(self) -> int | None:
        """The server's process number while it is alive."""
        return self._server.pid()

    def ask_to_stop(self) -> None:
        """Begin to stop it; its own patience is inside `stop`."""
        self._stopping = threading.Thread(target=self._stop, name=f"stop-{self.name}")
        self._stopping.start()

    def kill(self) -> None:
        """Wait for the stop that was begun: a database is never ended by SIGKILL."""
        if self._stopping is not None:
            self._stopping.join()

    def last_exit(self) -> str | None:
        """Why stopping failed, or that it ended."""
        return self._said or (None if self.running() else "ended")

    def tend(self) -> None:
        """The server's own housekeeping."""
        self._server.tend()

    def _stop(self) -> None:
        try:
            self._server.stop()
        except MeterpostError as exc:
            self._said = str(exc)
