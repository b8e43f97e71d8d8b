"""Events accepted over HTTP: batches of 100, and single requests.

    python -m bench.accept [--seconds 8] [--runs 3]

`bench.ingest_http` measures, several times, one edge worker over an fsynced journal, with the
load on the same machine. The floor of the batches is plain DuckDB: each prepared batch parsed
by `read_json` into a table on disk, one commit a batch. The floor of the single requests is the
same worker answering without doing anything.
"""

from __future__ import annotations

import argparse
import time

import duckdb

from bench.ingest_http import measure, prepared_requests
from bench.measure import Figure, clean_up_when_terminated, folder, progress, report
from meterpost.storage.postgres.database import Database
from meterpost.testing.postgres import embedded_server, fresh_database

BATCH = 100
#: Enough that a group commit has company: requests that come during a commit share the next.
BATCH_CONNECTIONS = 32
SINGLE_CONNECTIONS = 256
#: Half of what a prototype reached on two cores.
AIM_EVENTS_PER_S = 224_500
AIM_REQUESTS_PER_S = 6_000


def floor_events_per_s(seconds: float) -> float:
    """Events per second of DuckDB storing the same batches, each in a transaction of its own."""
    bodies = [request.split(b"\r\n\r\n", 1)[1] for request in prepared_requests(BATCH)]
    with folder() as place, duckdb.connect(str(place / "floor.duckdb")) as db:
        files = []
        for number, body in enumerate(bodies):
            files.append(place / f"{number}.json")
            files[-1].write_bytes(body)
        columns = "source VARCHAR, id VARCHAR, type VARCHAR, subject VARCHAR, time TIMESTAMPTZ"
        named = ", ".join(f"{part.split()[0]}: '{part.split()[1]}'" for part in columns.split(", "))
        db.execute(f"CREATE TABLE e ({columns}, data JSON)")
        begun, stored = time.perf_counter(), 0
        while time.perf_counter() - begun < seconds:
            path = files[stored // BATCH % len(files)]
            db.execute(
                f"INSERT INTO e SELECT * FROM read_json(?, columns = {{{named}, data: 'JSON'}})",
                [str(path)],
            ).fetchall()
            stored += BATCH
        return stored / (time.perf_counter() - begun)


def figures(seconds: float, runs: int) -> list[Figure]:
    """The two figures, each over several runs into one journal."""
    with folder() as place, embedded_server(place) as admin, fresh_database(admin) as dsn:
        Database(dsn).migrate()
        batches, singles, bare = [], [], []
        for run in range(1, runs + 1):
            batches.append(measure(dsn, seconds, BATCH_CONNECTIONS, BATCH))
            progress(f"accept: run {run}, {batches[-1]['events_per_s']:,} events/s in batches")
            singles.append(measure(dsn, seconds, SINGLE_CONNECTIONS, 1))
            progress(f"accept: run {run}, {singles[-1]['requests_per_s']:,} single requests/s")
            bare.append(measure(dsn, min(seconds, 3), SINGLE_CONNECTIONS, 1, "make_bare"))
    floors = [floor_events_per_s(min(seconds, 3)) for _ in range(runs)]
    return [
        Figure("accept, batches of 100", "events/s", _all(batches, "events_per_s"), floors,
               aim=AIM_EVENTS_PER_S, notes=_notes(batches)),
        Figure("accept, single requests", "requests/s", _all(singles, "requests_per_s"),
               _all(bare, "requests_per_s"), aim=AIM_REQUESTS_PER_S, notes=_notes(singles)),
        Figure("accept, single, p50", "ms", _all(singles, "p50_ms"), lower_is_better=True),
        Figure("accept, single, p99", "ms", _all(singles, "p99_ms"), lower_is_better=True),
    ]  # fmt: skip


def _all(found: list[dict[str, object]], name: str) -> list[float]:
    return [float(str(each[name])) for each in found]


def _notes(found: list[dict[str, object]]) -> dict[str, object]:
    names = ("connections", "edge_cpu_us_per_event", "server_cpu_us_per_event", "edge_pss_mb")
    return {name: found[-1][name] for name in names}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    clean_up_when_terminated()
    report(figures(options.seconds, options.runs))


if __name__ == "__main__":
    main()
