"""The witness: reads nothing but the ledger file and says what was lost or created twice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from meterpost_sandbox.ledger import reading


@dataclass(frozen=True, slots=True)
class LedgerDocument:
    """A document as the books have it; ``created_*`` is what its creator sent."""

    id: str
    kind: str
    origin: str
    state: str
    number: str | None
    reference: str
    currency: str
    net: Decimal
    gross: Decimal
    created_reference: str
    created_net: Decimal
    credit_of: str | None

    @property
    def by_clerk(self) -> bool:
        """Whether a person made it in the ERP."""
        return self.origin == "clerk"


@dataclass(frozen=True, slots=True)
class AmountDifference:
    """A document created with another net than expected."""

    reference: str
    expected: Decimal
    created: Decimal


@dataclass(frozen=True, slots=True)
class OracleReport:
    """The verdict over everything that came through the API."""

    lost: tuple[str, ...]
    duplicated: Mapping[str, int]
    amount_differences: tuple[AmountDifference, ...]
    unexpected: tuple[str, ...]
    documents: int
    clerk_documents: int

    @property
    def clean(self) -> bool:
        """Whether each expected document was created once, with its amount, and no other."""
        return not (self.lost or self.duplicated or self.amount_differences or self.unexpected)


def documents(path: Path) -> tuple[LedgerDocument, ...]:
    """Every document ever created, in order, deleted and clerk-made ones included.

    Raises: FileNotFoundError.
    """
    with reading(path) as connection:
        rows = connection.execute("SELECT * FROM documents ORDER BY id").fetchall()
    return tuple(
        LedgerDocument(
            id=str(row["id"]),
            kind=row["kind"],
            origin=row["origin"],
            state=row["state"],
            number=row["number"],
            reference=row["reference"],
            currency=row["currency"],
            net=Decimal(row["net"]),
            gross=Decimal(row["gross"]),
            created_reference=row["created_reference"],
            created_net=Decimal(row["created_net"]),
            credit_of=None if row["credit_of"] is None else str(row["credit_of"]),
        )
        for row in rows
    )


def check(path: Path, expected: Mapping[str, Decimal]) -> OracleReport:
    """What differs between the documents created through the API and the expected nets.

    Raises: FileNotFoundError.
    """
    found = documents(path)
    created: dict[str, list[LedgerDocument]] = {}
    for document in found:
        if not document.by_clerk:
            created.setdefault(document.created_reference, []).append(document)
    return OracleReport(
        lost=tuple(sorted(reference for reference in expected if reference not in created)),
        duplicated={
            reference: len(copies) for reference, copies in created.items() if len(copies) > 1
        },
        amount_differences=tuple(
            AmountDifference(reference, expected[reference], document.created_net)
            for reference, copies in created.items()
            if reference in expected
            for document in copies
            if document.created_net != expected[reference]
        ),
        unexpected=tuple(reference for reference in created if reference not in expected),
        documents=sum(len(copies) for copies in created.values()),
        clerk_documents=sum(document.by_clerk for document in found),
    )
