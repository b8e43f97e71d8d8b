"""Documents as we render them, documents as an ERP holds them, and what lies between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum

from meterpost.core.canonical import digest, to_plain
from meterpost.core.ids import PostingKey, TargetId


@dataclass(frozen=True, slots=True)
class Precision:
    """How many decimals a vendor's fields keep; None means no limit that matters."""

    quantity_decimals: int | None = None
    price_decimals: int | None = None


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a connector can do for one kind of transaction; posting chooses by it.

    ``request_limit_s`` is the longest the server works on one request, ``visibility_s`` the
    longest a committed document stays hidden from look-ups, ``margin_s`` what we add: absence
    counts only after ``send_before`` plus all three.
    """

    kinds: tuple[str, ...]
    native_keys: bool = False
    unique_reference: bool = False
    search: bool = True
    drafts: bool = True
    batch_max: int = 1
    precision: Precision = field(default_factory=Precision)
    priced_by: str = "us"
    request_limit_s: float = 60.0
    visibility_s: float = 0.0
    margin_s: float = 5.0

    @property
    def certain_absence_s(self) -> float:
        """Seconds after ``send_before`` from which an empty look-up proves absence."""
        return self.request_limit_s + self.visibility_s + self.margin_s


@dataclass(frozen=True, slots=True)
class DocumentLine:
    """One line as it will be sent. ``reference`` names our contract line in the ERP's line text."""

    ordinal: int
    reference: str
    item: str
    description: str
    quantity: Decimal
    unit_price: Decimal
    amount: Decimal
    account: str | None
    tax_code: str | None
    service_from: date
    service_to: date


@dataclass(frozen=True, slots=True)
class Document:
    """What an approval binds to: everything the ERP will be told, in the ERP's own ids.

    ``net`` is the sum of the line amounts in ``currency``; the posting day is chosen when
    sending, within [date_from, date_to].
    """

    connection: TargetId
    kind: str
    customer: str
    currency: str
    description: str
    lines: tuple[DocumentLine, ...]
    net: Decimal
    date_from: date
    date_to: date
    payment_term: str | None
    mapping_digest: str
    config_digest: str

    @property
    def hash(self) -> str:
        """Changes with anything an approver would care about."""
        return digest(self)

    def to_plain(self) -> dict[str, object]:
        """JSON form, for the transaction's row."""
        plain = to_plain(self)
        assert isinstance(plain, dict)
        return plain

    @classmethod
    def from_plain(cls, plain: Mapping[str, object]) -> Document:
        """The document a transaction's row holds; same hash as when it was written."""
        lines = plain["lines"]
        assert isinstance(lines, list)
        values = {**plain, "lines": tuple(_line_from_plain(line) for line in lines)}
        document = cls(**values)  # type: ignore[arg-type]
        return replace(
            document,
            connection=TargetId(str(plain["connection"])),
            net=Decimal(str(plain["net"])),
            date_from=date.fromisoformat(str(plain["date_from"])),
            date_to=date.fromisoformat(str(plain["date_to"])),
        )


def _line_from_plain(plain: Mapping[str, object]) -> DocumentLine:
    line = DocumentLine(**plain)  # type: ignore[arg-type]
    return replace(
        line,
        quantity=Decimal(str(plain["quantity"])),
        unit_price=Decimal(str(plain["unit_price"])),
        amount=Decimal(str(plain["amount"])),
        service_from=date.fromisoformat(str(plain["service_from"])),
        service_to=date.fromisoformat(str(plain["service_to"])),
    )


class DocumentState(StrEnum):
    """The ERP's own life of a document, in three words every ERP has."""

    DRAFT = "draft"
    NUMBERED = "numbered"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class ErpLine:
    """A line as the ERP holds it; ``reference`` is None on lines that are not ours."""

    reference: str | None
    item: str | None
    description: str
    quantity: Decimal
    unit_price: Decimal
    net: Decimal
    account: str | None = None
    tax_codes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ErpDocument:
    """A document as the ERP holds it, read back through the connector.

    ``credited_net`` is what other documents (credit notes) take back from it, as a positive
    amount; ``credited_lines`` the same per our line reference where the ERP tells.
    """

    id: str
    number: str | None
    reference: str | None
    state: DocumentState
    customer: str
    currency: str
    date: date | None
    net: Decimal
    tax: Decimal
    gross: Decimal
    lines: tuple[ErpLine, ...]
    credited_net: Decimal = Decimal(0)
    credited_lines: Mapping[str, Decimal] = field(default_factory=dict)
    modified_at: datetime | None = None

    def to_plain(self) -> dict[str, object]:
        """JSON form, for the receipt's row."""
        plain = to_plain(self)
        assert isinstance(plain, dict)
        return plain


@dataclass(frozen=True, slots=True)
class Health:
    """Whether a connection can be used, in a sentence, with what the ERP says of itself."""

    ok: bool
    sentence: str
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """One field that the ERP stored otherwise than we sent it."""

    field: str
    ours: str
    theirs: str

    def __str__(self) -> str:
        return f"{self.field}: sent {self.ours}, the ERP holds {self.theirs}"


def differences(ours: Document, theirs: ErpDocument, key: PostingKey) -> tuple[Difference, ...]:
    """Every field in which the stored document is not the one we sent, with both values."""
    found: list[Difference] = []

    def compare(name: str, sent: object, stored: object) -> None:
        if sent != stored:
            found.append(Difference(name, str(sent), str(stored)))

    compare("reference", key, theirs.reference)
    compare("customer", ours.customer, theirs.customer)
    compare("currency", ours.currency, theirs.currency)
    compare("net", ours.net, theirs.net)
    if theirs.date is not None and not ours.date_from <= theirs.date <= ours.date_to:
        found.append(
            Difference("date", f"{ours.date_from} to {ours.date_to}", theirs.date.isoformat())
        )
    stored_lines = {line.reference: line for line in theirs.lines if line.reference is not None}
    for line in ours.lines:
        stored = stored_lines.pop(line.reference, None)
        if stored is None:
            found.append(Difference(f"line {line.reference}", f"{line.amount}", "no such line"))
            continue
        compare(f"line {line.reference} item", line.item, stored.item)
        compare(f"line {line.reference} quantity", line.quantity, stored.quantity)
        compare(f"line {line.reference} unit price", line.unit_price, stored.unit_price)
        compare(f"line {line.reference} net", line.amount, stored.net)
    strangers = [*stored_lines.values(), *(line for line in theirs.lines if line.reference is None)]
    found.extend(
        Difference(f"line {line.reference or line.description!r}", "no such line", f"{line.net}")
        for line in strangers
    )
    return tuple(found)
