"""Who did what, sealed in order."""

from __future__ import annotations

from sqlalchemy import ForeignKey, Index, Table
from sqlalchemy import text as sql

from meterpost.storage.tables.base import (
    METADATA,
    SCHEMA,
    bigint,
    identity,
    json,
    moment,
    small,
    text,
)

#: Written in the transaction that decides; never changed. ``xid`` lets the sealer skip entries
#: of transactions that may still commit.
AUDIT_ENTRY = Table(
    "audit_entry",
    METADATA,
    identity("sequence"),
    moment("at"),
    text("actor"),
    text("action"),
    text("object_kind"),
    text("object_id"),
    json("detail"),
    text("correlation_id"),
    bigint("xid", server_default=sql("((pg_current_xact_id())::text)::bigint")),
    Index(None, "object_kind", "object_id"),
)

#: A Merkle root over a run of entries, chained to the seal before it.
AUDIT_SEAL = Table(
    "audit_seal",
    METADATA,
    bigint("n", primary_key=True, autoincrement=False),
    small("entries"),
    text("root"),
    text("previous"),
    text("hash"),
    moment("sealed_at"),
)

#: Which seal covers which entry, and at which place.
AUDIT_SEALED = Table(
    "audit_sealed",
    METADATA,
    bigint("sequence", ForeignKey(f"{SCHEMA}.audit_entry.sequence"), primary_key=True),
    bigint("seal", ForeignKey(f"{SCHEMA}.audit_seal.n")),
    small("place"),
    Index(None, "seal", "place"),
)
