"""Checkpoints in a file of one JSON object per line, which people copy to another place."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from meterpost.audit.model import Checkpoint
from meterpost.core.canonical import canonical_json
from meterpost.core.clock import require_utc
from meterpost.core.errors import InvalidInput
from meterpost.core.problem import Problem

#: More than two lines take.
_TAIL_BYTES = 1024


class CheckpointFile:
    """``checkpoints.jsonl``: only ever appended to, synced after each write."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Sequence[Checkpoint]:
        """All checkpoints; none while there is no file.

        A last line without its end is what a crash left of an append and is passed over: its
        seal is in the database and gets its line with the next one.
        Raises: InvalidInput naming the lines that are none.
        """
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        except UnicodeDecodeError as exc:
            raise InvalidInput(f"{self.path} is not UTF-8 text.") from exc
        found, problems = [], []
        for number, line in enumerate(text.splitlines(keepends=True), 1):
            if not line.endswith("\n"):
                break
            try:
                found.append(_checkpoint(line))
            except (ValueError, KeyError, TypeError):
                problems.append(
                    Problem("checkpoint", "This is no checkpoint.", f"{self.path}:{number}")
                )
        if problems:
            raise InvalidInput("The checkpoints cannot be read:", problems)
        return found

    def last(self) -> Checkpoint | None:
        """The newest, from the file's end. Raises: InvalidInput when that is none."""
        try:
            tail = self._tail()
        except FileNotFoundError:
            return None
        lines = tail[: tail.rfind(b"\n") + 1].splitlines()
        if not lines:
            return None
        try:
            return _checkpoint(lines[-1])
        except (ValueError, KeyError, TypeError) as exc:
            raise InvalidInput(f"The last line of {self.path} is no checkpoint.") from exc

    def append(self, checkpoints: Sequence[Checkpoint]) -> None:
        """Write and sync; a piece of line that a crash left is cut off first."""
        if not checkpoints:
            return
        new = not self.path.exists()
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self.path.open("ab+") as file:
            end = file.seek(0, os.SEEK_END)
            file.truncate(self._end_of_last_line(end))
            for checkpoint in checkpoints:
                file.write(canonical_json(checkpoint) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        if new:
            self._sync_folder()

    def _end_of_last_line(self, end: int) -> int:
        tail = self._tail()
        return end - (len(tail) - (tail.rfind(b"\n") + 1))

    def _tail(self) -> bytes:
        with self.path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            return file.read()

    def _sync_folder(self) -> None:
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _checkpoint(line: str | bytes) -> Checkpoint:
    plain = json.loads(line)
    n, hashed, sealed_at = plain["n"], plain["hash"], plain["sealed_at"]
    if not isinstance(n, int) or isinstance(n, bool) or len(bytes.fromhex(hashed)) != 32:
        raise ValueError("not a checkpoint")
    return Checkpoint(n, hashed, require_utc(datetime.fromisoformat(sealed_at)))
