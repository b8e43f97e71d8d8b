"""Making a cluster: initdb, its secret, its configuration, its role and database."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import LiteralString

import psycopg
from psycopg import sql

from meterpost.core.errors import NeedsPerson, Permanent
from meterpost.storage.embedded.account import Account
from meterpost.storage.embedded.binaries import Binaries, clean_environment
from meterpost.storage.embedded.places import Places

ADMIN = "meterpost_admin"
ROLE = "meterpost"
DATABASE = "meterpost"

_CONFIGURATION = "meterpost.conf"
#: Only the socket, only by password: the socket's directory is private as well.
_ACCESS = "local all all scram-sha-256\n"

#: What our server runs with. Anything `ALTER SYSTEM` sets afterwards wins, which is why a
#: service asks `require_durable` before it accepts work.
SETTINGS: Mapping[str, str] = {
    # accepted means fsynced
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    # one machine shared with the event store
    "shared_buffers": "128MB",
    "max_connections": "100",
    "work_mem": "16MB",
    "maintenance_work_mem": "128MB",
    "effective_cache_size": "1GB",
    "wal_buffers": "16MB",
    "min_wal_size": "160MB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "5min",
    "checkpoint_completion_target": "0.9",
    "random_page_cost": "1.1",
    "jit": "off",
    # nothing over the network
    "listen_addresses": "''",
    "port": "5432",
    "unix_socket_permissions": "0700",
    "password_encryption": "scram-sha-256",
    # one reading of time and text everywhere
    "timezone": "'UTC'",
    "log_timezone": "'UTC'",
    "lc_messages": "'C'",
    # a log that shows recovery going on, and neither statements nor row values
    "log_destination": "stderr",
    "logging_collector": "off",
    "log_line_prefix": "'%m [%p] '",
    "log_startup_progress_interval": "1s",
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
    "log_checkpoints": "off",
    "log_statement": "none",
}


@dataclass(frozen=True, slots=True)
class Secret:
    """Passwords of the two roles: the administrator's and the application's."""

    admin: str
    role: str

    @classmethod
    def generate(cls) -> Secret:
        """Fresh ones, 256 bits each."""
        return cls(secrets.token_urlsafe(32), secrets.token_urlsafe(32))

    @classmethod
    def load(cls, path: Path) -> Secret:
        """As stored beside the data.

        Raises: NeedsPerson where the file is missing, damaged or open to others.
        """
        hint = "Restore it from the backup that belongs to this database."
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as exc:
            raise NeedsPerson(
                f"The database's secret {path} cannot be read ({exc.strerror}).", hint=hint
            ) from exc
        with os.fdopen(handle, encoding="utf-8") as file:
            if os.fstat(handle).st_mode & 0o077:
                raise NeedsPerson(
                    f"The database's secret {path} can be read by other users.",
                    hint=f"Close it: chmod 600 {path}",
                )
            try:
                return cls(**json.load(file))
            except (TypeError, ValueError) as exc:
                raise NeedsPerson(f"The database's secret {path} is damaged.", hint=hint) from exc

    def store(self, path: Path) -> None:
        """Write it whole, readable by its owner only, on disk when this returns."""
        handle, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(asdict(self), file)
            file.flush()
            os.fsync(handle)
        Path(aside).replace(path)
        _sync_directory(path.parent)

    def __repr__(self) -> str:
        return "Secret(…)"


def make_cluster(
    places: Places,
    binaries: Binaries,
    account: Account,
    *,
    checksums: bool = True,
    secret: Secret | None = None,
) -> Secret:
    """The secret of a new, empty cluster at ``places.data``: a fresh one, or the one given.

    It is built aside and renamed: a killed start leaves nothing that looks like a database.

    Raises: Permanent with what initdb said.
    """
    for leftover in places.data.parent.glob(f"{places.data.name}.init-*"):
        shutil.rmtree(leftover)
    if places.data.exists() and any(places.data.iterdir()):
        raise Permanent(
            f"{places.data} is neither empty nor a database.",
            hint="Name another directory, or remove what is in it.",
        )
    secret = secret or Secret.generate()
    secret.store(places.secret)
    aside = Path(tempfile.mkdtemp(prefix=f"{places.data.name}.init-", dir=places.data.parent))
    aside.chmod(0o711)  # mkdtemp made it 0700 and ours; the account only passes through
    build, password = aside / "data", aside / "password"
    try:
        build.mkdir(mode=0o700)
        account.own(build)
        password.touch(mode=0o600, exist_ok=False)
        password.write_text(secret.admin, encoding="ascii")
        account.own(password)
        _initdb(build, password, binaries, account, checksums=checksums)
        _replace(build / "pg_hba.conf", _ACCESS, account)
        detected = _read(build / "postgresql.conf")
        include = f"\ninclude_if_exists = '{_CONFIGURATION}'\n"
        _replace(build / "postgresql.conf", detected + include, account)
        build.rename(places.data)
        _sync_directory(places.data.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return secret


def _initdb(
    build: Path, password: Path, binaries: Binaries, account: Account, *, checksums: bool
) -> None:
    arguments = [
        f"--username={ADMIN}",
        f"--pwfile={password}",
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--no-instructions",
        f"--pgdata={build}",
    ]
    # The builtin provider sorts by code point everywhere; the C library's order changes with
    # the operating system and would damage indexes.
    arguments += (
        ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
        if binaries.version >= 17
        else ["--locale=C.UTF-8"]
    )
    if checksums:
        arguments.append("--data-checksums")
    elif binaries.version >= 18:
        arguments.append("--no-data-checksums")
    answer = subprocess.run(
        [binaries.program("initdb"), *arguments],
        cwd="/",
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        umask=0o077,
        **account.identity(),
    )
    if answer.returncode != 0:
        raise Permanent(f"initdb failed: {answer.stderr.strip() or answer.stdout.strip()}")


def write_configuration(places: Places, account: Account, settings: Mapping[str, str]) -> None:
    """Write our settings into the cluster, whole or not at all.

    Raises: Permanent for a name that is no setting's.
    """
    wrong = [name for name in settings if not re.fullmatch(r"[a-z_][a-z0-9_.]*", name)]
    if wrong:
        raise Permanent(f"{wrong[0]!r} is not the name of a PostgreSQL setting.")
    text = "# Written by meterpost at every start; use ALTER SYSTEM to change a setting.\n"
    text += "".join(f"{name} = {value}\n" for name, value in settings.items())
    _replace(places.data / _CONFIGURATION, text, account)


def _replace(path: Path, text: str, account: Account) -> None:
    """Replace a file inside a directory that belongs to the unprivileged account.

    Root must not write to a name it finds there (it may be a link by now): it makes a new file
    under a random name and renames it.
    """
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=".meterpost-")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
        if account.switched:
            os.fchown(handle, account.uid, account.gid)
    Path(aside).replace(path)


def _read(path: Path) -> str:
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(handle, encoding="utf-8") as file:
        return file.read()


def ensure_role_and_database(admin: psycopg.Connection[tuple[object, ...]], secret: Secret) -> None:
    """The application's role and database exist; it owns the database and is no superuser."""
    if not _exists(admin, "SELECT 1 FROM pg_roles WHERE rolname = %s", ROLE):
        # Sent as a verifier, so that the password itself never reaches the server.
        verifier = admin.pgconn.encrypt_password(
            secret.role.encode(), ROLE.encode(), b"scram-sha-256"
        )
        admin.execute(
            sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(
                sql.Identifier(ROLE), sql.Literal(verifier.decode())
            )
        )
    if not _exists(admin, "SELECT 1 FROM pg_database WHERE datname = %s", DATABASE):
        admin.execute(
            sql.SQL("CREATE DATABASE {} OWNER {}").format(
                sql.Identifier(DATABASE), sql.Identifier(ROLE)
            )
        )


def _exists(
    connection: psycopg.Connection[tuple[object, ...]], query: LiteralString, name: str
) -> bool:
    return connection.execute(query, (name,)).fetchone() is not None


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
