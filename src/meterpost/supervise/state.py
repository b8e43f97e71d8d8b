"""The supervisor's state file: which processes run, since when, how often restarted."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

Phase = Literal["waiting", "starting", "ready", "restarting", "stopping", "stopped", "failed"]


@dataclass(frozen=True, slots=True)
class ChildState:
    """One child: ``pid`` while it runs, ``started_at`` of that run, restarts since `up`."""

    name: str
    phase: Phase
    pid: int | None = None
    started_at: datetime | None = None
    restarts: int = 0
    last_exit: str | None = None


@dataclass(frozen=True, slots=True)
class SupervisorState:
    """The whole, in order of start."""

    pid: int
    started_at: datetime
    phase: Phase
    children: tuple[ChildState, ...]

    def child(self, name: str) -> ChildState:
        """The child of that name. Raises: KeyError."""
        for child in self.children:
            if child.name == name:
                return child
        raise KeyError(name)

    def write(self, path: Path) -> None:
        """Replace the file whole: a reader sees the old state or the new one."""
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        aside.write_text(json.dumps(asdict(self), default=_plain, indent=1) + "\n")
        aside.replace(path)


def read_state(path: Path) -> SupervisorState | None:
    """The state as last written, or None where there is none.

    It may be of a supervisor that was killed: `meterpost.supervise.WorkspaceLock` tells.
    """
    try:
        raw = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    children = tuple(
        ChildState(**{**child, "started_at": _moment(child["started_at"])})
        for child in raw["children"]
    )
    return SupervisorState(
        raw["pid"], datetime.fromisoformat(raw["started_at"]), raw["phase"], children
    )


def _plain(value: object) -> str:
    assert isinstance(value, datetime)
    return value.astimezone(UTC).isoformat()


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
