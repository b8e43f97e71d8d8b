"""Command line of the Tryton fixture: install it, fill a database, serve it."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
import time
from pathlib import Path

from meterpost.core.errors import MeterpostError
from meterpost.testing.tryton import (
    TrytonServer,
    add_parties,
    create_database,
    drop_database,
    ensure_environment,
    serve,
)
from meterpost.testing.tryton.databases import parties_from_file


def main(arguments: list[str] | None = None) -> int:
    """Exit code of one command."""
    parser = argparse.ArgumentParser(prog="python -m meterpost.testing.tryton")
    parser.add_argument("--root", type=Path, default=Path(".erps"), help="where it is installed")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("install", help="make Tryton's environment")
    for name, text in (
        ("create", "make a database with the set-up data and print its ids"),
        ("serve", "make a database, serve it until interrupted, drop it"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("admin_dsn", help="URL of a PostgreSQL superuser")
        command.add_argument("database")
        command.add_argument("--customers", type=Path, help="JSON file of codes and names")
    given = parser.parse_args(arguments)
    try:
        return _run(given)
    except MeterpostError as exc:
        print(exc, file=sys.stderr)
        return 1


def _run(given: argparse.Namespace) -> int:
    started = time.monotonic()
    install = ensure_environment(given.root)
    _say("environment", started)
    if given.command == "install":
        return 0
    started = time.monotonic()
    database = create_database(install, given.admin_dsn, given.database)
    _say("database", started)
    if given.command == "create":
        with serve(install, database) as server:
            _add_customers(server, given.customers)
        print(json.dumps(dict(database.ids), indent=1))
        return 0
    try:
        started = time.monotonic()
        with serve(install, database) as server:
            _say("server", started)
            _add_customers(server, given.customers)
            print(json.dumps({"url": server.url, "pid": server.pid, **database.ids}))
            sys.stdout.flush()
            threading.Event().wait()
    except KeyboardInterrupt:
        pass
    finally:
        drop_database(given.admin_dsn, given.database)
    return 0


def _add_customers(server: TrytonServer, file: Path | None) -> None:
    if file is not None:
        made = add_parties(server, parties_from_file(file))
        print(f"{len(made)} customers", file=sys.stderr)


def _say(what: str, started: float) -> None:
    print(f"{what}: {time.monotonic() - started:.1f} s", file=sys.stderr)


if __name__ == "__main__":
    # SIGTERM ends it as Ctrl-C does: the server is stopped and the database dropped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    raise SystemExit(main())
