"""The sandbox ERP as a posting target.

Source: README.md of `meterpost_sandbox`. It prices by quantity × unit price rounded half up per
line; 5 quantity and 8 price decimals; references are not unique unless the server says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from meterpost.connectors.sandbox.client import SandboxClient
from meterpost.connectors.sandbox.mapping import from_sandbox_invoice, to_sandbox_invoice
from meterpost.core.errors import InvalidInput, MeterpostError
from meterpost.core.ids import PostingKey
from meterpost.core.problem import Problem
from meterpost.posting.config import ConnectionConfig
from meterpost.posting.model import Capabilities, Document, ErpDocument, Health, Precision

_OURS = re.compile(r"U[0-9A-HJKMNP-TV-Z]{15}")
_REFERENCES_PER_SEARCH = 100


@dataclass(frozen=True, slots=True)
class SandboxOptions:
    """How the sandbox was started, as far as posting can make use of it."""

    native_keys: bool = False
    unique_reference: bool = False

    @classmethod
    def from_plain(cls, options: Mapping[str, object], *, connection: str) -> SandboxOptions:
        """The options of a connection's file.

        Raises: InvalidInput for unknown names and for values other than true and false.
        """
        problems = [
            Problem("unknown-option", f"{name} is not an option of the sandbox.", name)
            for name in options
            if name not in {"native_keys", "unique_reference"}
        ] + [
            Problem("invalid-option", f"{name} is true or false, not {value!r}.", name)
            for name, value in options.items()
            if name in {"native_keys", "unique_reference"} and not isinstance(value, bool)
        ]
        if problems:
            raise InvalidInput(f"Connection {connection} has options it cannot use.", problems)
        return cls(
            native_keys=options.get("native_keys") is True,
            unique_reference=options.get("unique_reference") is True,
        )


class SandboxErp:
    """Posts draft invoices to one sandbox."""

    def __init__(
        self, config: ConnectionConfig, options: SandboxOptions, client: SandboxClient
    ) -> None:
        self._client = client
        self._native_keys = options.native_keys
        self._capabilities = Capabilities(
            kinds=("billing.usage", "billing.overage", "correction"),
            native_keys=options.native_keys,
            unique_reference=options.unique_reference,
            precision=Precision(quantity_decimals=5, price_decimals=8),
            request_limit_s=config.request_limit_s,
            visibility_s=config.visibility_s,
            margin_s=config.margin_s,
        )

    @property
    def capabilities(self) -> Capabilities:
        """What this connection can do."""
        return self._capabilities

    def check(self) -> Health:
        """Whether address and token suffice; a sentence if not."""
        try:
            self._client.ping()
        except MeterpostError as exc:
            return Health(ok=False, sentence=str(exc))
        return Health(ok=True, sentence="The sandbox ERP answers and accepts our token.")

    def post(
        self, document: Document, key: PostingKey, posting_day: date, *, timeout_s: float
    ) -> ErpDocument:
        """Create one draft invoice with ``key`` as its reference, and what was stored."""
        invoice = self._client.create_invoice(
            to_sandbox_invoice(document, key, posting_day),
            timeout_s=timeout_s,
            native_key=key if self._native_keys else None,
        )
        return from_sandbox_invoice(invoice)

    def find(self, keys: Sequence[PostingKey]) -> Mapping[PostingKey, Sequence[ErpDocument]]:
        """The documents that carry each key; a key without documents is absent."""
        found: dict[PostingKey, dict[str, ErpDocument]] = {}
        for start in range(0, len(keys), _REFERENCES_PER_SEARCH):
            wanted = keys[start : start + _REFERENCES_PER_SEARCH]
            for invoice in self._client.invoices(reference=",".join(wanted)):
                document = self._with_credits(invoice)
                if document.reference is not None and document.reference in wanted:
                    known = found.setdefault(PostingKey(document.reference), {})
                    known[document.id] = document
        return {key: tuple(documents.values()) for key, documents in found.items()}

    def read(self, document_ids: Sequence[str]) -> Mapping[str, ErpDocument]:
        """The documents as the ERP holds them now, with credits; missing ones are absent."""
        invoices = {number: self._client.invoice(number) for number in document_ids}
        return {
            number: self._with_credits(invoice)
            for number, invoice in invoices.items()
            if invoice is not None
        }

    def records(self, first_day: date, last_day: date) -> Iterator[ErpDocument]:
        """Documents with a posting key as reference dated in these days, both included."""
        # A document that changes while we page is listed again: its latest form counts.
        latest = {
            str(invoice["id"]): invoice
            for invoice in self._client.invoices(
                date_from=first_day.isoformat(), date_to=last_day.isoformat()
            )
            if _OURS.fullmatch(str(invoice["reference"]))
        }
        for invoice in latest.values():
            yield self._with_credits(invoice)

    def close(self) -> None:
        """Let go of connections."""
        self._client.close()

    def _with_credits(self, invoice: Mapping[str, object]) -> ErpDocument:
        if not Decimal(str(invoice["credited_net"])):
            return from_sandbox_invoice(invoice)
        notes = self._client.invoices(credit_of=str(invoice["id"]))
        return from_sandbox_invoice(invoice, notes)
