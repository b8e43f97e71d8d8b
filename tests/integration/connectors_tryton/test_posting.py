"""Creating, finding and reading invoices on a real Tryton server."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from types import SimpleNamespace

import psycopg
import pytest

from meterpost.connectors.tryton import TrytonErp, connect
from meterpost.core.errors import (
    NotAllowed,
    NotAuthenticated,
    OutcomeUnknown,
    Permanent,
    Transient,
)
from meterpost.core.ids import PostingKey
from meterpost.posting.errors import ClosedPeriod, Rejected
from meterpost.posting.model import DocumentState, differences
from meterpost.testing.postgres import with_database
from meterpost.testing.tryton import TrytonServer

pytestmark = [pytest.mark.integration, pytest.mark.tryton, pytest.mark.timeout(900)]


def test_a_created_invoice_holds_what_was_sent(
    erp: TrytonErp, key: PostingKey, make: SimpleNamespace, today: date
) -> None:
    """The draft read back differs in nothing, and has the product's account and 19 % tax."""
    document = make.document(
        make.line("LLM-TOK-IN", "12.5", "42.5000", reference="C-7/tokens"),
        make.line("BASE-FEE", "1", "49.00", reference="C-7/fee", ordinal=2),
    )
    stored = erp.post(document, key, today, timeout_s=30)
    assert differences(document, stored, key) == ()
    assert stored.state is DocumentState.DRAFT
    assert stored.number is None
    assert stored.date == today
    assert (stored.net, stored.tax, stored.gross) == (
        Decimal("580.25"),
        Decimal("110.25"),
        Decimal("690.50"),
    )
    assert [line.account for line in stored.lines] == ["4.1.1", "4.1.1"]
    assert stored.lines[0].tax_codes == ("VAT 19%",)
    assert stored.lines[0].description == "LLM-TOK-IN as measured"
    assert stored.credited_net == 0


def test_the_golden_tokens_are_billed_to_the_cent(
    erp: TrytonErp, key: PostingKey, make: SimpleNamespace, today: date
) -> None:
    """22,361,870 tokens at 0.0000025 do not fit Tryton's 4 price decimals: 1 × 55.90 does."""
    price = make.line("LLM-TOK-IN", "22361870", "0.0000025")
    assert price.amount == Decimal("55.90")
    with pytest.raises(Rejected, match="digits"):
        erp.post(make.document(price), key, today, timeout_s=30)
    assert erp.find([key]) == {}
    whole = replace(price, quantity=Decimal(1), unit_price=Decimal("55.90"))
    stored = erp.post(make.document(whole), key, today, timeout_s=30)
    assert (stored.net, stored.tax, stored.gross) == (
        Decimal("55.90"),
        Decimal("10.62"),
        Decimal("66.52"),
    )


def test_account_and_tax_of_the_line_win(
    erp: TrytonErp, key: PostingKey, make: SimpleNamespace, today: date
) -> None:
    """Codes on a line replace what Tryton would choose for the product; terms are by name."""
    document = make.document(make.line(account="4.1.2", tax_code="VAT 19%"), payment_term="30 days")
    stored = erp.post(document, key, today, timeout_s=30)
    assert stored.lines[0].account == "4.1.2"
    assert stored.lines[0].tax_codes == ("VAT 19%",)


def test_a_negative_document_is_an_invoice_below_zero(
    erp: TrytonErp, key: PostingKey, make: SimpleNamespace, today: date
) -> None:
    """A credit is a draft of negative amounts with the tax going back too."""
    document = make.document(make.line(quantity="-2", unit_price="10.00"))
    stored = erp.post(document, key, today, timeout_s=30)
    assert differences(document, stored, key) == ()
    assert stored.gross == Decimal("-23.80")


