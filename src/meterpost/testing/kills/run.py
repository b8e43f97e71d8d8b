"""One session of kills: a fresh installation, work without end, kills, and the verdict."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psycopg

from meterpost.bootstrap import Application
from meterpost.core.errors import MeterpostError, OutcomeUnknown, Transient
from meterpost.engine.ports import Caller
from meterpost.storage.embedded import EmbeddedPostgres
from meterpost.testing.kills import workspace as place
from meterpost.testing.kills.books import Books, Month, contract_names
from meterpost.testing.kills.installation import Installation, until
from meterpost.testing.kills.plan import STAGES, Kill, Stage, kills
from meterpost.testing.kills.postmaster import PostmasterKill
from meterpost.testing.kills.verdict import Verdict, judge
from meterpost.testing.sandbox_erp import SandboxServer, sandbox_server

CONTRACTS = 40
#: Nothing takes longer than this, kills and restarts included.
_PATIENCE_S = 120.0
_BATCH_CONTRACTS = 20
_RETRY_S = 0.1

_FAULTS = {
    "commit_then_drop": {"probability": 0.03},
    "status_503": {"probability": 0.03, "retry_after_s": 0.2},
}
_UNSETTLED = """
    SELECT count(*) FROM meterpost.staged_transaction
    WHERE state NOT IN ('nothing_due', 'posted', 'reconciled', 'superseded', 'reversed')
