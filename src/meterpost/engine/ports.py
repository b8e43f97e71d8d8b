"""What the engine needs of the wired application."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from meterpost.core.clock import Clock
from meterpost.metering.model import Position

if TYPE_CHECKING:
    from meterpost.operations.registry import Context, Progress


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: the holder of an API key, or a named person at this machine's command line.

    The socket admits only the user who runs the engine (and root), so a named person is
    believed as far as that user is; roles still come from the database.
    """

    token: str | None = None
    user: str | None = None

    def __repr__(self) -> str:
        return f"Caller(token={'***' if self.token else None}, user={self.user!r})"


@dataclass(frozen=True, slots=True)
class Job:
    """Something the engine does again and again, in a thread of its own.

    ``run_once`` does one bounded step and says whether there was work; then it is called again
    at once, otherwise after ``interval_s``. It raises `Transient` to be called again soon, and
    `Permanent` or `NeedsPerson` where a person has to act: the job then counts as failed and is
    tried again every minute, so that it goes on by itself once that was done.
    """

    name: str
    run_once: Callable[[], bool]
    interval_s: float = 0.1

    def __post_init__(self) -> None:
        if not self.interval_s > 0:
            raise ValueError(f"job {self.name}: the interval must be positive")


class EngineApplication(Protocol):
    """The application as the engine sees it. Called from several threads after `open_events`."""

    @property
    def clock(self) -> Clock:
        """The time."""
        ...

    def open_events(self) -> None:
        """Open the event store and apply the meters; the engine holds its lock already.

        Raises: whatever keeps the engine from working.
        """
        ...

    def position(self) -> Position | None:
        """The journal position that the event store includes; None before the first drain."""
        ...

    def jobs(self, stopping: threading.Event) -> Sequence[Job]:
        """What to do while running. A job that works through much in one round looks at
        ``stopping`` between its steps (`jobs.drain_job`).
        """
        ...

    def context(self, caller: Caller, correlation_id: str, progress: Progress) -> Context:
        """What an operation is handed.

        Raises: NotAuthenticated for an unknown key or person.
        """
        ...

    def close(self) -> None:
        """Checkpoint and let go of the event store and the database. Nothing uses it any more."""
        ...
