"""What of a stored document holds."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterpost.posting.model import DocumentState, ErpDocument, ErpLine
from meterpost.posting.receipts import held_lines, held_net


def erp_document(*nets: str, **changes: object) -> ErpDocument:
    lines = tuple(
        ErpLine(f"L{n}", "I", "", Decimal(1), Decimal(net), Decimal(net))
        for n, net in enumerate(nets, 1)
    )
    net = sum((line.net for line in lines), Decimal(0))
    made = ErpDocument(
        "1",
        None,
        "U",
        DocumentState.DRAFT,
        "C",
        "EUR",
        date(2026, 10, 31),
        net,
        Decimal(0),
        net,
        lines,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def test_a_draft_holds_all() -> None:
    """Nothing credited: every line holds its net."""
    assert held_lines(erp_document("10.00", "5.00")) == {"L1": Decimal(10), "L2": Decimal(5)}


def test_a_cancelled_document_holds_nothing() -> None:
    """Cancelled counts zero, in total and per line."""
    document = erp_document("10.00", state=DocumentState.CANCELLED)
    assert held_net(document) == 0
    assert held_lines(document) == {"L1": 0}


def test_named_credits_reduce_their_lines() -> None:
    """A credit that names its line leaves the others alone."""
    document = erp_document(
        "10.00", "5.00", credited_net=Decimal(4), credited_lines={"L2": Decimal(4)}
    )
    assert held_lines(document) == {"L1": Decimal(10), "L2": Decimal(1)}
    assert held_net(document) == Decimal(11)


def test_strangers_bear_their_share() -> None:
    """A line a clerk added takes its part of an unnamed credit, and is not ours."""
    document = erp_document("10.00")
    stranger = ErpLine(None, None, "fee", Decimal(1), Decimal(10), Decimal("10.00"))
    document = replace(
        document,
        lines=(*document.lines, stranger),
        net=Decimal("20.00"),
        credited_net=Decimal("5.00"),
    )
    assert held_lines(document) == {"L1": Decimal("7.50")}


@given(
    nets=st.lists(st.decimals("0.01", "9999.99", places=2), min_size=1, max_size=8),
    share=st.decimals("0", "1", places=4),
)
def test_a_spread_credit_is_exact(nets: list[Decimal], share: Decimal) -> None:
    """Whatever an unnamed credit takes back, the lines sum to what the document holds."""
    document = erp_document(*(str(net) for net in nets))
    credited = (document.net * share).quantize(Decimal("0.01"))
    document = replace(document, credited_net=credited)
    held = held_lines(document)
    assert sum(held.values()) == held_net(document)
    assert all(amount == amount.quantize(Decimal("0.01")) for amount in held.values())


@pytest.mark.parametrize("credited", ["0", "15.00"])
def test_none_and_full_credit(credited: str) -> None:
    """A full credit leaves zero on every line."""
    document = erp_document("10.00", "5.00", credited_net=Decimal(credited))
    assert all((amount == 0) == (credited != "0") for amount in held_lines(document).values())
