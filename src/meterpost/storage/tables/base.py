"""What every table shares: the schema, constraint names, and short column constructors."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Column, DateTime, Identity, Integer, MetaData, Numeric, Text
from sqlalchemy.dialects.postgresql import JSONB

SCHEMA = "meterpost"

METADATA = MetaData(
    schema=SCHEMA,
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    },
)


def identity(name: str = "id") -> Column[int]:
    """A generated 64-bit primary key."""
    return Column(name, BigInteger, Identity(always=False), primary_key=True)


def text(name: str, *args: Any, nullable: bool = False, **kw: Any) -> Column[str]:
    """Text, required unless said otherwise."""
    return Column(name, Text, *args, nullable=nullable, **kw)


def moment(name: str, *args: Any, nullable: bool = False, **kw: Any) -> Column[Any]:
    """An instant with time zone."""
    return Column(name, DateTime(timezone=True), *args, nullable=nullable, **kw)


def number(name: str, *args: Any, nullable: bool = False, **kw: Any) -> Column[Any]:
    """An exact number of any size: money, quantities, components."""
    return Column(name, Numeric, *args, nullable=nullable, **kw)


def bigint(name: str, *args: Any, nullable: bool = False, **kw: Any) -> Column[int]:
    """A 64-bit integer."""
    return Column(name, BigInteger, *args, nullable=nullable, **kw)


def small(name: str, *args: Any, nullable: bool = False, **kw: Any) -> Column[int]:
    """A 32-bit integer."""
    return Column(name, Integer, *args, nullable=nullable, **kw)


def json(name: str, *args: Any, nullable: bool = False, **kw: Any) -> Column[Any]:
    """A JSON document."""
    return Column(name, JSONB, *args, nullable=nullable, **kw)
