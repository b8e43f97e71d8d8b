"""Requests to ERPs, permits to make them, and the documents they led to."""

from __future__ import annotations

from sqlalchemy import Column, Date, ForeignKey, Index, Table, UniqueConstraint

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

#: One request to an ERP, reserved before it is written. Outcome is NULL while open.
CALL = Table(
    "call",
    METADATA,
    identity(),
    text("connection"),
    bigint("n"),
    text("purpose"),
    text("poster"),
    moment("reserved_at"),
    moment("send_before"),
    moment("finished_at", nullable=True),
    text("outcome", nullable=True),
    text("sentence", nullable=True),
    text("vendor_text", nullable=True),
    text("correlation_id"),
    UniqueConstraint("connection", "n"),
    Index("ix_call_open", "connection", postgresql_where="outcome IS NULL"),
)

#: What a request carried, with an outcome per item.
CALL_ITEM = Table(
    "call_item",
    METADATA,
    bigint("call_id", ForeignKey(f"{SCHEMA}.call.id"), primary_key=True),
    small("ordinal", primary_key=True),
    bigint("transaction_id", ForeignKey(f"{SCHEMA}.staged_transaction.id")),
    text("posting_key"),
    text("document_hash"),
    Column("posting_day", Date, nullable=False),
    text("outcome", nullable=True),
    Index(None, "transaction_id"),
)

#: A sliding log of permissions to send, so that rate limits survive fail-over.
PERMIT = Table(
    "permit",
    METADATA,
    identity(),
    text("connection"),
    moment("granted_at"),
    Index(None, "connection", "granted_at"),
)

#: The ERP document a transaction became, with a life of its own: draft, edited, numbered,
#: cancelled, credited, missing. ``held_net`` is what of it still holds, ``adjustment`` what a
#: person accepted as ERP − ours. ``comparison``: not_yet, equal, changed, missing.
RECEIPT = Table(
    "receipt",
    METADATA,
    identity(),
    text("target"),
    text("document_id"),
    bigint("transaction_id", ForeignKey(f"{SCHEMA}.staged_transaction.id"), unique=True),
    text("posting_key"),
    text("number", nullable=True),
    text("state"),
    text("currency"),
    Column("document_date", Date, nullable=True),
    number("net"),
    number("tax"),
    number("gross"),
    number("held_net"),
    number("adjustment", server_default="0"),
    text("comparison"),
    json("differences", server_default="[]"),
    json("document"),
    text("answer", nullable=True),
    moment("created_at"),
    moment("seen_at"),
    moment("compared_at", nullable=True),
    UniqueConstraint("target", "document_id"),
    Index(None, "posting_key"),
    Index(None, "number"),
)

#: What holds per contract line of a receipt, for the due of the next revision.
RECEIPT_LINE = Table(
    "receipt_line",
    METADATA,
    bigint("receipt_id", ForeignKey(f"{SCHEMA}.receipt.id"), primary_key=True),
    text("line", primary_key=True),
    number("posted"),
    number("held"),
    number("adjustment", server_default="0"),
)
