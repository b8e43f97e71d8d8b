"""Look-ups in Tryton's master data, remembered for a few minutes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from typing import Any

from meterpost.connectors.tryton.client import TrytonClient
from meterpost.connectors.tryton.mapping import InvoiceHead, LineDefaults
from meterpost.core.errors import Permanent, Transient
from meterpost.posting.errors import ClosedPeriod, Rejected
from meterpost.posting.model import Document, DocumentLine

#: Seconds after which a change in Tryton's master data is certainly seen.
REMEMBERED_S = 300.0
REMEMBERED_MAX = 50_000


class MasterData:
    """Tryton's ids for the codes that a document names.

    Every method takes the moment (of ``monotonic``) until which it may work, and raises Transient
    after that: a document is never sent later than its sender allowed.
    """

    def __init__(
        self, client: TrytonClient, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._monotonic = monotonic
        self._remembered: dict[tuple[object, ...], tuple[float, Any]] = {}

    def forget(self) -> None:
        """Look everything up again, as after a refusal that our memory may have caused."""
        self._remembered.clear()

    def company(self, until: float) -> int:
        """The company that the connection posts for.

        Raises: Permanent where none is configured and the user has none.
        """
        if self._client.config.company is not None:
            return self._client.config.company

        def look_up() -> int:
            preferences = self._call("model.res.user.get_preferences", True, until=until)
            if not preferences.get("company"):
                raise Permanent(
                    f"The Tryton user {self._client.config.username} belongs to no company.",
                    hint="Give the user one, or set `company` on the connection.",
                )
            return int(preferences["company"])

        return int(self._recall(("company",), look_up))

    def require_open_period(self, day: date, until: float) -> None:
        """Return where the books are open on that day.

        Tryton accepts drafts of any date and refuses only to post them, when it is too late for
        us. Never remembered: periods are closed at any moment.

        Raises: ClosedPeriod.
        """
        domain: list[Any] = [
            ["start_date", "<=", day],
            ["end_date", ">=", day],
            ["type", "=", "standard"],
            ["company", "=", self.company(until)],
        ]
        found = self._search("account.period", domain, ["state", "name"], until)
        if not found:
            raise ClosedPeriod(
                f"Tryton has no accounting period for {day.isoformat()}.",
                hint="Create the fiscal year in Tryton, or choose another posting day.",
            )
        if found[0]["state"] != "open":
            raise ClosedPeriod(
                f"The accounting period {found[0]['name']} is closed in Tryton.",
                hint="Reopen it in Tryton, or choose another posting day.",
            )

    def head(self, document: Document, until: float) -> InvoiceHead:
        """The ids of an invoice to the document's customer.

        Raises: Rejected naming what Tryton does not have.
        """
        found = self._recall(
            ("head", document.customer, document.currency),
            lambda: self._look_up_head(document.customer, document.currency, until),
        )
        assert isinstance(found, InvoiceHead)
        if document.payment_term is None:
            return found
        term = self._id_of(
            "account.invoice.payment_term", "payment term", "name", document.payment_term, until
        )
        return replace(found, payment_term=term)

    def line(self, line: DocumentLine, head: InvoiceHead, until: float) -> LineDefaults:
        """The ids of a line; account and taxes are Tryton's own choice where the line names none.

        Raises: Rejected naming what Tryton does not have.
        """
        found = self._recall(
            ("line", line.item, head.party), lambda: self._look_up_line(line.item, head, until)
        )
        assert isinstance(found, LineDefaults)
        if line.account is not None:
            account = self._id_of("account.account", "account", "code", line.account, until)
            found = replace(found, account=account)
        if line.tax_code is not None:
            tax = self._id_of("account.tax", "tax", "name", line.tax_code, until)
            found = replace(found, taxes=(tax,))
        return found

    def _look_up_head(self, customer: str, currency: str, until: float) -> InvoiceHead:
        company = self.company(until)
        party = self._id_of("party.party", "customer", "code", customer, until)
        currency_id = self._id_of("currency.currency", "currency", "code", currency, until)
        # Tryton fills in what a clerk's screen would: account, address, term, journal.
        values = {"type": "out", "company": company, "party": party, "currency": currency_id}
        filled = self._call(
            "model.account.invoice.on_change", values, ["party", "type"], until=until
        )
        for name, word in (
            ("invoice_address", "invoice address"),
            ("account", "receivable account"),
            ("journal", "revenue journal"),
        ):
            if not filled.get(name):
                raise Rejected(
                    f"Tryton knows no {word} for customer {customer}.", hint="Add it in Tryton."
                )
        return InvoiceHead(
            company=company,
            party=party,
            address=int(filled["invoice_address"]),
            currency=currency_id,
            journal=int(filled["journal"]),
            account=int(filled["account"]),
            payment_term=filled.get("payment_term"),
        )

    def _look_up_line(self, item: str, head: InvoiceHead, until: float) -> LineDefaults:
        product = self._id_of("product.product", "product", "code", item, until)
        values = {
            "type": "line",
            "invoice_type": "out",
            "company": head.company,
            "currency": head.currency,
            "party": head.party,
            "product": product,
        }
        filled = self._call(
            "model.account.invoice.line.on_change", values, ["product"], until=until
        )
        if not filled.get("account") or not filled.get("unit"):
            raise Rejected(
                f"Tryton knows no revenue account or unit for product {item}.",
                hint="Give the product an accounting category with a revenue account.",
            )
        taxes = filled.get("taxes") or {}
        added = taxes.get("add", []) if isinstance(taxes, dict) else []
        return LineDefaults(
            product=product,
            unit=int(filled["unit"]),
            account=int(filled["account"]),
            taxes=tuple(int(record["id"]) for _, record in added),
        )

    def _id_of(self, model: str, word: str, field: str, value: str, until: float) -> int:
        """The id of the one active record with that code or name."""

        def look_up() -> int:
            domain: list[Any] = [[field, "=", value]]
            if model in {"account.account", "account.tax"}:
                domain.append(["company", "=", self.company(until)])
            found = self._search(model, domain, [field], until)
            if not found:
                raise Rejected(
                    f"Tryton has no {word} {value!r}.",
                    vendor_text=f"{model}: no active record with {field} {value!r}",
                    hint=f"Create or reactivate it in Tryton, or map another {word}.",
                )
            if len(found) > 1:
                raise Rejected(
                    f"Tryton has more than one {word} {value!r}.", hint="Make it unique there."
                )
            return int(found[0]["id"])

        return int(self._recall((model, value), look_up))

    def _search(self, model: str, domain: list[Any], fields: list[str], until: float) -> list[Any]:
        method = f"model.{model}.search_read"
        return list(self._call(method, domain, 0, 2, None, fields, until=until))

    def _call(self, method: str, *params: object, until: float) -> Any:
        left_s = until - self._monotonic()
        if left_s <= 0:
            raise Transient("Tryton's master data could not be read in time; nothing was sent.")
        context = {"company": self._client.config.company} if self._client.config.company else {}
        return self._client.call(method, *params, context=context, timeout_s=left_s, writes=False)

    def _recall(self, what: tuple[object, ...], look_up: Callable[[], object]) -> Any:
        known = self._remembered.get(what)
        if known is not None and self._monotonic() - known[0] < REMEMBERED_S:
            return known[1]
        found = look_up()
        if len(self._remembered) >= REMEMBERED_MAX:
            self._remembered.clear()
        self._remembered[what] = (self._monotonic(), found)
        return found