"""
_LAST_CLOSE = "SELECT coalesce(max(id), 0) FROM meterpost.close"

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Session:
    """What happened: the kills that hit work in progress, and what was lost or doubled."""

    seed: int
    kills: Sequence[Kill]
    verdict: Verdict
    seconds: float


def run_session(folder: Path, total: int, seed: int, say: Say) -> Session:
    """``total`` kills in a new installation under ``folder``, and the verdict.

    Raises: TimeoutError or RuntimeError where the work does not go on; MeterpostError for a
    refusal that no kill explains.
    """
    started = time.monotonic()
    source = random.Random(seed)  # noqa: S311  (kills are to be repeated, not to be secret)
    now = datetime.now(UTC)
    books = Books(contract_names(CONTRACTS), Month.before(now), source)
    with ExitStack() as stack:
        erp = stack.enter_context(sandbox_server(folder / "erp", "--seed", str(seed)))
        place.furnish_erp(erp, books.contracts, now)
        space = place.write_workspace(folder / "ws", erp)
        stack.callback(_remove_database, space.places.postgres)
        server = EmbeddedPostgres(space.places.postgres)
        stack.callback(server.stop)
        app = Application(space, server.start())
        try:
            token = place.furnish(app, books.contracts, books.month)
        finally:
            app.close()
        planned = kills(total, source)
        with Installation(space, server, say) as installation:
            installation.engine.plan([each for each in planned if each.victim == "engine"])
            installation.edge.plan([each for each in planned if each.victim == "edge"])
            try:
                until(installation.ready, "the processes are not ready", within_s=_PATIENCE_S)
            except TimeoutError as exc:
                raise RuntimeError(f"{exc}. They said: {installation.last_words()}") from exc
            with _Driver(installation, books, erp, token, source) as driver:
                for stage in STAGES:
                    driver.attack(stage, planned)
                driver.finish()
                balance = driver.balance()
            # A kill is noted when the next run starts, so all are noted while it runs.
            happened = tuple(installation.kills)
        say("the processes are stopped; comparing with the books")
        verdict = judge(space, server, books, driver.version_of_close, erp, balance, folder)
    return Session(seed, happened, verdict, time.monotonic() - started)


class _Driver:
    """Sends, closes and waits for posting, repeating what a kill broke off."""

    def __init__(
        self,
        installation: Installation,
        books: Books,
        erp: SandboxServer,
        token: str,
        source: random.Random,
    ) -> None:
        self._installation = installation
        self._books = books
        self._erp = erp
        self._random = source
        self._engine = installation.client()
        #: Which version of the books a close has to come to.
        self.version_of_close: dict[int, int] = {}
        self._http = httpx.Client(
            base_url=installation.url,
            headers={
                "authorization": f"Bearer {token}",
                "content-type": "application/cloudevents-batch+json",
            },
            timeout=30.0,
            trust_env=False,
        )

    def __enter__(self) -> _Driver:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def attack(self, stage: Stage, planned: Sequence[Kill]) -> None:
        """Work of the stage until all its kills have happened."""
        mine = [kill for kill in planned if kill.stage == stage]
        work = {"ingest": self._ingest, "close": self._close_all, "posting": self._post_all}[stage]
        self._erp.faults(**_FAULTS)
        for kill in mine:
            if kill.victim == "postgres":
                with PostmasterKill(self._installation, kill, self._random) as watch:
                    self._work_until(work, watch.done, kill)
        for kill in mine:
            wanted = mine.count(kill)

            def happened(kill: Kill = kill, wanted: int = wanted) -> bool:
                return self._installation.kills.count(kill) >= wanted

            self._work_until(work, happened, kill)

    def finish(self) -> None:
        """A last late close of everything, posted to the end, without faults."""
        self._erp.faults()
        self._send_all()
        self._close()
        until(self._settled, "postings are left", within_s=_PATIENCE_S)
        reconciled = self._ask("reconcile.run", {})
        if not reconciled["clean"]:
            differing = [d for c in reconciled["connections"] for d in c["documents"]]
            raise RuntimeError(f"the ERP differs: {differing[:3]}")

    def balance(self) -> Any:
        """The four ledgers, as the engine computes them."""
        return self._ask("balance", {"period": self._books.month.name})

    # -- stages of work -----------------------------------------------------------------------

    def _work_until(self, work: Callable[[], None], done: Callable[[], bool], kill: Kill) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while not done():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{kill.armed} was not reached in {_PATIENCE_S:.0f} s of work")
            self._installation.require_alive()
            work()

    def _ingest(self) -> None:
        self._send(self._random.sample(self._books.contracts, _BATCH_CONTRACTS))

    def _close_all(self) -> None:
        self._send_all()
        self._close()

    def _post_all(self) -> None:
        self._close_all()
        until(self._settled, "postings are left", within_s=_PATIENCE_S)

    def _send_all(self) -> None:
        contracts = list(self._books.contracts)
        for start in range(0, len(contracts), _BATCH_CONTRACTS):
            self._send(contracts[start : start + _BATCH_CONTRACTS])

    def _send(self, contracts: Sequence[str]) -> None:
        """The same batch, byte for byte, until it is answered 202."""
        batch = self._books.batch(contracts)

        def accepted() -> bool:
            try:
                answer = self._http.post("/v1/events", content=batch.body)
            except httpx.TransportError:
                return False
            if answer.status_code == 202:
                if answer.json()["accepted"] != batch.events:
                    raise RuntimeError(f"not all events were accepted: {answer.text}")
                return True
            if answer.status_code not in (429, 500, 502, 503, 504):
                raise RuntimeError(f"the edge refuses: {answer.status_code} {answer.text}")
            return False

        until(accepted, "a batch is not accepted", within_s=_PATIENCE_S, every_s=_RETRY_S)
        self._books.acknowledged(batch)

    def _close(self) -> None:
        """A late close, asked for until it is staged; nothing is sent meanwhile."""
        version = self._books.freeze()
        ask = "late"

        def staged() -> bool:
            nonlocal ask
            arguments = {"period": self._books.month.name, "entity": place.ENTITY, "ask": ask}
            state = self._ask("close.run", arguments)["close"]["state"]
            ask = "latest"
            return bool(state == "staged")

        until(staged, "a close is not staged", within_s=_PATIENCE_S, every_s=0.3)
        newest = self._last_close()
        for close in range(max(self.version_of_close, default=0) + 1, newest + 1):
            self.version_of_close[close] = version

    def _ask(self, operation: str, arguments: Mapping[str, object]) -> Any:
        """The engine's answer, asked for again where a kill was in the way."""
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                return self._engine.call(
                    operation, arguments, caller=Caller(user=place.CLOSER), timeout_s=60.0
                )
            except (Transient, OutcomeUnknown):
                if time.monotonic() > deadline:
                    raise
                self._installation.require_alive()
                time.sleep(_RETRY_S)

    def _settled(self) -> bool:
        return self._number(_UNSETTLED) == 0

    def _last_close(self) -> int:
        found: list[int] = []

        def known() -> bool:
            number = self._number(_LAST_CLOSE)
            if number is not None:
                found.append(number)
            return bool(found)

        until(known, "the database does not answer", within_s=_PATIENCE_S)
        return found[0]

    def _number(self, statement: str) -> int | None:
        """A number from the database, None while it does not answer."""
        try:
            with psycopg.connect(
                self._installation.server.dsn(), autocommit=True, connect_timeout=5
            ) as connection:
                row = connection.execute(statement.encode()).fetchone()
        except (psycopg.Error, MeterpostError):
            return None
        return None if row is None else int(row[0])


def _remove_database(data: Path) -> None:
    """Under root the server's user cannot reach the folder, and its data stands elsewhere."""
    if data.is_symlink():
        shutil.rmtree(data.resolve().parent)
