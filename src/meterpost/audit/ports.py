"""What sealing and verifying need of a store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from meterpost.audit.model import Checkpoint, Frontier, Seal, SealedRun, StoredEntry


class Sealing(Protocol):
    """One transaction of the only sealer there is at the moment."""

    def last(self) -> Seal | None:
        """The newest seal."""
        ...

    def frontier(self) -> Frontier:
        """Where the log ends now."""
        ...

    def sealable(self, limit: int, above: int) -> Sequence[StoredEntry]:
        """Unsealed entries of transactions older than every running one, by sequence.

        Only sequences ``above`` are looked at.
        """
        ...

    def add(self, seal: Seal, sequences: Sequence[int]) -> None:
        """Store a seal and which entry has which place in it."""
        ...

    def since(self, n: int) -> Iterator[Seal]:
        """Seals after the nth, in order."""
        ...


class AuditReading(Protocol):
    """One unchanging view of the log."""

    def runs(self) -> Iterator[SealedRun]:
        """Every seal with its entries, in order."""
        ...

    def unsealed(self) -> Iterator[StoredEntry]:
        """Entries without a seal, by sequence."""
        ...

    def run_of(self, sequence: int) -> SealedRun | None:
        """The seal over an entry with all it covers; None while it is unsealed or unknown."""
        ...


class AuditStore(Protocol):
    """The log in the operational database."""

    def sealing(self) -> AbstractContextManager[Sealing]:
        """A transaction that waits for, and then excludes, any other sealer."""
        ...

    def reading(self) -> AbstractContextManager[AuditReading]:
        """A snapshot to verify or export."""
        ...


class Checkpoints(Protocol):
    """Hashes of seals, kept outside the database."""

    def read(self) -> Sequence[Checkpoint]:
        """All of them, in the order they were written.

        Raises: InvalidInput when they cannot be read.
        """
        ...

    def last(self) -> Checkpoint | None:
        """The newest, without reading the others. Raises: as `read`."""
        ...

    def append(self, checkpoints: Sequence[Checkpoint]) -> None:
        """Add some; they are on disk when this returns."""
        ...
