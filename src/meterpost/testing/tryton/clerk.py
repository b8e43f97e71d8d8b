"""A clerk who works on invoices by hand: what happens to our documents after posting."""

from __future__ import annotations

from datetime import date
from types import TracebackType
from typing import Any, Self

from meterpost.connectors.tryton.client import TrytonClient
from meterpost.testing.tryton.server import TrytonServer

_INVOICE = "model.account.invoice"
_CREDIT = "wizard.account.invoice.credit"


class Clerk:
    """Edits, deletes, cancels, posts and credits invoices as the user ``clerk``."""

    def __init__(self, server: TrytonServer) -> None:
        self._client = TrytonClient(server.config("clerk"))
        self._context = {"company": server.database.ids["company"]}

    def invoice(self, invoice_id: str) -> dict[str, Any]:
        """State, number, date and line ids of one invoice.

        Raises: Rejected where there is none.
        """
        fields = ["state", "number", "invoice_date", "lines", "origin_invoices"]
        (found,) = self._call(f"{_INVOICE}.read", [int(invoice_id)], fields, writes=False)
        return dict(found)

    def edit_quantity(self, invoice_id: str, quantity: float, *, line: int = 0) -> None:
        """Change the quantity of one line of a draft."""
        self._edit_line(invoice_id, line, {"quantity": quantity})

    def edit_description(self, invoice_id: str, text: str, *, line: int = 0) -> None:
        """Change the text of one line of a draft."""
        self._edit_line(invoice_id, line, {"description": text})

    def delete(self, invoice_id: str) -> None:
        """Remove a draft."""
        self._call(f"{_INVOICE}.delete", [int(invoice_id)])

    def cancel(self, invoice_id: str) -> None:
        """Cancel a draft, which stays visible as cancelled."""
        self._call(f"{_INVOICE}.cancel", [int(invoice_id)])

    def post(self, invoice_id: str) -> str:
        """The number that posting gave the invoice."""
        self._call(f"{_INVOICE}.validate_invoice", [int(invoice_id)])
        self._call(f"{_INVOICE}.post", [int(invoice_id)])
        return str(self.invoice(invoice_id)["number"])

    def credit(self, invoice_id: str, *, refund: bool = False, day: date | None = None) -> str:
        """The id of a credit note over the whole invoice.

        Without ``refund`` it is a draft; with it, it is posted and settles the original.
        """
        record = {
            "model": "account.invoice",
            "id": int(invoice_id),
            "ids": [int(invoice_id)],
        }
        context = {**self._context, "active_model": "account.invoice"}
        context |= {"active_id": int(invoice_id), "active_ids": [int(invoice_id)]}
        session, start, _ = self._client.call(f"{_CREDIT}.create", context=context, writes=True)
        form = {start: {"with_refund": refund, "with_refund_allowed": True, "invoice_date": day}}
        answer = self._client.call(
            f"{_CREDIT}.execute",
            *(session, form, "credit"),
            context={**context, "action": record},
            writes=True,
        )
        self._client.call(f"{_CREDIT}.delete", session, context=context, writes=True)
        ((_, data),) = answer["actions"]
        return str(data["res_id"][0])

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _edit_line(self, invoice_id: str, ordinal: int, values: dict[str, object]) -> None:
        line_id = self.invoice(invoice_id)["lines"][ordinal]
        change = {"lines": [["write", [line_id], values]]}
        self._call(f"{_INVOICE}.write", [int(invoice_id)], change)

    def _call(self, method: str, *params: object, writes: bool = True) -> Any:
        return self._client.call(method, *params, context=self._context, writes=writes)
