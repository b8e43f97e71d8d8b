"""Events per second through the HTTP edge into an fsynced journal.

    python bench/ingest_http.py [--seconds 8] [--connections 64] [--batch 100]

One Granian worker serves `EventsApp` over an embedded PostgreSQL with production settings. The
load comes from wrk where it is installed, otherwise from a Python process (which then takes a
good part of the machine itself): prepared requests, one at a time on each connection. The
journal is counted afterwards, so the figures are of events found there. CPU seconds are given
per part, since load, edge and server share the machine. Beside each figure stands what the
same worker does with the same requests when it only answers them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil

from meterpost.access.model import Principal, Role, Scope
from meterpost.api.events import EventsApp
from meterpost.core.errors import NotAuthenticated
from meterpost.core.ids import UserId
from meterpost.ingest.checks import Checks
from meterpost.ingest.service import Intake
from meterpost.storage.postgres.database import Database
from meterpost.storage.postgres.journal_writer import JournalWriter
from meterpost.testing.postgres import embedded_server, fresh_database

KEY = "bench.key"


def make_app() -> EventsApp:
    """What Granian serves (`ingest_http:make_app` as a factory)."""
    writer = JournalWriter(Database(os.environ["BENCH_DSN"]))
    checks = Checks(metered={"llm.request": ("data.tokens",)})

    def authenticate(token: str) -> Principal:
        if token != KEY:
            raise NotAuthenticated("The API key is unknown.")
        scopes = frozenset({Scope.EVENTS_WRITE})
        return Principal(UserId("bench"), frozenset({Role.ENGINEER}), scopes, "bench")

    return EventsApp(Intake(checks, writer), authenticate, start=writer.start, stop=writer.stop)


def make_bare() -> Callable[..., Awaitable[None]]:
    """The floor: reads a request and answers it, nothing else."""

    async def bare(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        while (await receive()).get("more_body"):
            pass
        headers = [(b"content-type", b"application/json"), (b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 202, "headers": headers})
        await send({"type": "http.response.body", "body": b"{}"})

    return bare


def request_body(number: int, events: int) -> bytes:
    made = [
        {
            "specversion": "1.0",
            "id": f"{number:08x}-{n:06x}-4c4b-9c6e-7a1d0e5f2b33",
            "source": "/bench/service",
            "type": "llm.request",
            "subject": f"customer-{(number * events + n) % 997}",
            "time": "2026-10-31T12:34:56.789012Z",
            "data": {"tokens": n + 1, "model": "m-large"},
        }
        for n in range(events)
    ]
    plain = made if events > 1 else made[0]
    return json.dumps(plain, separators=(",", ":")).encode()


def prepared_requests(batch: int) -> list[bytes]:
    kind = "cloudevents-batch" if batch > 1 else "cloudevents"
    requests = []
    for number in range(64 if batch > 1 else 2_000):
        body = request_body(number, batch)
        head = (
            f"POST /v1/events HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {KEY}\r\n"
            f"content-type: application/{kind}+json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        requests.append(head.encode() + body)
    return requests


def wrk_script(batch: int) -> str:
    """Lua that hands wrk the prepared requests in turn and prints what we want to know."""
    listed = ",\n".join(f"[==[\n{one.decode()}]==]" for one in prepared_requests(batch))
    return f"""local requests = {{{listed}}}
for i = 1, #requests do requests[i] = requests[i]:gsub("\\r?\\n", "\\r\\n") end
local n = 0
request = function() n = n % #requests + 1; return requests[n] end
done = function(summary, latency)
  io.write(string.format('{{"requests": %d, "failed": %d, "p50_ms": %.3f, "p99_ms": %.3f}}',
    summary.requests, summary.errors.status, latency:percentile(50) / 1000,
    latency:percentile(99) / 1000))
