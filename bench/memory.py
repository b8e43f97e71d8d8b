"""Memory of everything that runs, while events arrive over HTTP and are drained.

    python -m bench.memory [--events 10000000]

PostgreSQL, one edge worker on Granian and an engine process, each as in production, with its
own memory settings. Events are sent in batches of 100 with ids of their own. Every half second
the proportional set sizes (memory shared between processes is counted once) of all their
processes are added up; the figures are that sum after the last event was drained, and its peak.
"""

from __future__ import annotations

import argparse
import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.ingest_http import KEY, family, server_processes
from bench.measure import ROOT, Figure, clean_up_when_terminated, folder, progress, pss_mb, report
from meterpost.core.clock import SystemClock
from meterpost.core.ids import MeterId
from meterpost.metering.model import Aggregation, Meter
from meterpost.metering.service import Metering
from meterpost.storage.duckdb import DuckDbEventStore
from meterpost.storage.postgres.database import Database
from meterpost.storage.postgres.journal import PostgresJournal
from meterpost.storage.postgres.relay import PostgresRelay
from meterpost.testing.postgres import embedded_server, fresh_database

AIM_MB = 1_500
_BATCH = 100
_METERS = (
    Meter(MeterId("requests"), "llm.request", Aggregation.COUNT, "request"),
    Meter(MeterId("tokens"), "llm.request", Aggregation.SUM, "token", value="data.tokens",
          dimensions={"model": "data.model"}),
    Meter(MeterId("seconds"), "llm.request", Aggregation.SUM, "s", value="data.seconds"),
)  # fmt: skip


def run_engine(dsn: str, place: Path) -> None:
    """Drain until stdin closes; a line with the number of drained events after each batch."""
    database = Database(dsn)
    stopping = threading.Event()

    def await_end() -> None:
        sys.stdin.read()
        stopping.set()

    threading.Thread(target=await_end, daemon=True).start()
    source = PostgresJournal(database)
    with DuckDbEventStore(place) as store:
        store.apply_meters(_METERS)
        store.bind(source.end().incarnation)
        metering = Metering(source, store, PostgresRelay(database, SystemClock()))
        drained = 0
        while not stopping.is_set():
            drained += (now := metering.drain().accepted)
            print(drained, flush=True)
            if not now:
                stopping.wait(0.2)
        store.cutoff()


def body(number: int) -> bytes:
    """A batch of events in time order, no id twice; cheap to make."""
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(1_790_000_000 + number * 12))
    return (
        "["
        + ",".join(
            f'{{"specversion":"1.0","id":"{number:08x}-{n:04x}-4c4b-9c6e-7a1d0e5f2b33",'
            f'"source":"/bench/service","type":"llm.request","subject":"customer-'
            f'{(number * 61 + n * 17) % 2000}","time":"{moment}.{n:03d}000Z","data":{{"tokens":'
            f'{(number + n * 7) % 9000},"seconds":"{n}.25","model":"m-{n % 3}"}}}}'
            for n in range(_BATCH)
        )
        + "]"
    ).encode()


def send(port: int, first: int, step: int, end: int, failed: list[str]) -> None:
    """Every ``step``th batch over one connection; 429 is answered by waiting."""
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        headers = {
            "authorization": f"Bearer {KEY}",
            "content-type": "application/cloudevents-batch+json",
        }
        for number in range(first, end, step):
            made = body(number)
            for _ in range(600):
                connection.request("POST", "/v1/events", made, headers)
                reply = connection.getresponse()
                said = reply.read()
                if reply.status not in (429, 503):
                    break
                time.sleep(float(reply.headers.get("retry-after", "0.1")))
            if reply.status != 202:
                raise ValueError(f"{reply.status}: {said[:500]!r}")
        connection.close()
    except (OSError, ValueError, http.client.HTTPException) as exc:
        failed.append(str(exc))


@contextmanager
def edge(dsn: str) -> Iterator[tuple[int, int]]:
    """The process id and port of an edge."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "granian", "--interface", "asgi", "--factory", "--port", str(port),
         "--workers", "1", "--no-access-log", "--log-level", "warning", "ingest_http:make_app"],
        env={**os.environ, "BENCH_DSN": dsn, "PYTHONPATH": str(Path(__file__).parent)},
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 30
        while socket.socket().connect_ex(("127.0.0.1", port)):
            if time.monotonic() > deadline or process.poll() is not None:
                raise SystemExit("the edge does not start")
            time.sleep(0.05)
        yield process.pid, port
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def engine(dsn: str, place: Path) -> Iterator[subprocess.Popen[str]]:
    """The engine process."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.memory", "--engine", str(place)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "BENCH_DSN": dsn},
    )
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(120)
        except subprocess.TimeoutExpired:
            process.kill()


def figures(events: int, within_s: float) -> list[Figure]:
    """Memory at the end and at its peak.

    Raises: SystemExit where sending fails, or draining takes longer than ``within_s``.
    """
    samples: list[dict[str, float]] = []
    failed: list[str] = []
    with folder() as place, embedded_server(place) as admin, fresh_database(admin) as dsn:
        Database(dsn).migrate()
        with edge(dsn) as (edge_pid, port), engine(dsn, place) as drains:
            drained = [0]

            def follow() -> None:
                assert drains.stdout is not None
                for line in drains.stdout:
                    drained[0] = int(line)

            threading.Thread(target=follow, daemon=True).start()
            senders = [
                threading.Thread(
                    target=send, args=(port, first, 4, events // _BATCH, failed), daemon=True
                )
                for first in range(4)
            ]
            for sender in senders:
                sender.start()
            begun = told = time.monotonic()
            while drained[0] < events:
                samples.append(
                    {
                        "edge": pss_mb(family(edge_pid)),
                        "engine": pss_mb([drains.pid]),
                        "postgres": pss_mb(server_processes(dsn)),
                    }
                )
                if failed or drains.poll() is not None or time.monotonic() - begun > within_s:
                    raise SystemExit(f"stopped at {drained[0]:,} of {events:,} events: {failed}")
                if time.monotonic() - told > 10:
                    told = time.monotonic()
                    total = sum(samples[-1].values())
                    progress(f"memory: {drained[0]:,} of {events:,} drained, {total:,.0f} MB")
                time.sleep(0.5)
            took = time.monotonic() - begun
            time.sleep(1)
            last = {
                "edge": pss_mb(family(edge_pid)),
                "engine": pss_mb([drains.pid]),
                "postgres": pss_mb(server_processes(dsn)),
            }
            samples.append(last)
    peak = max(samples, key=lambda sample: sum(sample.values()))
    notes = {"events": events, "sent_and_drained_per_s": round(events / took)}
    return [
        Figure("memory after the drain", "MB", [sum(last.values())], aim=AIM_MB,
               lower_is_better=True, notes={**notes, **_rounded(last)}),
        Figure("memory, peak", "MB", [sum(peak.values())], aim=AIM_MB,
               lower_is_better=True, notes=_rounded(peak)),
    ]  # fmt: skip


def _rounded(sample: dict[str, float]) -> dict[str, object]:
    return {f"{name}_mb": round(value) for name, value in sample.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--within-s", type=float, default=1_800)
    parser.add_argument("--engine", type=Path, help="(used by the bench itself)")
    options = parser.parse_args()
    clean_up_when_terminated()
    if options.engine:
        run_engine(os.environ["BENCH_DSN"], options.engine)
    else:
        report(figures(options.events, options.within_s))


if __name__ == "__main__":
    main()
