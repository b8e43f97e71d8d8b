"""What read-back says after a person worked on our invoices in Tryton."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from types import SimpleNamespace

import pytest

from meterpost.connectors.tryton import TrytonErp
from meterpost.core.ids import PostingKey
from meterpost.posting.errors import Rejected
from meterpost.posting.model import DocumentState, differences
from meterpost.testing.tryton import Clerk, TrytonServer, add_parties

pytestmark = [pytest.mark.integration, pytest.mark.tryton, pytest.mark.timeout(900)]


def test_an_edited_draft_shows_the_difference(
    erp: TrytonErp, clerk: Clerk, key: PostingKey, make: SimpleNamespace, today: date
) -> None:
    """A changed quantity appears in the line and in the net amount, later than our writing."""
    document = make.document()
    stored = erp.post(document, key, today, timeout_s=30)
    clerk.edit_quantity(stored.id, 2)
    now = erp.read([stored.id])[stored.id]
    found = {difference.field for difference in differences(document, now, key)}
    assert found == {"net", "line L-1 quantity", "line L-1 net"}
    assert now.net == Decimal("25.00")
    assert now.modified_at is not None
    assert stored.modified_at is not None
    assert now.modified_at > stored.modified_at


def test_a_rewritten_text_loses_our_reference(
    erp: TrytonErp, clerk: Clerk, key: PostingKey, make: SimpleNamespace, today: date
) -> None:
    """A line whose text a clerk replaced is no longer known as ours, and keeps its amount."""
    stored = erp.post(make.document(), key, today, timeout_s=30)
    clerk.edit_description(stored.id, "Consulting")
    (line,) = erp.read([stored.id])[stored.id].lines
    assert (line.reference, line.description, line.net) == (None, "Consulting", Decimal("37.50"))


def test_a_deleted_draft_is_gone(
    erp: TrytonErp, clerk: Clerk, key: PostingKey, make: SimpleNamespace, today: date
) -> None:
    """Neither its id nor its key finds a deleted draft."""
    stored = erp.post(make.document(), key, today, timeout_s=30)
    clerk.delete(stored.id)
    assert erp.read([stored.id]) == {}
    assert erp.find([key]) == {}


def test_a_cancelled_draft_says_so(
    erp: TrytonErp, clerk: Clerk, key: PostingKey, make: SimpleNamespace, today: date
) -> None:
    """A cancelled draft stays readable as cancelled, without a number."""
    stored = erp.post(make.document(), key, today, timeout_s=30)
    clerk.cancel(stored.id)
    now = erp.read([stored.id])[stored.id]
    assert (now.state, now.number) == (DocumentState.CANCELLED, None)


def test_a_posted_invoice_has_a_number_and_resists(
    erp: TrytonErp, clerk: Clerk, key: PostingKey, make: SimpleNamespace, today: date
) -> None:
    """Posting gives the number; id, key and amounts stay; Tryton refuses to delete it."""
    document = make.document()
    stored = erp.post(document, key, today, timeout_s=30)
    number = clerk.post(stored.id)
    now = erp.read([stored.id])[stored.id]
    assert (now.state, now.number) == (DocumentState.NUMBERED, number)
    assert differences(document, now, key) == ()
    with pytest.raises(Rejected):
        clerk.delete(stored.id)


def test_a_credit_is_seen_on_the_original(
    erp: TrytonErp, clerk: Clerk, key: PostingKey, make: SimpleNamespace, today: date
) -> None:
    """A credit note, partly reduced by the clerk, counts per line; our key finds one document."""
    document = make.document(
        make.line(reference="L-1"), make.line("BASE-FEE", "1", "49.00", reference="L-2")
    )
    stored = erp.post(document, key, today, timeout_s=30)
    clerk.post(stored.id)
    credit = clerk.credit(stored.id)
    clerk.edit_quantity(credit, -1)
    now = erp.read([stored.id])[stored.id]
    assert now.state is DocumentState.NUMBERED
    assert now.credited_net == Decimal("61.50")
    assert now.credited_lines == {"L-1": Decimal("12.50"), "L-2": Decimal("49.00")}
    assert [invoice.id for invoice in erp.find([key])[key]] == [stored.id]
    assert now.net == Decimal("86.50")
    clerk.delete(credit)
    assert erp.read([stored.id])[stored.id].credited_net == 0


def test_a_refund_cancels_the_original(
    erp: TrytonErp, clerk: Clerk, key: PostingKey, make: SimpleNamespace, today: date
) -> None:
    """Credited with refund, the original is cancelled, keeps its number and is wholly credited."""
    stored = erp.post(make.document(), key, today, timeout_s=30)
    number = clerk.post(stored.id)
    clerk.credit(stored.id, refund=True)
    now = erp.read([stored.id])[stored.id]
    assert (now.state, now.number) == (DocumentState.CANCELLED, number)
    assert now.credited_net == now.net == Decimal("37.50")


def test_a_negative_invoice_can_be_posted(
    erp: TrytonErp, clerk: Clerk, key: PostingKey, make: SimpleNamespace, today: date
) -> None:
    """Tryton numbers our credit like any invoice."""
    document = make.document(make.line(quantity="-1", unit_price="37.50"))
    stored = erp.post(document, key, today, timeout_s=30)
    assert clerk.post(stored.id).isdecimal()
    assert erp.read([stored.id])[stored.id].net == Decimal("-37.50")


def test_customers_from_a_list_are_made_once(
    erp: TrytonErp, server: TrytonServer, key: PostingKey, make: SimpleNamespace, today: date
) -> None:
    """Customers added by code can be billed; adding them again finds the same."""
    wanted = [("T-ONE", "Tenant One"), ("T-TWO", "Tenant Two")]
    made = add_parties(server, wanted)
    assert add_parties(server, wanted) == made
    assert erp.post(make.document(customer="T-TWO"), key, today, timeout_s=30).customer == "T-TWO"
