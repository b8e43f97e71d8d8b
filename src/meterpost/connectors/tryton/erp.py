"""Tryton as a posting target: draft customer invoices."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from itertools import islice
from typing import Any, TypeVar

from meterpost.connectors.tryton.client import TrytonClient
from meterpost.connectors.tryton.config import LOOKUP_TIMEOUT_S, TrytonConfig
from meterpost.connectors.tryton.mapping import (
    CREDIT_FIELDS,
    INVOICE_FIELDS,
    NO_CREDITS,
    credits_of,
    from_tryton_invoice,
    is_posting_key,
    to_tryton_invoice,
)
from meterpost.connectors.tryton.masterdata import MasterData
from meterpost.core.errors import MeterpostError, OutcomeUnknown, Permanent, Transient
from meterpost.core.ids import PostingKey
from meterpost.posting.errors import ClosedPeriod, Rejected
from meterpost.posting.model import Capabilities, Document, ErpDocument, Health, Precision

#: Kinds of transactions; each becomes a customer invoice.
KINDS = ("billing.usage", "billing.overage", "correction")

#: Seconds that the look-ups before a creation may take. They come after posting has checked its
#: clock, so they are added to the server's own limit: absence is certain that much later.
PREPARE_MAX_S = 10.0

#: Records asked for in one request; 200 invoices with their lines are read in under 0.2 s.
PAGE = 200

_T = TypeVar("_T")

_RIGHTS = {
    "account.invoice": ("read", "create"),
    "account.invoice.line": ("read", "create"),
    "account.period": ("read",),
    "party.party": ("read",),
    "product.product": ("read",),
}


def connect(config: TrytonConfig) -> TrytonErp:
    """A connector for that connection; the first call signs in."""
    return TrytonErp(config, TrytonClient(config))


class TrytonErp:
    """Implements the port ``ErpConnector`` for one company of one Tryton database.

    Tryton keeps no reference unique: four simultaneous creations with one key make four
    invoices, so `find` may return several and posting has to hold a lock per key.
    """

    def __init__(self, config: TrytonConfig, client: TrytonClient) -> None:
        self._client = client
        self._masterdata = MasterData(client)
        self._capabilities = Capabilities(
            kinds=KINDS,
            native_keys=False,
            unique_reference=False,
            search=True,
            drafts=True,
            batch_max=1,
            precision=Precision(config.quantity_decimals, config.price_decimals),
            priced_by="us",
            request_limit_s=config.request_limit_s + PREPARE_MAX_S,
            visibility_s=config.visibility_s,
            margin_s=config.margin_s,
        )

    @property
    def capabilities(self) -> Capabilities:
        """What this connection can do."""
        return self._capabilities

    def check(self) -> Health:
        """Whether address, credentials and rights suffice to post; a sentence if not."""
        version: str | None = None
        try:
            version = self._client.version()
            if int(version.partition(".")[0]) < 8:
                return Health(False, f"Tryton {version} is too old; 8.0 is needed.", version)
            company = self._masterdata.company(_until())
            granted = self._client.call(
                "model.ir.model.access.get_access", list(_RIGHTS), writes=False
            )
        except ValueError:
            return Health(False, f"Tryton's version {version!r} cannot be understood.", version)
        except MeterpostError as exc:
            return Health(False, str(exc), version)
        lacking = [
            f"{right} {model}"
            for model, rights in _RIGHTS.items()
            for right in rights
            if not granted.get(model, {}).get(right)
        ]
        user = self._client.config.username
        if lacking:
            return Health(False, f"The Tryton user {user} may not {', '.join(lacking)}.", version)
        return Health(True, f"Tryton {version}, company {company}, as {user}.", version)

    def post(
        self, document: Document, key: PostingKey, posting_day: date, *, timeout_s: float
    ) -> ErpDocument:
        """Create one draft invoice with ``key`` as its reference, and read it back.

        The creating request is written within `PREPARE_MAX_S`, or not at all.

        Raises: Transient, Throttled, ClosedPeriod, Rejected, NotAuthenticated, NotAllowed
        (nothing stored), OutcomeUnknown.
        """
        until = time.monotonic() + timeout_s
        invoice_id = self._create(document, key, posting_day, until)
        try:
            stored = self.read([str(invoice_id)])
        except MeterpostError as exc:
            raise OutcomeUnknown(
                f"Tryton created invoice {invoice_id} for {key} but could not be asked for it: "
                f"{exc}",
                hint="Look it up by its key.",
            ) from exc
        if str(invoice_id) not in stored:
            raise OutcomeUnknown(
                f"Tryton created invoice {invoice_id} for {key}, which is gone already.",
                hint="Ask who deletes drafts while they are being made.",
            )
        return stored[str(invoice_id)]

    def _create(self, document: Document, key: PostingKey, posting_day: date, until: float) -> int:
        if document.kind not in KINDS:
            raise Permanent(f"The Tryton connector posts {', '.join(KINDS)}, not {document.kind}.")
        prepared = min(until, time.monotonic() + PREPARE_MAX_S)
        self._masterdata.require_open_period(posting_day, prepared)
        try:
            head = self._masterdata.head(document, prepared)
            lines = [self._masterdata.line(line, head, prepared) for line in document.lines]
            values = to_tryton_invoice(document, key, posting_day, head, lines)
            now = time.monotonic()
            if now >= prepared:
                raise Transient("The time to send has passed; nothing was sent to Tryton.")
            created = self._client.call(
                "model.account.invoice.create",
                [values],
                context={"company": head.company},
                timeout_s=until - now,
                writes=True,
            )
        except ClosedPeriod:
            raise
        except Rejected:
            # Perhaps only because a remembered id is gone: look everything up next time.
            self._masterdata.forget()
            raise
        match created:
            case [int(invoice_id)]:
                return invoice_id
            case _:
                raise OutcomeUnknown(
                    f"Tryton's answer to the creation of {key} cannot be understood.",
                    hint="Look it up by its key.",
                )

    def find(self, keys: Sequence[PostingKey]) -> Mapping[PostingKey, Sequence[ErpDocument]]:
        """The invoices that carry each key, 200 keys per request; absent keys are left out."""
        found: dict[PostingKey, list[ErpDocument]] = {}
        for some in _pages(sorted(set(keys))):
            last = 0
            while page := self._invoices([["reference", "in", some]], last):
                last = int(page[-1].id)
                for invoice in page:
                    assert invoice.reference is not None
                    found.setdefault(PostingKey(invoice.reference), []).append(invoice)
        return found

    def read(self, document_ids: Sequence[str]) -> Mapping[str, ErpDocument]:
        """The invoices as Tryton holds them now, with credits; deleted ones are absent.

        Raises: Permanent for an id that is no number.
        """
        wrong = [given for given in document_ids if not given.isdecimal()]
        if wrong:
            raise Permanent(f"{wrong[0]!r} is no id of a Tryton invoice.")
        found: dict[str, ErpDocument] = {}
        for some in _pages(sorted({int(given) for given in document_ids})):
            found |= {invoice.id: invoice for invoice in self._invoices([["id", "in", some]], 0)}
        return found

    def records(self, first_day: date, last_day: date) -> Iterator[ErpDocument]:
        """Invoices with a posting key as reference, dated in these days or not at all."""
        dated: list[Any] = [
            "OR",
            ["invoice_date", "=", None],
            [["invoice_date", ">=", first_day], ["invoice_date", "<=", last_day]],
        ]
        last = 0
        while page := self._invoices([["reference", "like", "U%"], dated], last):
            last = int(page[-1].id)
            yield from (invoice for invoice in page if is_posting_key(invoice.reference))

    def close(self) -> None:
        """Let go of connections."""
        self._client.close()

    def _invoices(self, domain: list[Any], after_id: int) -> list[ErpDocument]:
        """At most one page of our company's customer invoices, by id."""
        context = {"company": self._masterdata.company(_until())}
        found = self._client.call(
            "model.account.invoice.search_read",
            [
                ["type", "=", "out"],
                ["company", "=", context["company"]],
                ["id", ">", after_id],
                domain,
            ],
            *(0, PAGE, [["id", "ASC"]], list(INVOICE_FIELDS)),
            context=context,
            writes=False,
        )
        if not found:
            return []
        credited = self._client.call(
            "model.account.invoice.line.search_read",
            [
                [
                    "origin.invoice.id",
                    "in",
                    [invoice["id"] for invoice in found],
                    "account.invoice.line",
                ],
                ["invoice", "!=", None],
            ],
            *(0, None, None, list(CREDIT_FIELDS)),
            context=context,
            writes=False,
        )
        taken_back = credits_of(credited)
        try:
            return [
                from_tryton_invoice(invoice, taken_back.get(invoice["id"], NO_CREDITS))
                for invoice in found
            ]
        except (KeyError, TypeError, ArithmeticError) as exc:
            raise Permanent(
                f"Tryton's answer about invoices lacks something that is needed: {exc!r}.",
                hint="The release may be too new for this connector.",
            ) from exc


def _pages(values: Sequence[_T]) -> Iterator[list[_T]]:
    rest = iter(values)
    while page := list(islice(rest, PAGE)):
        yield page


def _until() -> float:
    return time.monotonic() + LOOKUP_TIMEOUT_S