def test_demo_months_have_books(erp: TrytonErp, key: PostingKey, make: SimpleNamespace) -> None:
    """Documents of November 2023 and May 2015 can carry their own dates."""
    assert erp.post(make.document(), key, date(2023, 11, 30), timeout_s=30).date == date(
        2023, 11, 30
    )
    other = make.key()
    assert erp.post(make.document(), other, date(2015, 5, 31), timeout_s=30).reference == other


def test_find_returns_every_document_of_many_keys(
    erp: TrytonErp, make: SimpleNamespace, today: date
) -> None:
    """Known keys come back with all their documents, doubles too; unknown keys are absent."""
    once, twice = make.key(), make.key()
    erp.post(make.document(), once, today, timeout_s=30)
    ids = {erp.post(make.document(), twice, today, timeout_s=30).id for _ in range(2)}
    found = erp.find([once, twice, *(make.key() for _ in range(450))])
    assert set(found) == {once, twice}
    assert {invoice.id for invoice in found[twice]} == ids


def test_read_leaves_out_what_is_not_there(
    erp: TrytonErp, key: PostingKey, make: SimpleNamespace, today: date
) -> None:
    """Ids without an invoice are absent; what is no id is refused."""
    stored = erp.post(make.document(), key, today, timeout_s=30)
    assert set(erp.read([stored.id, "99999999"])) == {stored.id}
    assert erp.read([]) == {}
    with pytest.raises(Permanent, match="no id"):
        erp.read(["INV-1"])


def test_records_are_ours_of_those_days(erp: TrytonErp, make: SimpleNamespace, today: date) -> None:
    """Only posting keys dated within the days are listed; foreign references never."""
    inside, outside = make.key(), make.key()
    erp.post(make.document(), inside, today, timeout_s=30)
    erp.post(make.document(), outside, date(2023, 11, 29), timeout_s=30)
    erp.post(make.document(), PostingKey("UNRELATED-REFERENCE"), today, timeout_s=30)
    listed = {invoice.reference for invoice in erp.records(today, today + timedelta(days=1))}
    assert inside in listed
    assert outside not in listed
    assert "UNRELATED-REFERENCE" not in listed
    november = erp.records(date(2023, 11, 1), date(2023, 11, 30))
    assert outside in {invoice.reference for invoice in november}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"customer": "C-9999"}, "no customer 'C-9999'"),
        ({"currency": "JPY"}, "currency 'JPY'|would make"),
        ({"payment_term": "never"}, "no payment term 'never'"),
    ],
)
def test_what_tryton_does_not_know_is_named(
    erp: TrytonErp,
    key: PostingKey,
    make: SimpleNamespace,
    today: date,
    change: dict[str, str],
    words: str,
) -> None:
    """A document naming what is missing in Tryton is rejected by name and nothing is stored."""
    with pytest.raises(Rejected, match=words):
        erp.post(make.document(**change), key, today, timeout_s=30)
    assert erp.find([key]) == {}


def test_unknown_items_accounts_and_taxes_are_named(
    erp: TrytonErp, key: PostingKey, make: SimpleNamespace, today: date
) -> None:
    """The rejection names the product, account or tax, which Tryton's own message does not."""
    for line, words in (
        (make.line(item="NOPE"), "no product 'NOPE'"),
        (make.line(account="999"), "no account '999'"),
        (make.line(tax_code="VAT 7%"), "no tax 'VAT 7%'"),
    ):
        with pytest.raises(Rejected, match=words):
            erp.post(make.document(line), key, today, timeout_s=30)
    assert erp.find([key]) == {}


def test_a_closed_period_is_refused_before_a_draft_exists(
    erp: TrytonErp, key: PostingKey, make: SimpleNamespace, server: TrytonServer
) -> None:
    """Tryton would take the draft and refuse to post it; we refuse the day at once."""
    closed = date.fromisoformat(server.database.ids["closed_day"])
    with pytest.raises(ClosedPeriod, match="closed"):
        erp.post(make.document(), key, closed, timeout_s=30)
    with pytest.raises(ClosedPeriod, match="no accounting period"):
        erp.post(make.document(), key, date(2001, 1, 1), timeout_s=30)
    assert erp.find([key]) == {}


