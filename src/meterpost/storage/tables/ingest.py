"""The journal of accepted events, what was counted at the door, quarantine, personal tokens."""

from __future__ import annotations

from sqlalchemy import Boolean, CheckConstraint, Column, Index, LargeBinary, Table, UniqueConstraint

from meterpost.storage.tables.base import METADATA, bigint, identity, moment, small, text

#: Rows per journal partition; the writer creates the next one before it is needed.
JOURNAL_PARTITION_ROWS = 4_000_000

#: One row per accepted request. Partitioned by sequence; bodies are stored uncompressed and out
#: of line, since they are written once, read once and dropped by partition.
JOURNAL = Table(
    "journal",
    METADATA,
    bigint("sequence", primary_key=True, autoincrement=False),
    moment("recorded_at"),
    small("events"),
    text("correlation_id"),
    text("traceparent", nullable=True),
    text("api_key"),
    Column("body", LargeBinary, nullable=False),
    postgresql_partition_by="RANGE (sequence)",
)

#: The journal's counter. Writers lock the row to take sequences, so sequences become visible in
#: order and without gaps; a reader may therefore remember the highest one it saw.
JOURNAL_STATE = Table(
    "journal_state",
    METADATA,
    text("partition", primary_key=True),
    text("incarnation"),
    bigint("last_sequence"),
    bigint("dropped_rows", server_default="0"),
    bigint("dropped_events", server_default="0"),
    moment("started_at"),
    postgresql_with={"fillfactor": 10},
)

#: What callers were told, per source and hour of recording; written with the journal rows.
INTAKE_COUNT = Table(
    "intake_count",
    METADATA,
    moment("interval_start", primary_key=True),
    text("source", primary_key=True),
    bigint("received"),
    bigint("invalid"),
    bigint("accepted"),
)

#: Events refused at the door, bytes and all, with the reason the sender was given.
QUARANTINE = Table(
    "quarantine",
    METADATA,
    identity(),
    moment("recorded_at"),
    text("source"),
    text("event_id", nullable=True),
    small("index"),
    text("code"),
    text("field"),
    text("sentence"),
    Column("bytes", LargeBinary, nullable=False),
    text("correlation_id"),
    text("api_key"),
    moment("settled_at", nullable=True),
    text("settled_by", nullable=True),
    text("settlement", nullable=True),
    Index(None, "source", "recorded_at"),
)

#: token ↔ value of a personal field. Erasing the row makes every copy of the token anonymous.
PERSONAL_TOKEN = Table(
    "personal_token",
    METADATA,
    text("token", primary_key=True),
    text("field"),
    Column("lookup", LargeBinary, nullable=False),
    Column("ciphertext", LargeBinary, nullable=False),
    Column("wrapped_key", LargeBinary, nullable=False),
    moment("created_at"),
    UniqueConstraint("field", "lookup"),
)

#: What the event store told us through its outbox, so that telling it twice changes nothing.
RELAYED = Table(
    "relayed",
    METADATA,
    text("incarnation", primary_key=True),
    bigint("first_sequence", primary_key=True),
    small("ordinal", primary_key=True),
    text("kind"),
    moment("relayed_at"),
)

#: One row: which installation this database belongs to.
INSTALLATION = Table(
    "installation",
    METADATA,
    Column("one", Boolean, primary_key=True, server_default="true"),
    text("installation"),
    text("environment"),
    moment("created_at"),
    CheckConstraint("one", name="one_row"),
)
