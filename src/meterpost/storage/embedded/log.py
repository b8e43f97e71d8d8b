"""The server's log file: what it says while starting, its last words, and its size."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

LOG_BYTES_MAX = 16 * 1024 * 1024

_PREFIX = re.compile(r"^\S+ \S+ \S+ \[\d+\] (?:LOG|FATAL|PANIC|WARNING|ERROR|HINT):\s+")


def open_log(path: Path) -> int:
    """A file descriptor that appends to the log; the caller closes it."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(path, flags, 0o600)


def limit_log(path: Path, bytes_max: int = LOG_BYTES_MAX) -> bool:
    """Move a log that grew too large aside (one older one is kept); True if it did.

    The running server keeps its open file, so the content is copied and the file cut to zero:
    lines written in between are lost, the server is not disturbed.
    """
    try:
        if path.stat().st_size <= bytes_max:
            return False
    except FileNotFoundError:
        return False
    shutil.copy2(path, path.with_name(path.name + ".1"))
    os.truncate(path, 0)
    return True


class LogReader:
    """Reads what is appended from now on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = path.stat().st_size if path.exists() else 0
        self._partial = ""

    def new_lines(self) -> Iterator[str]:
        """Whole lines written since the last call, without time and process number."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._position)
                added = file.read(1024 * 1024)
        except FileNotFoundError:
            return
        self._position += len(added)
        *lines, self._partial = (self._partial + added.decode("utf-8", "replace")).split("\n")
        for line in lines:
            yield plain_line(line)


def plain_line(line: str) -> str:
    """The message of a log line."""
    return _PREFIX.sub("", line).strip()


def last_lines(path: Path, count: int = 8) -> str:
    """The end of the log, for an error message."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 8192))
            text = file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return "(it wrote no log)"
    lines = [line for line in map(plain_line, text.splitlines()) if line]
    return " | ".join(lines[-count:]) or "(its log is empty)"
