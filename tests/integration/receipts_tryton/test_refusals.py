"""What Tryton refuses while the whole application posts to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from meterpost.staging.model import State
from meterpost.testing.postgres import fresh_database
from meterpost.testing.receipts_contract import GOLDEN
from meterpost.testing.tryton import TrytonServer, add_parties
from meterpost.testing.whole import ERP, ErpConnection, ErpNames, Somebody, Whole, whole

pytestmark = [pytest.mark.integration, pytest.mark.tryton, pytest.mark.timeout(900)]


MISSING = "C-4711"
_PERIOD_OF = "UPDATE account_period SET state = %s WHERE %s BETWEEN start_date AND end_date"


@pytest.fixture
def names(names: ErpNames) -> ErpNames:
    """Two customers, one of whom Tryton does not have."""
    return replace(names, customers={"alpha": "C-1001", "beta": MISSING})


def test_a_closed_month_in_tryton_is_waited_for(
    bench: Whole, books: psycopg.Connection[tuple[object, ...]]
) -> None:
    """While Tryton's month of the posting day is closed nothing is sent; opened, it is posted."""
    today = bench.clock.now().date()
    bench.use(GOLDEN)
    books.execute(_PERIOD_OF, ("closed", today))
    bench.bill()
    (waiting,) = bench.transactions("C-alpha")
    assert waiting.state is State.DEFERRED
    assert bench.exceptions() == ["closed_period"]
    assert list(bench.app.connector(ERP).find([waiting.posting_key])) == []
    bench.require_whole()

    books.execute(_PERIOD_OF, ("open", today))
    assert waiting.not_before is not None
    bench.clock.sleep((waiting.not_before - bench.clock.now()).total_seconds() + 1)
    bench.post()
    assert bench.transaction(waiting.id).state is State.POSTED
    assert bench.document(waiting.id).date is not None
    assert bench.reconcile().clean
    assert bench.exceptions() == []
    bench.require_whole()


def test_one_rejected_of_many_stops_no_other(bench: Whole, erp: TrytonServer) -> None:
    """A customer that Tryton does not have is one exception; once it has it, a retry posts."""
    bench.use(GOLDEN)
    bench.use(GOLDEN, subject="beta")
    bench.bill()
    states = {each.business_key: each.state for each in bench.transactions()}
    assert states == {"C-alpha": State.POSTED, "C-beta": State.REJECTED}
    assert bench.exceptions() == ["rejected_by_erp"]
    bench.require_whole()

    add_parties(erp, [(MISSING, "Beta Logistik GmbH")])
    (refused,) = bench.transactions("C-beta")
    bench.app.review.retry(refused.id, Somebody("ada"), "the customer exists now")
    bench.post()
    assert bench.transaction(refused.id).state is State.POSTED
    assert bench.document(refused.id).customer == MISSING
    assert bench.reconcile().clean
    assert bench.exceptions() == []
    bench.require_whole()


def test_wrong_credentials_stop_the_connection_once(
    postgres: str, tmp_path: Path, connection: ErpConnection, names: ErpNames
) -> None:
    """A login that Tryton refuses pauses the connection: one exception, nothing tried again."""
    # A login of its own: wrong passwords lock it.
    wrong = ErpConnection(
        connection.connector,
        connection.url,
        {"password": "not-the-password"},
        {**connection.options, "username": "nobody-real"},
    )
    with fresh_database(postgres) as dsn, whole(dsn, tmp_path / "app", wrong, names) as bench:
        bench.use(GOLDEN)
        bench.use(GOLDEN, subject="beta")
        bench.bill()
        bench.post()
        assert bench.exceptions() == ["connection_credentials"]
        assert {each.state for each in bench.transactions()} == {State.APPROVED}
        assert {each.attempts for each in bench.transactions()} == {0}
        bench.require_whole()
