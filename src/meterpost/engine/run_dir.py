"""The files by which the processes of one workspace find each other.

A socket's path has 107 bytes at most, a workspace's path has no such limit. Where the socket
does not fit into the workspace it stands in a private directory with a short path, and a file
in the workspace says where.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from meterpost.core.errors import NeedsPerson
from meterpost.storage.embedded.account import secure_directory

#: 108 bytes with the final zero on Linux, 104 elsewhere.
SOCKET_PATH_BYTES_MAX = 103


class RunDirectory:
    """The ``run`` directory of a workspace (0700)."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def engine_lock(self) -> Path:
        """Held by the process that has the event store open."""
        return self.path / "engine.lock"

    @property
    def engine_ready(self) -> Path:
        """There while the engine answers."""
        return self.path / "engine.ready"

    @property
    def engine_state(self) -> Path:
        """How far the engine is, for the edge (`backlog`)."""
        return self.path / "engine.json"

    @property
    def supervisor_lock(self) -> Path:
        """Held by `meterpost up`."""
        return self.path / "up.pid"

    @property
    def supervisor_state(self) -> Path:
        """What `meterpost up` runs."""
        return self.path / "up.json"

    @property
    def _address(self) -> Path:
        return self.path / "engine.address"

    def prepare(self) -> None:
        """The directory exists and is ours alone.

        Raises: NeedsPerson where somebody else could change it.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        secure_directory(self.path, 0o700)

    def new_socket(self) -> Path:
        """Where the engine is to listen; written down for its clients.

        Raises: NeedsPerson where no candidate is safe and short enough.
        """
        path = self._fitting_socket()
        write_whole(self._address, os.fsencode(path))
        return path

    def socket(self) -> Path | None:
        """Where an engine of this workspace listens, or last did; None if there never was one."""
        try:
            return Path(os.fsdecode(self._address.read_bytes()))
        except FileNotFoundError:
            return None

    def _fitting_socket(self) -> Path:
        inside = self.path.resolve() / "engine.sock"
        if _fits(inside):
            return inside
        name = hashlib.sha256(os.fsencode(inside)).hexdigest()[:16]
        refused: list[str] = []
        for parent in _short_parents():
            home = parent / f"meterpost-engine-{os.geteuid()}"
            socket = home / name / "engine.sock"
            if not _fits(socket):
                refused.append(f"{socket} is too long")
                continue
            try:
                secure_directory(home, 0o700)
                secure_directory(socket.parent, 0o700)
            except (NeedsPerson, OSError) as exc:
                refused.append(str(exc))
                continue
            return socket
        raise NeedsPerson(
            f"There is no safe place for the engine's socket: {'; '.join(refused)}.",
            hint="Set TMPDIR to a directory of your own with a short path.",
        )


def write_whole(path: Path, content: bytes) -> None:
    """Replace a file: a reader sees the old content or the new one. Not for durability."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    aside.replace(path)


def read_json(path: Path) -> Mapping[str, Any] | None:
    """The object in a file written by `write_whole`, or None where there is none."""
    with suppress(FileNotFoundError):
        content = json.loads(path.read_bytes())
        return content if isinstance(content, dict) else None
    return None


def _fits(path: Path) -> bool:
    return len(os.fsencode(path)) <= SOCKET_PATH_BYTES_MAX


def _short_parents() -> list[Path]:
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    candidates = [
        Path(runtime) if runtime else None,
        Path(tempfile.gettempdir()),
        Path("/tmp"),  # noqa: S108  (checked by secure_directory)
    ]
    return [
        path for path in dict.fromkeys(candidates) if path is not None and os.access(path, os.W_OK)
    ]
