"""Finding a running server from what it left in its data directory.

The file ``postmaster.pid`` outlives a killed server, and its number may by now belong to any
other process: a process counts as the server only if it is a PostgreSQL process of the expected
user that works inside this very data directory.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # it carries no types

from meterpost.storage.embedded.account import Account

_PID_FILE = "postmaster.pid"


@dataclass(frozen=True, slots=True)
class PostmasterFile:
    """What ``postmaster.pid`` says; ``socket_dir`` and ``state`` come late in a start."""

    pid: int
    socket_dir: Path | None
    state: str

    @classmethod
    def read(cls, data: Path) -> PostmasterFile | None:
        """The file's content, or None where there is none (or it is being written)."""
        try:
            with (data / _PID_FILE).open(encoding="utf-8", errors="replace") as file:
                lines = file.read(8192).splitlines()
            pid = abs(int(lines[0]))
        except (OSError, ValueError, IndexError):
            return None
        socket = lines[4].strip() if len(lines) > 4 else ""
        state = lines[7].strip() if len(lines) > 7 else ""
        return cls(pid, Path(socket) if socket else None, state)


def running_server(data: Path, account: Account) -> psutil.Process | None:
    """The server of this data directory, if one is alive."""
    file = PostmasterFile.read(data)
    if file is None:
        return None
    try:
        process = psutil.Process(file.pid)
    except psutil.NoSuchProcess:
        return None
    return process if _works_in(process, data, account) else None


def leftover_processes(data: Path, account: Account) -> list[psutil.Process]:
    """Processes of a server whose first process is gone: they still hold its shared memory."""
    return [process for process in psutil.process_iter() if _works_in(process, data, account)]


def remove_stale_file(data: Path) -> None:
    """Remove ``postmaster.pid``; call only after making sure that no process works there.

    PostgreSQL does this itself, except where the number was given to another process of the
    same user: then it refuses to start.
    """
    (data / _PID_FILE).unlink(missing_ok=True)


def _works_in(process: psutil.Process, data: Path, account: Account) -> bool:
    try:
        if process.status() == psutil.STATUS_ZOMBIE or process.uids().effective != account.uid:
            return False
        return process.name().startswith("postgres") and Path(process.cwd()) == data
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return False
