"""Closes and what they found: usage records, their segments, and who claimed them."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, ForeignKey, Index, Table, UniqueConstraint

from meterpost.storage.tables.base import (
    METADATA,
    SCHEMA,
    bigint,
    identity,
    json,
    moment,
    number,
    small,
    text,
)

#: Meters and workflows as they were, so that a close can be repeated years later.
CONFIG_SNAPSHOT = Table(
    "config_snapshot",
    METADATA,
    text("digest", primary_key=True),
    json("content"),
    moment("recorded_at"),
    text("actor"),
)

#: The frame of a calculation, stored before the first usage record. State: open, computed,
#: staged. ``basis``: why there is an nth close (first, masterdata, late).
CLOSE = Table(
    "close",
    METADATA,
    identity(),
    text("workflow"),
    text("purpose"),
    text("legal_entity"),
    text("accounting_period"),
    small("n"),
    text("basis"),
    json("cutoff"),
    bigint("masterdata_rev"),
    text("config_digest", ForeignKey(f"{SCHEMA}.config_snapshot.digest")),
    text("state"),
    text("requested_by"),
    moment("requested_at"),
    moment("computed_at", nullable=True),
    moment("staged_at", nullable=True),
    json("counts", server_default="{}"),
    text("correlation_id"),
    UniqueConstraint("workflow", "legal_entity", "accounting_period", "n"),
    CheckConstraint("state IN ('open', 'computed', 'staged')", name="state"),
)

#: Quantity of one meter for one contract line, or for one subject nobody owns yet, in one
#: billing period. A revision is written only when something changed; ``removed`` marks the
#: revision that takes away a record whose line or subject no longer has that period.
USAGE_RECORD = Table(
    "usage_record",
    METADATA,
    identity(),
    bigint("close_id", ForeignKey(f"{SCHEMA}.close.id")),
    text("purpose"),
    text("legal_entity"),
    text("accounting_period"),
    text("meter"),
    text("line", server_default=""),
    text("source", server_default=""),
    text("subject", server_default=""),
    moment("period_start"),
    moment("period_end"),
    small("revision"),
    text("fate"),
    number("quantity"),
    text("unit"),
    bigint("events"),
    number("total", nullable=True),
    number("minimum", nullable=True),
    number("maximum", nullable=True),
    bigint("distinct_count", nullable=True),
    number("latest", nullable=True),
    text("digest"),
    UniqueConstraint("close_id", "meter", "line", "source", "subject", "period_start"),
    UniqueConstraint("purpose", "meter", "line", "source", "subject", "period_start", "revision"),
    CheckConstraint(
        "fate IN ('billable', 'unmatched', 'no_contract', 'no_price', 'removed')", name="fate"
    ),
    Index(None, "legal_entity", "accounting_period"),
)

#: What a usage record is made of; the way down to events.
USAGE_SEGMENT = Table(
    "usage_segment",
    METADATA,
    bigint("usage_record_id", ForeignKey(f"{SCHEMA}.usage_record.id"), primary_key=True),
    small("ordinal", primary_key=True),
    text("source"),
    text("subject"),
    moment("start_at"),
    moment("end_at"),
    json("dimensions"),
    bigint("events"),
    number("total", nullable=True),
    number("minimum", nullable=True),
    number("maximum", nullable=True),
    bigint("distinct_count", nullable=True),
    number("latest", nullable=True),
    text("digest"),
    Index(None, "subject", "source"),
)

#: A usage record serves a purpose once: one row per line and period, pointing to one revision
#: and to the transaction that carries it. Withdrawal deletes the row.
CLAIM = Table(
    "claim",
    METADATA,
    text("purpose", primary_key=True),
    text("meter", primary_key=True),
    text("line", primary_key=True),
    moment("period_start", primary_key=True),
    bigint("usage_record_id", ForeignKey(f"{SCHEMA}.usage_record.id"), unique=True),
    bigint("transaction_id", ForeignKey(f"{SCHEMA}.staged_transaction.id")),
    moment("claimed_at"),
    Index(None, "transaction_id"),
)
