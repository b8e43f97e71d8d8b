"""Bitemporal master data: valid time for the world, revisions for what we knew.

A row holds from ``valid_from`` to ``valid_to`` (NULL: open) and is part of what we knew from
revision ``rev_from`` up to, not including, ``rev_to`` (NULL: still). Rows are never changed,
only superseded; so any past revision can be read again.
"""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, Date, ForeignKey, Identity, Index, Table
from sqlalchemy.sql.schema import SchemaItem

from meterpost.storage.tables.base import METADATA, SCHEMA, bigint, json, moment, text

REVISION = Table(
    "masterdata_revision",
    METADATA,
    bigint("rev", Identity(always=False), primary_key=True),
    moment("recorded_at"),
    text("actor"),
    text("source"),
    json("report"),
)


def _bitemporal(name: str, *columns: SchemaItem, key: tuple[str, ...] = ("id",)) -> Table:
    return Table(
        name,
        METADATA,
        bigint("row_id", Identity(always=False), primary_key=True),
        *columns,
        moment("valid_from"),
        moment("valid_to", nullable=True),
        bigint("rev_from", ForeignKey(f"{SCHEMA}.masterdata_revision.rev")),
        bigint("rev_to", ForeignKey(f"{SCHEMA}.masterdata_revision.rev"), nullable=True),
        CheckConstraint("valid_to IS NULL OR valid_from < valid_to", name="validity"),
        Index(f"ix_{name}_current", *key, postgresql_where="rev_to IS NULL"),
        Index(f"ix_{name}_revision", "rev_from", "rev_to"),
    )


LEGAL_ENTITY = _bitemporal("legal_entity", text("id"), text("name"), text("currency"), text("zone"))

CUSTOMER = _bitemporal(
    "customer",
    text("id"),
    text("name"),
    text("tax_category", nullable=True),
    text("payment_term", nullable=True),
    text("status", server_default="active"),
)

ITEM = _bitemporal(
    "item",
    text("id"),
    text("name"),
    text("unit"),
    text("tax_category", nullable=True),
    text("revenue_account", nullable=True),
)

PRICE = _bitemporal("price", text("id"), text("currency"), json("definition"))

CONTRACT = _bitemporal(
    "contract",
    text("id"),
    text("customer"),
    text("legal_entity"),
    text("currency"),
    text("billing_interval"),
    Column("billing_anchor", Date, nullable=False),
    text("zone"),
    text("payment_term", nullable=True),
)

CONTRACT_LINE = _bitemporal(
    "contract_line",
    text("id"),
    text("contract"),
    text("meter", nullable=True),
    text("item"),
    text("price", nullable=True),
    text("tax_category", nullable=True),
    text("revenue_account", nullable=True),
    text("partial_period"),
    text("description", nullable=True),
)

SUBSCRIPTION = _bitemporal("subscription", text("id"), text("customer"), text("contract"))

ACCOUNTING_PERIOD = _bitemporal(
    "accounting_period",
    text("legal_entity"),
    text("id"),
    moment("starts_at"),
    moment("ends_at"),
    text("status"),
    key=("legal_entity", "id"),
)

#: (system, kind, external id) ↔ our id. Kind ``subject`` leads to a subscription; ``customer``,
#: ``item``, ``tax_category``, ``revenue_account``, ``payment_term`` lead to an ERP's own ids.
CROSSWALK = _bitemporal(
    "crosswalk",
    text("system"),
    text("kind"),
    text("external_id"),
    text("canonical_id"),
    key=("system", "kind", "external_id"),
)
#: From our id to theirs.
Index(
    "ix_crosswalk_canonical",
    CROSSWALK.c.system,
    CROSSWALK.c.kind,
    CROSSWALK.c.canonical_id,
    postgresql_where=CROSSWALK.c.rev_to.is_(None),
)

#: The bitemporal tables by the name that import files and reports use.
ENTITIES: dict[str, Table] = {
    "legal_entities": LEGAL_ENTITY,
    "customers": CUSTOMER,
    "items": ITEM,
    "prices": PRICE,
    "contracts": CONTRACT,
    "contract_lines": CONTRACT_LINE,
    "subscriptions": SUBSCRIPTION,
    "accounting_periods": ACCOUNTING_PERIOD,
    "crosswalk": CROSSWALK,
}
