"""The edge process: Granian in front of an ASGI application, in one worker process.

The listening process only watches its worker; the application is made in the worker, which
ends with its parent. Neither opens the event store.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server import Server

from meterpost.core.errors import Conflict
from meterpost.supervise.leash import die_with_parent

#: A worker that does not finish its requests in time is ended.
WORKER_STOPS_WITHIN_S = 20


@dataclass(frozen=True, slots=True)
class EdgeAddress:
    """Where the edge listens."""

    host: str = "127.0.0.1"
    port: int = 8420

    @property
    def url(self) -> str:
        """For people and probes on this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


def serve_edge(make_app: Callable[[], Any], address: EdgeAddress, *, workers: int = 1) -> None:
    """Serve until SIGTERM; requests in progress are finished first.

    ``make_app`` (importable or a `functools.partial` of something importable) is called in each
    worker.

    Raises: Conflict where something listens there already; SystemExit with 1 when a worker
    ended by itself, so that a supervisor starts all of it again.
    """
    require_free(address)
    server = Server(
        "meterpost",
        address=address.host,
        port=address.port,
        interface=Interfaces.ASGI,
        workers=workers,
        http=HTTPModes.http1,
        websockets=False,
        http1_settings=HTTP1Settings(keep_alive=True),
        log_access=False,
        workers_kill_timeout=WORKER_STOPS_WITHIN_S,
    )
    server.serve(target_loader=_Loader(make_app), wrap_loader=False)


@dataclass(frozen=True, slots=True)
class _Loader:
    """Runs in the worker, before it serves."""

    make_app: Callable[[], Any]

    def __call__(self) -> Any:
        die_with_parent()
        return self.make_app()


def require_free(address: EdgeAddress) -> None:
    """Nothing, where the address can be listened on.

    Raises: Conflict; better known before a server is started and restarted in vain.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.host, address.port))
        except OSError as exc:
            raise Conflict(
                f"Nothing can listen on {address.host}:{address.port}: {exc.strerror}.",
                hint="Stop what listens there, or choose another: `edge: {port: …}` in "
                "meterpost.yaml, or METERPOST_EDGE__PORT.",
            ) from exc
