"""Audit entries and the seals over them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


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
