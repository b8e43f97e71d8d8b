"""The right to open the event store, which one process has at a time.

DuckDB has a lock of its own; this one is asked first, since it can say who holds it.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from meterpost.core.errors import Conflict
from meterpost.engine.run_dir import RunDirectory
from meterpost.supervise.lock import WorkspaceLock


class EventStoreLock:
    """Held by the engine, or by a command that works without one. Freed when its holder dies."""

    def __init__(self, run_directory: RunDirectory) -> None:
        self._run_directory = run_directory
        self._lock = WorkspaceLock(run_directory.engine_lock)

    def __enter__(self) -> Self:
        self._run_directory.prepare()
        try:
            self._lock.acquire()
        except Conflict as exc:
            holder = self._run_directory.engine_lock.read_text(encoding="ascii").strip()
            raise Conflict(
                f"The event store is open in process {holder or 'unknown'}: an engine, or a "
                "command, of this workspace.",
                hint="Wait for it, ask the running engine, or stop `meterpost up` first.",
            ) from exc
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.release()
