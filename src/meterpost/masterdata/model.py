"""What contracts, customers and the crosswalk look like, each valid for a span of time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime

from meterpost.core.ids import (
    ContractId,
    ContractLineId,
    CustomerId,
    ItemId,
    LegalEntityId,
    MeterId,
    PriceId,
    SubscriptionId,
)
from meterpost.core.period import BillingCycle, BillingInterval, Period
from meterpost.rating.model import PartialPeriod, Price, price_from_plain

#: Where validity starts when a record does not say: before anything anyone would bill.
BEGINNING = datetime(1900, 1, 1, tzinfo=UTC)
#: The end of validity that has no end. Stored as NULL.
FOREVER = datetime.max.replace(tzinfo=UTC)

#: The crosswalk's kind that leads from an event's subject to a subscription.
SUBJECT = "subject"
#: Kinds that lead from our ids to a target system's own; at any time one of theirs per ours.
TARGET_KINDS = ("customer", "item", "tax_category", "revenue_account", "payment_term")


@dataclass(frozen=True, slots=True, kw_only=True)
class Versioned:
    """One version: true in the world in [valid_from, valid_to), known from revision ``rev_from``
    until before ``rev_to``. None is an open end.
    """

    valid_from: datetime
    valid_to: datetime | None
    rev_from: int
    rev_to: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LegalEntity(Versioned):
    """A company of ours that issues documents and closes accounting periods."""

    id: LegalEntityId
    name: str
    currency: str
    zone: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Customer(Versioned):
    """Who pays."""

    id: CustomerId
    name: str
    tax_category: str | None
    payment_term: str | None
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Item(Versioned):
    """What is sold, in the words of the ERP's item list."""

    id: ItemId
    name: str
    unit: str
    tax_category: str | None
    revenue_account: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceEntry(Versioned):
    """A price and its definition, as `rating.price_from_plain` reads it."""

    id: PriceId
    currency: str
    definition: Mapping[str, object]

    def price(self) -> Price:
        """The price to rate by."""
        return price_from_plain(self.definition)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract(Versioned):
    """An agreement with one customer, billed by one legal entity in one currency and cycle."""

    id: ContractId
    customer: CustomerId
    legal_entity: LegalEntityId
    currency: str
    billing_interval: BillingInterval
    billing_anchor: date
    zone: str
    payment_term: str | None

    @property
    def cycle(self) -> BillingCycle:
        """How the contract cuts time into billing periods."""
        return BillingCycle(self.billing_interval, self.billing_anchor, self.zone)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractLine(Versioned):
    """One thing a contract bills: a meter's usage, or a fixed fee where ``meter`` is None."""

    id: ContractLineId
    contract: ContractId
    meter: MeterId | None
    item: ItemId
    price: PriceId | None
    tax_category: str | None
    revenue_account: str | None
    partial_period: PartialPeriod
    description: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription(Versioned):
    """What a customer uses; its usage is billed under the contract."""

    id: SubscriptionId
    customer: CustomerId
    contract: ContractId


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountingPeriod(Versioned):
    """A span a legal entity keeps its books by, ``open`` or ``closed``."""

    legal_entity: LegalEntityId
    id: str
    starts_at: datetime
    ends_at: datetime
    status: str

    @property
    def period(self) -> Period:
        """Its moments."""
        return Period(self.starts_at, self.ends_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class CrosswalkLink(Versioned):
    """(system, kind, external id) is our ``canonical_id``."""

    system: str
    kind: str
    external_id: str
    canonical_id: str


#: What one row of each entity becomes, by the name that import files use.
MODELS: Mapping[str, type[Versioned]] = {
    "legal_entities": LegalEntity,
    "customers": Customer,
    "items": Item,
    "prices": PriceEntry,
    "contracts": Contract,
    "contract_lines": ContractLine,
    "subscriptions": Subscription,
    "accounting_periods": AccountingPeriod,
    "crosswalk": CrosswalkLink,
}

#: What names one thing of each entity over all its versions.
KEYS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(MODELS, ("id",)),
    "accounting_periods": ("legal_entity", "id"),
    "crosswalk": ("system", "kind", "external_id"),
}


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """One stored row: its key, its other columns by name, and its validity."""

    row_id: int
    key: tuple[str, ...]
    values: Mapping[str, object]
    valid_from: datetime
    valid_to: datetime
    rev_from: int
    rev_to: int | None = None


@dataclass(frozen=True, slots=True)
class NewVersion:
    """One row to store under the next revision. ``valid_to`` is FOREVER where open."""

    key: tuple[str, ...]
    values: Mapping[str, object]
    valid_from: datetime
    valid_to: datetime


def as_model(entity: str, row: StoredVersion) -> Versioned:
    """The row as the dataclass of its entity."""
    values = dict(row.values)
    if entity == "contracts":
        values["billing_interval"] = BillingInterval(str(values["billing_interval"]))
    elif entity == "contract_lines":
        values["partial_period"] = PartialPeriod(str(values["partial_period"]))
    return MODELS[entity](
        **dict(zip(KEYS[entity], row.key, strict=True)),
        **values,
        valid_from=row.valid_from,
        valid_to=None if row.valid_to == FOREVER else row.valid_to,
        rev_from=row.rev_from,
        rev_to=row.rev_to,
    )