end
"""


def load(port: int, seconds: float, connections: int, batch: int) -> None:
    """The load without wrk; prints requests answered with 202 and percentiles of their ms."""
    requests = prepared_requests(batch)
    variants = len(requests)
    took: list[float] = []

    async def connection(offset: int, until: float) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        n = offset
        while (start := time.perf_counter()) < until:
            writer.write(requests[n % variants])
            n += connections
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 202"):
                raise SystemExit(head.decode())
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            took.append(time.perf_counter() - start)
        writer.close()

    async def run() -> None:
        until = time.perf_counter() + seconds
        await asyncio.gather(*(connection(n, until) for n in range(connections)))

    asyncio.run(run())
    took.sort()
    print(json.dumps({"requests": len(took), "p50_ms": took[len(took) // 2] * 1000,
                      "p99_ms": took[len(took) * 99 // 100] * 1000}))  # fmt: skip


def measure(
    dsn: str, seconds: float, connections: int, batch: int, app: str = "make_app"
) -> dict[str, object]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    here = Path(__file__).parent
    edge = subprocess.Popen(
        [sys.executable, "-m", "granian", "--interface", "asgi", "--factory", "--port", str(port),
         "--workers", "1", "--no-access-log", "--log-level", "warning", f"ingest_http:{app}"],
        env={**os.environ, "BENCH_DSN": dsn, "PYTHONPATH": str(here)},
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 30
        while socket.socket().connect_ex(("127.0.0.1", port)):
            if time.monotonic() > deadline or edge.poll() is not None:
                raise SystemExit("the edge does not start")
            time.sleep(0.05)
        before = stored(dsn)
        start = time.perf_counter()
        server = server_processes(dsn)
        cpu = [sum(map(busy, family(edge.pid))), sum(map(busy, server))]
        if shutil.which("wrk"):
            with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
                script.write(wrk_script(batch))
                script.flush()
                command = ["wrk", "-t1", f"-c{connections}", f"-d{round(seconds)}s",
                           "-s", script.name, f"http://127.0.0.1:{port}/v1/events"]  # fmt: skip
                said = subprocess.run(command, capture_output=True, check=True, timeout=600)
        else:
            command = [sys.executable, __file__, "--load", str(port), "--seconds", str(seconds),
                       "--connections", str(connections), "--batch", str(batch)]  # fmt: skip
            said = subprocess.run(command, capture_output=True, check=True, timeout=600)
        server = server_processes(dsn)
        cpu = [sum(map(busy, family(edge.pid))) - cpu[0], sum(map(busy, server)) - cpu[1]]
        elapsed = time.perf_counter() - start
        memory = sum(
            one.memory_full_info().pss
            for one in [psutil.Process(edge.pid), *psutil.Process(edge.pid).children(True)]
        )
    finally:
        edge.terminate()
        edge.wait(30)
    answers = json.loads(said.stdout[said.stdout.rindex(b"{") :])
    events = stored(dsn) - before
    if app == "make_bare":
        return {"requests_per_s": round(answers["requests"] / seconds)}
    if events < answers["requests"] * batch or answers.get("failed"):
        raise SystemExit(f"{answers} for batches of {batch}, {events} events stored")
    return {
        "batch": batch,
        "connections": connections,
        "events_per_s": round(events / seconds),
        "requests_per_s": round(answers["requests"] / seconds),
        "p50_ms": round(answers["p50_ms"], 2),
        "p99_ms": round(answers["p99_ms"], 2),
        "edge_pss_mb": round(memory / 1e6),
        "edge_cpu_us_per_event": round(cpu[0] / events * 1e6, 2),
        "server_cpu_us_per_event": round(cpu[1] / events * 1e6, 2),
        "elapsed_s": round(elapsed, 1),
    }


def server_processes(dsn: str) -> list[int]:
    """The server's process ids, the postmaster first, so that ended children count through it."""
    with Database(dsn).raw_connection() as raw:
        row = raw.execute("SELECT pg_backend_pid()").fetchone()
        assert row is not None
        postmaster = psutil.Process(row[0]).parent()
        assert postmaster is not None
        return [postmaster.pid, *(one.pid for one in postmaster.children())]


def family(pid: int) -> list[int]:
    return [pid, *(one.pid for one in psutil.Process(pid).children(recursive=True))]


def busy(pid: int) -> float:
    """CPU seconds of the process, and of those of its children that have ended."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return sum((times.user, times.system, times.children_user, times.children_system))


def stored(dsn: str) -> int:
    with Database(dsn).raw_connection() as raw:
        row = raw.execute("SELECT coalesce(sum(events), 0) FROM meterpost.journal").fetchone()
    assert row is not None
    return int(row[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--connections", type=int, default=0, help="0: 8 for batches, 64 singly")
    parser.add_argument(
        "--batch", type=int, default=0, help="0: batches of 100, then 1,000, then 1"
    )
    parser.add_argument("--load", type=int, default=0, help="(used by the bench itself)")
    given = parser.parse_args()
    if given.load:
        load(given.load, given.seconds, given.connections, given.batch)
        return
    with (
        tempfile.TemporaryDirectory() as folder,
        embedded_server(Path(folder)) as admin,
        fresh_database(admin) as dsn,
    ):
        Database(dsn).migrate()
        for batch in [given.batch] if given.batch else [100, 1_000, 1]:
            connections = given.connections or (64 if batch == 1 else 8)
            floor = measure(dsn, min(3, given.seconds), connections, batch, "make_bare")
            found = measure(dsn, given.seconds, connections, batch)
            found["bare_requests_per_s"] = floor["requests_per_s"]
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
