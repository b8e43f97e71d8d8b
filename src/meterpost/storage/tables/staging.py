"""What should exist in a target, who decided it, and what cannot go on."""

from __future__ import annotations

from sqlalchemy import ForeignKey, Index, Table, UniqueConstraint

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

OPEN_STATES = (
    "proposed",
    "held",
    "in_review",
    "approved",
    "sending",
    "in_doubt",
    "deferred",
    "rejected",
)
_OPEN_SQL = ", ".join(f"'{state}'" for state in OPEN_STATES)

#: One revision of a business fact. ``amount`` is absolute (what should hold in the target),
#: ``due`` what this revision adds to what holds there; the document carries ``due``.
STAGED_TRANSACTION = Table(
    "staged_transaction",
    METADATA,
    identity(),
    text("posting_key", unique=True),
    text("purpose"),
    text("kind"),
    text("workflow"),
    text("target"),
    text("legal_entity"),
    text("accounting_period"),
    text("business_key"),
    text("customer"),
    moment("period_start"),
    moment("period_end"),
    small("revision"),
    bigint("close_id", ForeignKey(f"{SCHEMA}.close.id")),
    text("state"),
    text("currency"),
    number("amount"),
    number("due"),
    json("document", nullable=True),
    text("document_hash", nullable=True),
    small("attempts", server_default="0"),
    moment("not_before", nullable=True),
    small("version", server_default="1"),
    text("created_by"),
    moment("created_at"),
    moment("updated_at"),
    text("correlation_id"),
    UniqueConstraint("purpose", "business_key", "period_start", "revision"),
    Index(
        "uq_staged_transaction_one_open",
        "purpose",
        "business_key",
        "period_start",
        unique=True,
        postgresql_where=f"state IN ({_OPEN_SQL})",
    ),
    Index(None, "state", "target"),
    # What a poster takes next, in the order it takes it.
    Index(
        "ix_staged_transaction_queue",
        "target",
        "attempts",
        "id",
        postgresql_where="state = 'approved'",
    ),
    Index(None, "legal_entity", "accounting_period"),
)

#: One contract line's part of a transaction. ``held``: what the target holds for this line and
#: period before this revision; ``due`` = amount − held.
TRANSACTION_LINE = Table(
    "transaction_line",
    METADATA,
    bigint("transaction_id", ForeignKey(f"{SCHEMA}.staged_transaction.id"), primary_key=True),
    small("ordinal", primary_key=True),
    text("line"),
    text("meter", nullable=True),
    bigint("usage_record_id", ForeignKey(f"{SCHEMA}.usage_record.id"), nullable=True),
    text("item"),
    text("description"),
    text("unit"),
    number("quantity"),
    number("included"),
    number("charged"),
    text("price"),
    number("amount"),
    number("held"),
    number("due"),
    json("working"),
    text("tax_category", nullable=True),
    text("revenue_account", nullable=True),
    moment("service_from"),
    moment("service_to"),
    Index(None, "usage_record_id"),
    Index(None, "line"),
)

#: A decision about one rendered document, by a person or by a stated rule.
APPROVAL = Table(
    "approval",
    METADATA,
    identity(),
    bigint("transaction_id", ForeignKey(f"{SCHEMA}.staged_transaction.id")),
    text("document_hash"),
    text("decision"),
    text("person"),
    text("rule", nullable=True),
    number("cumulated"),
    text("reason"),
    moment("decided_at"),
    Index(None, "transaction_id"),
    UniqueConstraint("transaction_id", "document_hash", "person", "decision"),
)

#: Every step of every transaction's life.
TRANSITION = Table(
    "transition",
    METADATA,
    identity(),
    bigint("transaction_id", ForeignKey(f"{SCHEMA}.staged_transaction.id")),
    text("from_state", nullable=True),
    text("to_state"),
    text("reason"),
    text("actor"),
    moment("at"),
    Index(None, "transaction_id"),
)

#: A fact that cannot go on, with what it would be worth and who is to move it. ``estimate`` is
#: no part of any proof.
EXCEPTION = Table(
    "exception",
    METADATA,
    identity(),
    text("reason"),
    text("fact_kind"),
    text("fact"),
    text("legal_entity", nullable=True),
    text("accounting_period", nullable=True),
    text("sentence"),
    text("suggestion"),
    bigint("records"),
    number("estimate", nullable=True),
    text("currency", nullable=True),
    text("owner"),
    text("assignee", nullable=True),
    text("state"),
    json("detail"),
    moment("opened_at"),
    moment("seen_at"),
    moment("closed_at", nullable=True),
    text("closed_by", nullable=True),
    text("closing_reason", nullable=True),
    Index(
        "uq_exception_one_open", "reason", "fact", unique=True, postgresql_where="state = 'open'"
    ),
    Index(None, "state", "reason"),
)
