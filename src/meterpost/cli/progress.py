"""Bars on standard error for long work; nothing where standard error is no terminal."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)


class Bars:
    """`operations.registry.Progress`: one bar per kind of unit, drawn on first use."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._visible = sys.stderr.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    def __call__(self, what: str, done: int, total: int | None) -> None:
        """``done`` of ``total`` (None: unknown) units of ``what``."""
        if not self._visible:
            return
        if self._progress is None:
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._progress.start()
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=total)
        self._progress.update(self._tasks[what], completed=done, total=total)

    def note(self, sentence: str) -> None:
        """A word about something that takes a moment."""
        if self._visible:
            sys.stderr.write(sentence.rstrip(".") + " …\n")

    def end(self) -> None:
        """Wipe the bars."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
            self._tasks.clear()
