"""What ingest needs from outside: a journal that keeps what it is given, a vault for personal
values, and the distance to the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Protocol

from meterpost.core.errors import MeterpostError
from meterpost.ingest.model import Recorded, Submission

#: What became of a submission: it is on disk, or it is not, or nobody knows (`OutcomeUnknown`).
Outcome = Recorded | MeterpostError

#: How many events the engine is behind the journal's end; answers at once, from memory.
Backlog = Callable[[], int]


class Recorder(Protocol):
    """Writes checked requests durably."""

    def submit(self, submission: Submission, done: Callable[[Outcome], None]) -> None:
        """Queue a submission; ``done`` is called exactly once, from another thread, and must
        return quickly. `Recorded` is given only after the data is on disk.

        Raises: Transient where the recorder is not running.
        """
        ...


class TokenVault(Protocol):
    """Random tokens in place of personal values, and the way back while a value is not erased."""

    def tokens(self, field: str, values: Collection[str]) -> Mapping[str, str]:
        """The token of each value of a field, made where there was none."""
        ...

    def find(self, field: str, value: str) -> str | None:
        """The token of a value, or None where it never came in."""
        ...

    def reveal(self, tokens: Iterable[str]) -> Mapping[str, str]:
        """The values behind tokens; erased and unknown tokens are absent."""
        ...

    def erase(self, field: str, value: str) -> str | None:
        """Forget a value for ever; the token that now stands for nobody, None if unknown."""
        ...
