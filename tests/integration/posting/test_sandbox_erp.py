"""The whole life against a real sandbox process that misbehaves, judged by its own oracle."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from meterpost.connectors import sandbox
from meterpost.core.clock import SystemClock
from meterpost.core.crashpoints import ENVIRONMENT_VARIABLE
from meterpost.posting.config import ConnectionConfig
from meterpost.posting.connector import ErpConnector
from meterpost.posting.context import BackOffs
from meterpost.posting.service import Poster
from meterpost.posting.throttle import BackOff
from meterpost.storage.postgres.posting import PostgresPostingStores
from meterpost.testing.sandbox_erp import SandboxServer, sandbox_server
from meterpost_sandbox.oracle import check

pytestmark = pytest.mark.integration

SETTINGS = {"timeout_s": 1.5, "lease_s": 0.5, "request_limit_s": 2.0, "margin_s": 0.5}
QUICK = BackOffs(
    transaction=BackOff(0.2, 1.0), connection=BackOff(0.2, 1.0), probe=BackOff(0.2, 1.0)
)


@pytest.fixture
def erp(tmp_path: Path) -> Iterator[SandboxServer]:
    with sandbox_server(tmp_path / "erp", "--seed", "7") as server:
        yield server


@pytest.fixture
def run(books: Any, erp: SandboxServer) -> Iterator[Any]:
    """Run posters in threads until nothing is on its way any more."""
    connectors: list[ErpConnector] = []

    def run(
        *, posters: int = 1, seconds: float = 60, token: str | None = None, **more: Any
    ) -> None:
        config = ConnectionConfig(
            "erp",  # type: ignore[arg-type]
            "sandbox",
            "test",
            erp.url,
            attempts_max=200,
            **{**SETTINGS, **more},
        )
        stop = threading.Event()
        running = []
        for number in range(posters):
            connector = sandbox.open_erp(config, {"token": token or erp.token})
            connectors.append(connector)
            poster = Poster(
                config,
                connector,
                PostgresPostingStores(books.database),
                SystemClock(),
                poster=f"p{number}-{time.monotonic_ns()}",
                back_offs=QUICK,
            )
            thread = threading.Thread(target=poster.run, args=(stop,), kwargs={"poll_s": 0.05})
            thread.start()
            running.append((poster, thread))
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not books.states() <= {"posted", "rejected"}:
            time.sleep(0.05)
        stop.set()
        for poster, thread in running:
            thread.join(30)
            poster.close()

    yield run
    for connector in connectors:
        connector.close()


FAULTS: dict[str, dict[str, object]] = {
    "commit_then_drop": {"commit_then_drop": {"probability": 0.4}},
    "drop_before_commit": {"drop_before_commit": {"probability": 0.3}},
    "429": {"status_429": {"probability": 0.4, "retry_after_s": 0.1, "on": "all"}},
    "500": {"status_500": {"probability": 0.3}},
    "503": {"status_503": {"probability": 0.4, "retry_after_s": 0.1, "on": "all"}},
    "stall": {"stall_s": {"seconds": 2.0, "probability": 0.3}},
    "hidden": {
        "commit_then_drop": {"probability": 0.4},
        "delayed_visibility_s": {"seconds": 2, "probability": 1},
    },
    "everything": {
        "commit_then_drop": {"probability": 0.15},
        "drop_before_commit": {"probability": 0.1},
        "status_429": {"probability": 0.1, "retry_after_s": 0.1, "on": "all"},
        "status_500": {"probability": 0.1, "on": "all"},
        "status_503": {"probability": 0.1, "retry_after_s": 0.1, "on": "all"},
    },
}


@pytest.mark.parametrize("fault", FAULTS)
def test_nothing_is_lost_and_nothing_twice(
    books: Any, erp: SandboxServer, run: Any, fault: str
) -> None:
    """Two posters, twelve documents, one kind of misbehaviour: the ERP's books are exact."""
    for number in range(12):
        books.stage(f"{number + 1}.50")
    erp.faults(**FAULTS[fault])
    run(posters=2, visibility_s=2.0 if fault == "hidden" else 0.0)
    assert books.states() == {"posted"}
    report = check(erp.ledger, books.expected())
    assert report.clean, report
    assert sum(erp.stats()["faults"].values()) > 0  # type: ignore[attr-defined]
    assert books.exceptions() == []
    [held] = books.rows("SELECT sum(held_net) FROM meterpost.receipt", one=True)
    assert held == sum(books.expected().values())