def test_a_wrong_password_is_a_matter_for_a_person(
    server: TrytonServer, key: PostingKey, make: SimpleNamespace, today: date
) -> None:
    """The sentence names the user, never the password; the health says the same."""
    # A login of its own: wrong passwords lock it.
    erp = connect(server.config(username="nobody-real", password="wrong-secret"))
    with pytest.raises(NotAuthenticated, match="nobody-real") as caught:
        erp.post(make.document(), key, today, timeout_s=30)
    assert "wrong-secret" not in str(caught.value)
    health = erp.check()
    assert not health.ok
    assert "nobody-real" in health.sentence
    erp.close()


def test_a_user_without_rights_is_told_which(
    server: TrytonServer, key: PostingKey, make: SimpleNamespace, today: date
) -> None:
    """Health names the missing right; posting raises NotAllowed and stores nothing."""
    erp = connect(server.config("salesonly"))
    health = erp.check()
    assert not health.ok
    assert "create account.invoice" in health.sentence
    with pytest.raises(NotAllowed):
        erp.post(make.document(), key, today, timeout_s=30)
    erp.close()


def test_health_of_a_working_connection(erp: TrytonErp, server: TrytonServer) -> None:
    """A usable connection says its version; an unknown database or a dead port says why not."""
    health = erp.check()
    assert health.ok, health.sentence
    assert health.version == "8.2"
    dead = connect(server.config(url="http://127.0.0.1:9"))
    assert not dead.check().ok
    with pytest.raises(Transient):
        dead.find([PostingKey("U000000000000000")])
    dead.close()


def test_a_timed_out_creation_is_unknown_and_appears_later(
    erp: TrytonErp,
    key: PostingKey,
    make: SimpleNamespace,
    today: date,
    server: TrytonServer,
    admin_dsn: str,
) -> None:
    """While the server still works on a request we gave up, look-ups find nothing; then one."""
    erp.post(make.document(), make.key(), today, timeout_s=30)  # the look-ups are remembered
    parts = psycopg.conninfo.conninfo_to_dict(admin_dsn)
    dsn = with_database(
        admin_dsn,
        server.database.name,
        user=str(parts["user"]),
        password=str(parts.get("password", "")),
    )
    with psycopg.connect(dsn) as blocker:
        blocker.execute("LOCK TABLE account_invoice IN EXCLUSIVE MODE")
        with pytest.raises(OutcomeUnknown):
            erp.post(make.document(), key, today, timeout_s=2)
        assert erp.find([key]) == {}
        blocker.rollback()
    deadline = time.monotonic() + 60
    while not (found := erp.find([key])) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(found[key]) == 1


def test_a_session_that_ended_is_renewed_once(
    erp: TrytonErp, key: PostingKey, make: SimpleNamespace, today: date
) -> None:
    """The server forgets the session; the next post signs in again and creates one invoice."""
    erp.find([key])
    client = erp._client
    client.call("model.res.user.get_preferences", True, writes=False)
    client._authorization = "Session " + "bm9ib2R5OjE6MA=="
    erp.post(make.document(), key, today, timeout_s=30)
    assert len(erp.find([key])[key]) == 1


def test_threads_share_one_connector(erp: TrytonErp, make: SimpleNamespace, today: date) -> None:
    """Four threads posting at once sign in once and make one invoice per key."""
    keys = [make.key() for _ in range(8)]
    failures: list[BaseException] = []

    def post(some: list[PostingKey]) -> None:
        try:
            for one in some:
                erp.post(make.document(), one, today, timeout_s=60)
        except BaseException as exc:  # noqa: BLE001 - shown by the assertion below
            failures.append(exc)

    threads = [threading.Thread(target=post, args=(keys[n::4],)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert failures == []
    assert {key: len(found) for key, found in erp.find(keys).items()} == dict.fromkeys(keys, 1)
