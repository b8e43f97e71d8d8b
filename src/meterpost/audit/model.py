"""Audit entries and the seals over them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from meterpost.core.problem import Problem


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One decision, written in the database transaction that makes it.

    ``action`` is past tense (``transaction.approved``); ``detail`` is plain JSON without
    secrets or personal data.
    """

    at: datetime
    actor: str
    action: str
    object_kind: str
    object_id: str
    detail: Mapping[str, object] = field(default_factory=dict)
    correlation_id: str = ""


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """An entry with the sequence it got when it was written."""

    sequence: int
    entry: AuditEntry


@dataclass(frozen=True, slots=True)
class Seal:
    """A run of entries under one Merkle root, chained to the seal before (docs/audit.md).

    ``root``, ``previous`` and ``hash`` are SHA-256 in hex. Seals count from 1.
    """

    n: int
    entries: int
    root: str
    previous: str
    hash: str
    sealed_at: datetime


@dataclass(frozen=True, slots=True)
class Frontier:
    """Where the log ends at one moment.

    ``oldest_running`` is the oldest transaction still running, ``next_transaction`` the first
    not yet begun, ``sequence`` the highest entry visible.
    """

    oldest_running: int
    next_transaction: int
    sequence: int


@dataclass(frozen=True, slots=True)
class SealedRun:
    """A seal with the entries it covers, by place: what `verify` recomputes the seal from."""

    seal: Seal
    entries: tuple[tuple[int, StoredEntry], ...]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A seal's hash, kept outside the database: what it names cannot be cut off unseen."""

    n: int
    hash: str
    sealed_at: datetime


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What verifying found. ``unsealed`` entries are the tail nobody has vouched for yet."""

    entries: int
    seals: int
    unsealed: int
    checkpoints: int
    problems: tuple[Problem, ...] = ()

    @property
    def intact(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


@dataclass(frozen=True, slots=True)
class InclusionProof:
    """Why an entry belongs to a seal: the hashes beside its way up to the root, in hex."""

    entry: StoredEntry
    seal: Seal
    place: int
    path: tuple[str, ...]
