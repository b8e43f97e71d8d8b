"""What closes need from the operational database."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Protocol

from meterpost.audit.model import AuditEntry
from meterpost.core.ids import CloseId, LegalEntityId, UsageRecordId
from meterpost.staging.model import Finding
from meterpost.workflows.model import Close, CloseState
from meterpost.workflows.records import KnownRecord, RecordKey, UsageDraft


class CloseStore(Protocol):
    """One open database transaction: all of it stands, or nothing."""

    def lock_period(self, workflow: str, entity: LegalEntityId, accounting_period: str) -> None:
        """Keep other closes of the same period away until the transaction ends."""
        ...

    def latest(self, workflow: str, entity: LegalEntityId, accounting_period: str) -> Close | None:
        """The close with the highest n."""
        ...

    def get(self, close: CloseId) -> Close:
        """One close.

        Raises: NotFound.
        """
        ...

    def add(self, close: Close) -> Close:
        """Store a new frame; the close with its id."""
        ...

    def remember_config(
        self, digest: str, content: Mapping[str, object], actor: str, now: datetime
    ) -> None:
        """Keep the configuration under its digest; the first who brought it in stays named."""
        ...

    def config(self, digest: str) -> Mapping[str, object]:
        """The configuration of that digest.

        Raises: NotFound.
        """
        ...

    def masterdata_revision(self) -> int:
        """The latest master-data revision."""
        ...

    def known_records(self, close: Close) -> Mapping[RecordKey, KnownRecord]:
        """The latest revision of each usage record of the period, as of this close."""
        ...

    def add_records(
        self, close: Close, drafts: Sequence[tuple[UsageDraft, int]]
    ) -> Sequence[UsageRecordId]:
        """Store drafts with their revision numbers, and their segments, by COPY."""
        ...

    def advance(
        self, close: CloseId, state: CloseState, counts: Mapping[str, object], now: datetime
    ) -> None:
        """Note that a step is over, with what it counted."""
        ...

    def open_exceptions(self, findings: Sequence[Finding], now: datetime) -> None:
        """One open exception per finding."""
        ...

    def settle_exceptions(
        self,
        reason: str,
        entity: LegalEntityId,
        accounting_period: str,
        still: Iterable[str],
        now: datetime,
        *,
        why: str,
    ) -> int:
        """Close this period's open exceptions of this reason, but those about ``still``."""
        ...

    def record_audit(self, entry: AuditEntry) -> None:
        """Write an audit entry in this transaction."""
        ...


class CloseStores(Protocol):
    """Opens transactions."""

    def begin(self) -> AbstractContextManager[CloseStore]:
        """A transaction, committed on leaving and rolled back on any exception."""
        ...
