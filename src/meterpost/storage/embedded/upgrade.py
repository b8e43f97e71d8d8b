"""Bringing a cluster to a newer major version of PostgreSQL, with the old one kept.

Order of things, each step repeatable after a crash:

1. the old server is started and stopped once (crash recovery; it counts its rows);
2. ``pg_upgrade`` copies into ``<data>.upgraded``;
3. the new server is started there and must count the same;
4. ``<data>`` becomes ``<data>.before-<old>``, ``<data>.upgraded`` becomes ``<data>``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql

from meterpost.core.errors import Conflict, NotFound, Permanent
from meterpost.storage.embedded.account import Account, server_account
from meterpost.storage.embedded.binaries import Binaries, binaries_for, clean_environment
from meterpost.storage.embedded.cluster import ADMIN, Secret, make_cluster
from meterpost.storage.embedded.places import OwnershipLock, Places, socket_directory
from meterpost.storage.embedded.postmaster import running_server
from meterpost.storage.embedded.server import CURRENT_VERSION, EmbeddedPostgres

_VERIFIED = "meterpost-verified"

#: Rows per table and positions of sequences, by database and qualified name.
Contents = dict[tuple[str, str], int]


@dataclass(frozen=True, slots=True)
class Upgraded:
    """What was done. ``kept`` is the old data, to be removed by a person; None if nothing was."""

    from_version: int
    to_version: int
    kept: Path | None


def upgrade(
    data_dir: Path,
    *,
    from_version: int | None = None,
    to_version: int = CURRENT_VERSION,
    on_progress: Callable[[str], None] | None = None,
    run_as: str | None = None,
) -> Upgraded:
    """The cluster in ``data_dir`` is of ``to_version``; nothing happens if it is already.

    Raises: NotFound where there is no cluster, Conflict while someone uses it, Permanent where
    its version is not ``from_version``, `pg_upgrade` refuses, or the copy differs.
    """
    tell = on_progress or (lambda _message: None)
    places = Places.of(data_dir)
    kept = _finish_interrupted(places)
    if not places.has_cluster:
        raise NotFound(f"There is no database in {places.given}.")
    old_version = places.version()
    if old_version == to_version:
        tell(f"The database is of PostgreSQL {to_version}")
        return Upgraded(old_version, to_version, kept)
    if from_version not in (None, old_version) or old_version > to_version:
        raise Permanent(
            f"The database {places.given} is of PostgreSQL {old_version}; it cannot be upgraded "
            f"from {from_version or old_version} to {to_version}."
        )
    tell(f"Checking the database as PostgreSQL {old_version}")
    before = _contents_of(places.given, old_version, run_as)
    lock = OwnershipLock(places.lock)
    account = server_account(places.data, run_as)
    if not lock.acquire() or running_server(places.data, account) is not None:
        raise Conflict(f"The database {places.given} is in use.", hint="Stop meterpost first.")
    try:
        kept = _upgrade(places, account, to_version, before, tell)
    finally:
        lock.release()
    tell(f"The database is of PostgreSQL {to_version}; the old one is kept in {kept}")
    return Upgraded(old_version, to_version, kept)


def _upgrade(
    places: Places,
    account: Account,
    to_version: int,
    before: Contents,
    tell: Callable[[str], None],
) -> Path:
    old_version = places.version()
    old, new = binaries_for(account, old_version), binaries_for(account, to_version)
    aside = _aside(places)
    _remove(aside)
    secret = Secret.load(places.secret)
    try:
        tell(f"Copying into a PostgreSQL {to_version} database")
        checksums = _has_checksums(places.data, old, account)
        make_cluster(aside, new, account, checksums=checksums, secret=secret)
        _run_pg_upgrade(places, aside, old, new, account, secret)
        tell("Comparing the copy with the original")
        after = _contents_of(aside.given, to_version, account.name if account.switched else None)
        _require_equal(before, after)
    except BaseException:
        _remove(aside)
        raise
    (aside.data / _VERIFIED).touch()
    os.sync()  # the copy must be on disk before it takes the original's name
    for file in (aside.secret, aside.log, aside.lock):
        file.unlink(missing_ok=True)
    kept = _kept(places, old_version)
    places.data.rename(kept)
    aside.data.rename(places.data)
    (places.data / _VERIFIED).unlink()
    return kept


def _run_pg_upgrade(
    old_places: Places,
    new_places: Places,
    old: Binaries,
    new: Binaries,
    account: Account,
    secret: Secret,
) -> None:
    work = socket_directory(new_places, account)
    passwords = work / "pgpass"
    passwords.unlink(missing_ok=True)
    handle = os.open(passwords, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(f"*:*:*:{ADMIN}:{secret.admin}\n")
    account.own(passwords)
    try:
        answer = subprocess.run(
            [
                new.program("pg_upgrade"),
                f"--old-bindir={old.directory}",
                f"--new-bindir={new.directory}",
                f"--old-datadir={old_places.data}",
                f"--new-datadir={new_places.data}",
                f"--socketdir={work}",
                f"--username={ADMIN}",
                "--copy",
            ],
            cwd=work,
            env=clean_environment() | {"PGPASSFILE": str(passwords)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            umask=0o077,
            **account.identity(),
        )
    finally:
        shutil.rmtree(work)
    if answer.returncode != 0:
        said = " | ".join(line.strip() for line in answer.stdout.splitlines()[-12:] if line.strip())
        raise Permanent(
            f"PostgreSQL's upgrade of {old_places.given} failed: {said}",
            hint="The old database is untouched.",
        )


def _contents_of(data_dir: Path, version: int, run_as: str | None) -> Contents:
    """What every table and sequence of every database holds, counted by a real server."""
    contents: Contents = {}
    server = EmbeddedPostgres(data_dir, version=version, run_as=run_as)
    with server:
        if not server.owner:
            raise Conflict(f"The database {data_dir} is in use.", hint="Stop meterpost first.")
        with psycopg.connect(server.admin_dsn()) as admin:
            databases = admin.execute(
                "SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate"
            ).fetchall()
        for (database,) in databases:
            with psycopg.connect(server.admin_dsn(database)) as connection:
                contents |= _count(database, connection)
    return contents


def _count(database: str, connection: psycopg.Connection[tuple[object, ...]]) -> Contents:
    contents: Contents = {}
    relations = connection.execute(
        "SELECT nspname, relname, relkind::text FROM pg_class"
        " JOIN pg_namespace ON pg_namespace.oid = relnamespace"
        " WHERE relkind IN ('r', 'S') AND nspname NOT IN ('pg_catalog', 'information_schema')"
        " AND nspname NOT LIKE 'pg\\_toast%' AND nspname NOT LIKE 'pg\\_temp%'"
    ).fetchall()
    for schema, name, kind in relations:
        query = "SELECT count(*) FROM {}" if kind == "r" else "SELECT last_value FROM {}"
        relation = sql.Identifier(str(schema), str(name))
        row = connection.execute(sql.SQL(query).format(relation)).fetchone()
        assert row is not None
        contents[database, f"{schema}.{name}"] = int(str(row[0]))
    return contents


def _require_equal(before: Contents, after: Contents) -> None:
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            database, name = key
            raise Permanent(
                f"The upgraded copy differs: {name} in database {database} held "
                f"{before.get(key)} and holds {after.get(key)}.",
                hint="The old database is untouched.",
            )


def _finish_interrupted(places: Places) -> Path | None:
    """Where an upgrade was killed between its two renames, finish it; what was kept, if so."""
    kept = sorted(places.data.parent.glob(f"{places.data.name}.before-*"))
    aside = _aside(places)
    verified = (aside.data / _VERIFIED).is_file()
    if places.has_cluster or not kept:
        (places.data / _VERIFIED).unlink(missing_ok=True)
        return None
    if verified:
        aside.data.rename(places.data)
        (places.data / _VERIFIED).unlink()
        return kept[-1]
    kept[-1].rename(places.data)  # the copy is gone or was never verified: back to the old one
    return None


def _aside(places: Places) -> Places:
    path = places.data.with_name(f"{places.data.name}.upgraded")
    return Places(path, path)


def _kept(places: Places, version: int) -> Path:
    path = places.data.with_name(f"{places.data.name}.before-{version}")
    if path.exists():
        raise Conflict(
            f"{path} is in the way: it was kept by an earlier upgrade.",
            hint="Remove it or move it away.",
        )
    return path


def _remove(aside: Places) -> None:
    if aside.data.exists():
        shutil.rmtree(aside.data)
    for file in (aside.secret, aside.log, aside.lock):
        file.unlink(missing_ok=True)


def _has_checksums(data: Path, binaries: Binaries, account: Account) -> bool:
    """Whether the old cluster has them: `pg_upgrade` wants both alike."""
    answer = subprocess.run(
        [binaries.program("pg_controldata"), str(data)],
        cwd="/",
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=True,
        **account.identity(),
    )
    for line in answer.stdout.splitlines():
        name, _, value = line.partition(":")
        if name == "Data page checksum version":
            return value.strip() != "0"
    raise Permanent(f"{data} does not say whether it has checksums.")
