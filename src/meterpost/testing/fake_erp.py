"""An ERP in memory that passes the contract suite and misbehaves on request (tests, simulation)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum

from meterpost.core.clock import Clock
from meterpost.core.errors import NotAuthenticated, OutcomeUnknown, Throttled, Transient
from meterpost.core.ids import PostingKey
from meterpost.core.money import Money, round_half_up
from meterpost.posting.errors import ClosedPeriod, Duplicate, Rejected
from meterpost.posting.model import (
    Capabilities,
    Document,
    DocumentState,
    ErpDocument,
    ErpLine,
    Health,
    Precision,
)

TAX_RATE = Decimal("0.20")


class Fault(StrEnum):
    """What happens to one write."""

    #: Stored, the answer is lost.
    LOSE_REPLY = "lose_reply"
    #: Not stored, the answer is lost.
    LOSE_REQUEST = "lose_request"
    #: The client gives up; the server stores it `FakeErp.late_commit_s` later.
    COMMIT_LATE = "commit_late"
    THROTTLE = "throttle"
    REFUSE_CONNECTION = "refuse_connection"
    #: The connector itself fails after the document was stored.
    DEFECT = "defect"


@dataclass(slots=True)
class FakeErp:
    """The books, shared by every connector opened on them; change the fields to set the scene."""

    clock: Clock
    token: str = "right"  # noqa: S105 - not a secret: the fake's own word
    customers: set[str] = field(default_factory=lambda: {"C-100", "C-200"})
    items: set[str] = field(default_factory=lambda: {"TOKENS", "REQUESTS"})
    closed_months: set[str] = field(default_factory=set)
    faults: deque[Fault] = field(default_factory=deque)
    unique_reference: bool = False
    down: bool = False
    after_s: float = 2.0
    visibility_s: float = 0.0
    late_commit_s: float = 3.0
    #: Applied to each document as it is stored, to play an ERP that changes what it is told.
    alter: Mapping[str, object] = field(default_factory=dict)
    requests: int = 0
    searches: int = 0
    documents: dict[str, tuple[datetime, ErpDocument]] = field(default_factory=dict)

    def store(self, document: ErpDocument, *, after_s: float = 0.0) -> ErpDocument:
        """The document under the next id, in the books from then on."""
        stored = replace(document, id=str(len(self.documents) + 1))
        at = self.clock.now() + timedelta(seconds=after_s)
        self.documents[stored.id] = (at, stored)
        return stored

    def committed(self) -> list[ErpDocument]:
        """Every document that is in the books by now, hidden ones too."""
        now = self.clock.now()
        return [document for at, document in self.documents.values() if at <= now]

    def visible(self) -> list[ErpDocument]:
        """What a look-up sees."""
        seen = self.clock.now() - timedelta(seconds=self.visibility_s)
        return [document for at, document in self.documents.values() if at <= seen]


class FakeErpConnector:
    """The port on a `FakeErp`."""

    def __init__(
        self,
        erp: FakeErp,
        *,
        token: str = "right",  # noqa: S107 - not a secret: the fake's own word
        search: bool = True,
        request_limit_s: float = 60.0,
        visibility_s: float = 0.0,
        margin_s: float = 5.0,
    ) -> None:
        self._erp = erp
        self.token = token
        self._capabilities = Capabilities(
            kinds=("billing.usage",),
            unique_reference=erp.unique_reference,
            search=search,
            precision=Precision(),
            request_limit_s=request_limit_s,
            visibility_s=visibility_s,
            margin_s=margin_s,
        )

    @property
    def capabilities(self) -> Capabilities:
        """What this connection can do."""
        return self._capabilities

    def check(self) -> Health:
        """Whether the token is right and the ERP up; a sentence if not."""
        try:
            self._enter()
        except (NotAuthenticated, Transient) as exc:
            return Health(ok=False, sentence=str(exc))
        return Health(ok=True, sentence="The fake ERP answers and accepts our token.")

    def post(
        self, document: Document, key: PostingKey, posting_day: date, *, timeout_s: float
    ) -> ErpDocument:
        """Create one draft document, or fail as told."""
        erp = self._erp
        fault = erp.faults.popleft() if erp.faults else None
        if fault is Fault.REFUSE_CONNECTION:
            raise Transient("The fake ERP cannot be reached.")
        self._enter()
        if fault is Fault.THROTTLE:
            raise Throttled("The fake ERP asks us to slow down.", after_s=erp.after_s)
        self._require_valid(document, key, posting_day)
        if fault is Fault.LOSE_REQUEST:
            raise OutcomeUnknown("The fake ERP gave no answer.")
        stored = erp.store(
            _stored(document, key, posting_day, erp.alter),
            after_s=erp.late_commit_s if fault is Fault.COMMIT_LATE else 0.0,
        )
        if fault in {Fault.LOSE_REPLY, Fault.COMMIT_LATE}:
            raise OutcomeUnknown("The fake ERP gave no answer.")
        if fault is Fault.DEFECT:
            raise KeyError("a defect of the connector")
        return stored

    def find(self, keys: Sequence[PostingKey]) -> Mapping[PostingKey, Sequence[ErpDocument]]:
        """The visible documents that carry each key."""
        self._enter()
        self._erp.searches += 1
        found: dict[PostingKey, list[ErpDocument]] = {}
        for document in self._erp.visible():
            if document.reference in keys:
                found.setdefault(PostingKey(str(document.reference)), []).append(document)
        return found

    def read(self, document_ids: Sequence[str]) -> Mapping[str, ErpDocument]:
        """The visible documents of these ids."""
        self._enter()
        return {
            document.id: document for document in self._erp.visible() if document.id in document_ids
        }

    def records(self, first_day: date, last_day: date) -> Iterator[ErpDocument]:
        """Visible documents dated in these days."""
        self._enter()
        for document in self._erp.visible():
            if document.date is None or first_day <= document.date <= last_day:
                yield document

    def close(self) -> None:
        """Nothing to let go of."""

    def _enter(self) -> None:
        self._erp.requests += 1
        if self._erp.down:
            raise Transient("The fake ERP is down.", after_s=1.0)
        if self.token != self._erp.token:
            raise NotAuthenticated(
                "The fake ERP does not accept our token.", hint="Give it the right one."
            )

    def _require_valid(self, document: Document, key: PostingKey, posting_day: date) -> None:
        erp = self._erp
        if document.customer not in erp.customers:
            raise Rejected(
                f"There is no customer {document.customer}.", vendor_text="unknown_customer"
            )
        for line in document.lines:
            if line.item not in erp.items:
                raise Rejected(f"There is no item {line.item}.", vendor_text="unknown_item")
        if f"{posting_day:%Y-%m}" in erp.closed_months:
            raise ClosedPeriod(f"{posting_day:%Y-%m} is closed.", vendor_text="closed_period")
        if erp.unique_reference and any(d.reference == key for d in erp.committed()):
            raise Duplicate(f"The reference {key} is taken.")


def _stored(
    document: Document, key: PostingKey, posting_day: date, alter: Mapping[str, object]
) -> ErpDocument:
    lines = tuple(
        ErpLine(
            reference=line.reference,
            item=line.item,
            description=line.description,
            quantity=line.quantity,
            unit_price=line.unit_price,
            net=Money(line.quantity * line.unit_price, document.currency).rounded().amount,
            account=line.account,
            tax_codes=(line.tax_code,) if line.tax_code else (),
        )
        for line in document.lines
    )
    net = sum((line.net for line in lines), Decimal(0))
    tax = round_half_up(net * TAX_RATE, 2)
    stored = ErpDocument(
        id="",
        number=None,
        reference=key,
        state=DocumentState.DRAFT,
        customer=document.customer,
        currency=document.currency,
        date=posting_day,
        net=net,
        tax=tax,
        gross=net + tax,
        lines=lines,
    )
    return replace(stored, **alter)  # type: ignore[arg-type]
