"""What every part of one poster shares."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from meterpost.core.clock import Clock
from meterpost.posting.config import ConnectionConfig
from meterpost.posting.connector import ErpConnector
from meterpost.posting.ports import PostingStore, PostingStores
from meterpost.posting.throttle import BackOff


@dataclass(frozen=True, slots=True)
class BackOffs:
    """How long to wait after failures in a row, per kind of failure."""

    #: One transaction that the ERP could not take.
    transaction: BackOff = field(default_factory=lambda: BackOff(2.0, 900.0))
    #: The accounting period is closed; a person opens it, or the range allows a later day.
    closed_period: BackOff = field(default_factory=lambda: BackOff(300.0, 6 * 3600.0))
    #: The whole connection, so that an outage does not use up every transaction's attempts.
    connection: BackOff = field(default_factory=lambda: BackOff(1.0, 60.0))
    #: Look-ups of a document in doubt.
    probe: BackOff = field(default_factory=lambda: BackOff(1.0, 60.0))
    #: Checks whether refused credentials work again.
    credentials: BackOff = field(default_factory=lambda: BackOff(5.0, 300.0))


@dataclass(frozen=True, slots=True)
class Context:
    """One poster on one connection. ``poster`` names this process's poster in every call."""

    config: ConnectionConfig
    connector: ErpConnector
    stores: PostingStores
    clock: Clock
    poster: str
    back_offs: BackOffs = field(default_factory=BackOffs)

    @property
    def actor(self) -> str:
        """How the poster signs what it decides."""
        return f"poster:{self.config.name}"

    def take_permit(self, store: PostingStore) -> datetime | None:
        """None where we may ask the ERP now (a permit is taken), else when we may."""
        if self.config.rate_limit is None:
            return None
        now = self.clock.now()
        free = store.take_permit(self.config.name, self.config.rate_limit, now)
        return free if free > now else None

    def certain_from(self, send_before: datetime) -> datetime:
        """From when an empty look-up proves that a call never had an effect."""
        return send_before + timedelta(seconds=self.connector.capabilities.certain_absence_s)
