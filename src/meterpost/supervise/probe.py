"""Ready-checks: is a child that runs also able to work?"""

from __future__ import annotations

import http.client
import socket
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

ReadyCheck = Callable[[], bool]


def ready_file(path: Path) -> ReadyCheck:
    """True once the child has made this file; `ChildSpec.clears` removes the last run's."""
    return path.exists


def http_probe(url: str, timeout_s: float = 1.0) -> ReadyCheck:
    """True while a GET on loopback is answered with a status below 400."""
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.hostname is None:
        raise ValueError(f"{url!r} is not an http URL")
    host, port = parts.hostname, parts.port or 80
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")

    def ready() -> bool:
        connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
        try:
            connection.request("GET", path)
            return connection.getresponse().status < 400
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    return ready


def socket_probe(path: Path, timeout_s: float = 1.0) -> ReadyCheck:
    """True while something accepts connections on this Unix socket."""

    def ready() -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(timeout_s)
            try:
                client.connect(str(path))
            except OSError:
                return False
        return True

    return ready
