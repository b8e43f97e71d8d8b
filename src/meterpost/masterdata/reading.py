"""Records into statements: every entity's own fields, defaults and limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime

from meterpost.core.period import BillingInterval, Period, zone_info
from meterpost.core.problem import Problem
from meterpost.masterdata.fields import NAME_MAX, FieldReader
from meterpost.masterdata.known import Surroundings
from meterpost.masterdata.model import BEGINNING, FOREVER, KEYS, SUBJECT, TARGET_KINDS
from meterpost.masterdata.record import VALIDITY_KEYS, Record
from meterpost.masterdata.timeline import Statement, Values
from meterpost.rating.model import PartialPeriod, price_from_plain, price_problems

#: An anchor for contracts that only say how long a billing period is: the first of the month.
DEFAULT_ANCHOR = date(2000, 1, 1)

_PRICE_FIELDS = (
    "id currency model unit_price flat_amount tiers package_size package_price included minimum"
).split()

#: The fields of each entity's records, apart from those that state validity.
FIELDS: Mapping[str, tuple[str, ...]] = {
    "legal_entities": ("id", "name", "currency", "zone"),
    "customers": ("id", "name", "tax_category", "payment_term", "status"),
    "items": ("id", "name", "unit", "tax_category", "revenue_account"),
    "prices": tuple(_PRICE_FIELDS),
    "contracts": (
        "id",
        "customer",
        "legal_entity",
        "currency",
        "billing_interval",
        "billing_anchor",
        "zone",
        "payment_term",
        "lines",
    ),
    "contract_lines": (
        "id",
        "contract",
        "meter",
        "item",
        "price",
        "tax_category",
        "revenue_account",
        "partial_period",
        "description",
    ),
    "subscriptions": ("id", "customer", "contract"),
    "accounting_periods": ("legal_entity", "id", "starts_at", "ends_at", "status"),
    "crosswalk": ("system", "kind", "external_id", "canonical_id", "personal"),
}


@dataclass(frozen=True, slots=True)
class Parsed:
    """A record understood: what it says about which thing."""

    record: Record
    key: tuple[str, ...]
    statement: Statement
    personal: bool = False


def read_record(record: Record, around: Surroundings, problems: list[Problem]) -> Parsed | None:
    """What the record says; None where it cannot be used, and why in ``problems``."""
    fields = FieldReader(record, problems)
    fields.refuse_unknown((*FIELDS[record.entity], *VALIDITY_KEYS))
    key = _key(fields)
    zone = _zone(fields, around)
    ends = fields.flag("ends")
    valid_from, valid_to = fields.moment("valid_from", zone), fields.moment("valid_to", zone)
    personal = record.entity == "crosswalk" and fields.flag("personal")
    if ends:
        if valid_to is None and valid_from is not None:
            fields.complain(
                "ambiguous-end",
                "ends",
                "needs the end in valid_to, not valid_from.",
                "Without either, the record is withdrawn altogether.",
            )
        if fields.failed or key is None:
            return None
        return Parsed(
            record, key, Statement(valid_to or BEGINNING, FOREVER, None, record.where), personal
        )
    values = _READERS[record.entity](fields, around, zone)
    start, end = valid_from or BEGINNING, valid_to or FOREVER
    if start >= end and not fields.failed:
        fields.complain(
            "bad-interval",
            "valid_to",
            f"({end.isoformat()}) is not after valid_from ({start.isoformat()}).",
        )
    if fields.failed or key is None:
        return None
    return Parsed(record, key, Statement(start, end, values, record.where), personal)


def _key(fields: FieldReader) -> tuple[str, ...] | None:
    parts: list[str | None]
    if fields.record.entity == "crosswalk":
        parts = [
            fields.text("system", required=True),
            fields.choice("kind", (SUBJECT, *TARGET_KINDS)),
            fields.text("external_id", required=True),
        ]
    else:
        parts = [fields.id(name, required=True) for name in KEYS[fields.record.entity]]
    found = tuple(part for part in parts if part is not None)
    return found if len(found) == len(parts) else None


def _zone(fields: FieldReader, around: Surroundings) -> str:
    own = fields.zone()
    for zone in (own, around.zone(fields.record), fields.record.zone):
        if zone is not None:
            try:
                zone_info(zone)
            except ValueError:
                continue  # complained about where it is written
            return zone
    return "UTC"


def _legal_entity(fields: FieldReader, around: Surroundings, zone: str) -> Values:
    for name in ("currency", "zone"):
        if not fields.record.values.get(name):
            fields.complain("missing", name, "is missing.")
    return {
        "name": _name(fields),
        "currency": fields.currency(),
        "zone": zone,
    }


def _customer(fields: FieldReader, around: Surroundings, zone: str) -> Values:
    return {
        "name": _name(fields),
        "tax_category": fields.id("tax_category"),
        "payment_term": fields.id("payment_term"),
        "status": fields.choice("status", ("active", "inactive"), "active"),
    }


def _item(fields: FieldReader, around: Surroundings, zone: str) -> Values:
    return {
        "name": _name(fields),
        "unit": fields.text("unit", required=True),
        "tax_category": fields.id("tax_category"),
        "revenue_account": fields.id("revenue_account"),
    }


def _name(fields: FieldReader) -> str | None:
    return fields.text("name", limit=NAME_MAX) or fields.text("id")


def _price(fields: FieldReader, around: Surroundings, zone: str) -> Values:
    record = fields.record
    plain = {name: record.values[name] for name in _PRICE_FIELDS if name in record.values}
    plain["id"] = fields.id("id")
    if not plain.get("currency"):
        plain["currency"] = around.of_contract(record.contract, "currency")
    problems = price_problems(plain)
    for problem in problems:
        name = problem.where.split(".")[0].split("[")[0]
        where = record.places.get(name, record.where)
        fields.failed = True
        fields.problems.append(
            Problem(problem.code, f"{problem.where} {problem.sentence}", where, problem.hint)
        )
    if problems:
        return {}
    price = price_from_plain(plain)
    return {"currency": price.currency, "definition": price.to_plain()}


def _contract(fields: FieldReader, around: Surroundings, zone: str) -> Values:
    entity = fields.id("legal_entity", required=True)
    customer = fields.id("customer", required=True)
    currency = fields.currency() or around.of("legal_entities", entity, "currency")
    if currency is None and not fields.failed:
        fields.complain("missing", "currency", "is missing, and the legal entity names none.")
    return {
        "customer": customer,
        "legal_entity": entity,
        "currency": currency,
        "billing_interval": fields.choice("billing_interval", list(BillingInterval), "month"),
        "billing_anchor": fields.day("billing_anchor") or DEFAULT_ANCHOR,
        "zone": zone,
        "payment_term": fields.id("payment_term"),
    }


def _contract_line(fields: FieldReader, around: Surroundings, zone: str) -> Values:
    return {
        "contract": fields.id("contract", required=True),
        "meter": fields.id("meter"),
        "item": fields.id("item", required=True),
        "price": fields.id("price"),
        "tax_category": fields.id("tax_category"),
        "revenue_account": fields.id("revenue_account"),
        "partial_period": fields.choice("partial_period", list(PartialPeriod), "by_time"),
        "description": fields.text("description", limit=NAME_MAX),
    }


def _subscription(fields: FieldReader, around: Surroundings, zone: str) -> Values:
    contract = fields.id("contract", required=True)
    customer = fields.id("customer") or around.of("contracts", contract, "customer")
    if customer is None and not fields.failed:
        fields.complain("missing", "customer", "is missing, and the contract names none.")
    return {"customer": customer, "contract": contract}


def _accounting_period(fields: FieldReader, around: Surroundings, zone: str) -> Values:
    starts_at, ends_at = fields.moment("starts_at", zone), fields.moment("ends_at", zone)
    if not fields.failed and (starts_at is None or ends_at is None):
        starts_at, ends_at = _month(fields, starts_at or ends_at, zone)
    if starts_at and ends_at and starts_at >= ends_at:
        fields.complain(
            "bad-interval", "ends_at", f"({ends_at}) is not after starts_at ({starts_at})."
        )
    return {
        "starts_at": starts_at,
        "ends_at": ends_at,
        "status": fields.choice("status", ("open", "closed"), "open"),
    }


def _month(
    fields: FieldReader, half: datetime | None, zone: str
) -> tuple[datetime | None, datetime | None]:
    """The period that an id such as 2026-10 names."""
    try:
        if half is None:
            month = Period.month(str(fields.record.values.get("id")), zone)
            return month.start, month.end
    except ValueError:
        pass
    fields.complain(
        "missing",
        "starts_at",
        "and ends_at are both needed.",
        "They may be left out where the id is a month such as 2026-10.",
    )
    return None, None


def _crosswalk(fields: FieldReader, around: Surroundings, zone: str) -> Values:
    kind = fields.record.values.get("kind")
    # Our own categories and accounts are whatever customers, items and lines call them.
    return {"canonical_id": fields.id("canonical_id", required=True) if kind else None}


_READERS = {
    "legal_entities": _legal_entity,
    "customers": _customer,
    "items": _item,
    "prices": _price,
    "contracts": _contract,
    "contract_lines": _contract_line,
    "subscriptions": _subscription,
    "accounting_periods": _accounting_period,
    "crosswalk": _crosswalk,
}
