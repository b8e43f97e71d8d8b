"""Advisory locks that several stores share; each has one name and one way to be taken."""

from __future__ import annotations

from sqlalchemy import Connection, text


def business_key_lock(purpose: str, business_key: str) -> str:
    """The name of the lock under which a business key's due is computed, sent and recorded."""
    return f"meterpost.business_key:{purpose}\x1f{business_key}"


def lock_business_key(connection: Connection, purpose: str, business_key: str) -> None:
    """Wait for the business key until this transaction ends.

    Take it before locking rows of `staged_transaction`, as everybody does.
    """
    connection.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"),
        {"name": business_key_lock(purpose, business_key)},
    )


def try_lock(connection: Connection, name: str) -> bool:
    """Whether the lock was free and is ours until this transaction ends."""
    return bool(
        connection.execute(
            text("SELECT pg_try_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": name}
        ).scalar_one()
    )
