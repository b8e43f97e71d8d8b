"""The port that every ERP connector implements (role ``erp``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Protocol

from meterpost.core.ids import PostingKey
from meterpost.posting.model import Capabilities, Document, ErpDocument, Health


class ErpConnector(Protocol):
    """Speaks one ERP. Never retries, never sees our database, holds no state that matters.

    Every method raises: Transient (certainly nothing happened: connection refused, 503 before
    work), Throttled (with ``after_s`` where the ERP says), Rejected / ClosedPeriod (understood
    and refused, nothing stored), Duplicate, NotAuthenticated, NotAllowed, OutcomeUnknown (the
    request was written and no clear answer came).
    """

    @property
    def capabilities(self) -> Capabilities:
        """What this connection can do."""
        ...

    def check(self) -> Health:
        """Whether address, credentials and rights suffice to post; a sentence if not."""
        ...

    def post(
        self, document: Document, key: PostingKey, posting_day: date, *, timeout_s: float
    ) -> ErpDocument:
        """Create one draft document with ``key`` as its reference, and what the ERP answered.

        ``timeout_s`` bounds the whole exchange; passing it raises OutcomeUnknown.
        """
        ...

    def find(self, keys: Sequence[PostingKey]) -> Mapping[PostingKey, Sequence[ErpDocument]]:
        """The documents that carry each key; a key without documents is absent from the result.

        More than one document for a key is returned as it is: the caller decides.
        """
        ...

    def read(self, document_ids: Sequence[str]) -> Mapping[str, ErpDocument]:
        """The documents as the ERP holds them now, with credits; missing ones are absent."""
        ...

    def records(self, first_day: date, last_day: date) -> Iterator[ErpDocument]:
        """Documents of ours (a posting key as reference) dated in these days, both included,
        drafts without a date too; for finding what has no receipt.
        """
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...