def test_the_golden_amount_and_a_credit(books: Any, erp: SandboxServer, run: Any) -> None:
    """22,361,870 tokens at 0.0000025 are 55.90; the later credit of 5.90 is its own document."""
    books.stage("55.90", quantity="22361870", unit_price="0.0000025", business_key="K")
    run()
    books.stage(
        "-5.90", quantity="-1", unit_price="5.90", business_key="K", revision=2, held="55.90"
    )
    run()
    rows = books.rows("SELECT net, tax, gross, comparison FROM meterpost.receipt ORDER BY id")
    assert [tuple(row) for row in rows] == [
        (Decimal("55.90"), Decimal("11.18"), Decimal("67.08"), "equal"),
        (Decimal("-5.90"), Decimal("-1.18"), Decimal("-7.08"), "equal"),
    ]
    assert check(erp.ledger, books.expected()).clean


def test_an_outage_is_waited_for(books: Any, erp: SandboxServer, run: Any) -> None:
    """Down: everything deferred or waiting, nothing lost; up again: everything posted."""
    for _ in range(5):
        books.stage()
    erp.faults(down=True)
    run(seconds=3)
    assert books.states() <= {"approved", "deferred"}
    erp.faults()
    run()
    assert books.states() == {"posted"}
    assert check(erp.ledger, books.expected()).clean


def test_wrong_credentials_are_one_exception(books: Any, erp: SandboxServer, run: Any) -> None:
    """With the wrong token nothing is posted and one person is asked; with the right one all is."""
    for _ in range(3):
        books.stage()
    run(token="wrong", seconds=1.5)
    assert books.states() == {"approved"}
    assert books.exceptions() == ["connection_credentials"]
    run()
    assert books.states() == {"posted"}
    assert books.exceptions() == []


def test_one_rejected_of_many(books: Any, erp: SandboxServer, run: Any) -> None:
    """A reference the ERP refuses is rejected in its words; the others are posted."""
    many = [books.stage() for _ in range(5)]
    erp.faults(reject_reference=[books.key(many[2])])
    run()
    assert [books.state(one) for one in many] == ["posted", "posted", "rejected", *["posted"] * 2]
    [exception] = books.rows("SELECT * FROM meterpost.exception")
    assert exception.detail["vendor_text"].startswith("rejected_reference")


def test_a_closed_period_waits(books: Any, erp: SandboxServer, run: Any) -> None:
    """Deferred with an exception; nothing moves into another month by itself."""
    erp.master("periods", {"code": "2026-11", "state": "closed"})
    one = books.stage(date_from=date(2026, 11, 1), date_to=date(2026, 11, 1))
    run(seconds=1)
    assert (books.state(one), books.exceptions()) == ("deferred", ["closed_period"])
    assert check(erp.ledger, {}).documents == 0


POINTS = {
    "posting.reserve.after_commit": "sending",
    "posting.send.before": "sending",
    "posting.send.after": "sending",
    "posting.record.before_commit": "sending",
    "posting.record.after_commit": "posted",
}


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_poster_leaves_exactly_one_document(
    books: Any, erp: SandboxServer, tmp_path: Path, script: Path, point: str
) -> None:
    """SIGKILL at the second passage of each point, then a successor: three documents, each once."""
    many = [books.stage() for _ in range(3)]
    command = [
        *(sys.executable, str(script), books.database.dsn, erp.url),
        str(tmp_path / "erp" / "erp.token"),
    ]
    environment = {**os.environ, ENVIRONMENT_VARIABLE: f"{point}:2"}
    killed = subprocess.run([*command, "30"], env=environment, timeout=60, check=False)
    assert killed.returncode == -9
    # The kill hit work in progress: the second transaction is on its way, the third untouched.
    assert [books.state(one) for one in many] == ["posted", POINTS[point], "approved"]
    successor = subprocess.Popen([*command, "40"])
    try:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and books.states() != {"posted"}:
            time.sleep(0.05)
    finally:
        successor.terminate()
        successor.wait(10)
    assert books.states() == {"posted"}
    report = check(erp.ledger, books.expected())
    assert report.clean, report
