"""People, their keys, and answers already given to repeated requests."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, ForeignKey, LargeBinary, Table, Text
from sqlalchemy.dialects.postgresql import ARRAY

from meterpost.storage.tables.base import METADATA, SCHEMA, moment, small, text

APP_USER = Table(
    "app_user",
    METADATA,
    text("id", primary_key=True),
    text("name"),
    Column("roles", ARRAY(Text), nullable=False),
    Column("active", Boolean, nullable=False, server_default="true"),
    moment("created_at"),
)

#: Only a hash of the secret is kept; secrets have 160 random bits, so a fast hash is enough.
API_KEY = Table(
    "api_key",
    METADATA,
    text("id", primary_key=True),
    text("user_id", ForeignKey(f"{SCHEMA}.app_user.id")),
    Column("secret_hash", LargeBinary, nullable=False),
    Column("scopes", ARRAY(Text), nullable=False),
    moment("created_at"),
    moment("expires_at", nullable=True),
    moment("revoked_at", nullable=True),
)

#: Answers of creating calls by Idempotency-Key, kept for a day.
IDEMPOTENCY = Table(
    "idempotency",
    METADATA,
    text("key", primary_key=True),
    text("api_key", primary_key=True),
    text("request_hash"),
    small("status", nullable=True),
    Column("body", LargeBinary, nullable=True),
    moment("created_at"),
)
