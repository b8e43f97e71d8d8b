"""Typed names of things, and the keys that follow from meaning."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import NewType, Protocol

from meterpost.core.canonical import canonical_json, crockford

CustomerId = NewType("CustomerId", str)
SubscriptionId = NewType("SubscriptionId", str)
ContractId = NewType("ContractId", str)
ContractLineId = NewType("ContractLineId", str)
ItemId = NewType("ItemId", str)
PriceId = NewType("PriceId", str)
LegalEntityId = NewType("LegalEntityId", str)
MeterId = NewType("MeterId", str)
TargetId = NewType("TargetId", str)
UserId = NewType("UserId", str)
CloseId = NewType("CloseId", int)
UsageRecordId = NewType("UsageRecordId", int)
TransactionId = NewType("TransactionId", int)
CallId = NewType("CallId", int)
ReceiptId = NewType("ReceiptId", int)
ExceptionId = NewType("ExceptionId", int)
PostingKey = NewType("PostingKey", str)

#: Usage whose customer is unknown belongs to this entity until someone links it.
UNASSIGNED = LegalEntityId("unassigned")


@dataclass(frozen=True, slots=True)
class PostingKeyParts:
    """What a posting key is made of; two documents with equal parts are the same document."""

    installation: str
    environment: str
    target: TargetId
    purpose: str
    business_key: str
    period_start: datetime
    period_end: datetime
    revision: int

    def key(self) -> PostingKey:
        """``U`` and 15 characters of Crockford's base32: fits the tightest vendor field."""
        hashed = hashlib.sha256(canonical_json(self)).digest()
        return PostingKey("U" + crockford(hashed, 15))


class Ids(Protocol):
    """A source of fresh identifiers."""

    def correlation_id(self) -> str:
        """A name for one incoming request or command, 26 characters."""
        ...


class RandomIds:
    """Unguessable identifiers from the operating system."""

    def correlation_id(self) -> str:
        """130 random bits in Crockford's base32."""
        return crockford(secrets.token_bytes(17), 26)
