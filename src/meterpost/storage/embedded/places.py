"""Where a cluster's files are: data, secret, log, lock and socket.

Beside the data directory a workspace names (``pg``) stand ``pg.secret``, ``pg.log`` and
``pg.lock``. Where the server's user cannot reach the workspace, ``pg`` is a link to a
directory it can reach.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from meterpost.core.errors import Conflict, NeedsPerson
from meterpost.storage.embedded.account import (
    Account,
    secure_directory,
    server_account,
)
from meterpost.storage.embedded.binaries import shared_root

#: A Unix socket's path has 108 bytes with the final zero on Linux, 104 on others.
_SOCKET_PATH_BYTES = 103
SOCKET_NAME = ".s.PGSQL.5432"
_MOVED_FROM = "workspace"


@dataclass(frozen=True, slots=True)
class Places:
    """The files of one cluster. ``data`` is real, the others stand beside ``given``."""

    given: Path
    data: Path

    @classmethod
    def of(cls, data_dir: Path) -> Places:
        """The places of a data directory, following the link that moved it, if any."""
        given = _absolute(data_dir)
        return cls(given, given.resolve() if given.is_symlink() else given)

    @property
    def secret(self) -> Path:
        """Passwords of the cluster's roles, readable by its user only."""
        return self.beside("secret")

    @property
    def log(self) -> Path:
        """What the server writes."""
        return self.beside("log")

    @property
    def lock(self) -> Path:
        """Locked by the process that answers for the server's life."""
        return self.beside("lock")

    def beside(self, what: str) -> Path:
        """A sibling of the directory as given."""
        return self.given.with_name(f"{self.given.name}.{what}")

    @property
    def has_cluster(self) -> bool:
        """Whether a database has been made here."""
        return (self.data / "PG_VERSION").is_file()

    def version(self) -> int:
        """The major version that made the cluster."""
        return int((self.data / "PG_VERSION").read_text(encoding="ascii").strip())


class OwnershipLock:
    """Held by the one process that may stop the server; freed by the kernel when it dies."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds it."""
        return self._file is not None

    def acquire(self) -> bool:
        """Take it, unless another living process (or object) holds it."""
        if self._file is not None:
            return True
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        file = os.fdopen(handle, "r+", encoding="ascii")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        self._file = file
        return True

    def release(self) -> None:
        """Give it back; the file stays, for a lock that is deleted can be held twice."""
        if self._file is not None:
            self._file.close()
            self._file = None


def settle(places: Places, run_as: str | None) -> tuple[Places, Account]:
    """Places the server's user can reach, and that user.

    A new cluster in a closed folder is put elsewhere, with a link at the place asked for.

    Raises: NeedsPerson where an existing cluster cannot be reached, Conflict where a copied
    workspace points at the original's database.
    """
    account = server_account(places.data, run_as)
    if places.has_cluster:
        if not account.can_enter(places.data.parent):
            raise NeedsPerson(
                f"User {account.name}, who runs the server, cannot reach {places.data}.",
                hint=f"Let others pass through {places.data.parent} (chmod o+x on each folder "
                "of the path that forbids it), or move the database.",
            )
        if account.switched and places.data.lstat().st_uid == 0:
            account.own_tree(places.data)  # copied or restored by root
        _check_owner_record(places)
        return places, account
    if places.given.is_symlink():
        if not places.data.is_dir():
            raise NeedsPerson(
                f"{places.given} points to {places.data}, which is not there.",
                hint="Restore that directory, or remove the link to begin with an empty database.",
            )
        return places, account
    if account.can_enter(places.given.parent):
        return places, account
    return _elsewhere(places, account), account


def socket_directory(places: Places, account: Account) -> Path:
    """A private directory whose path is short enough for a socket, whatever the workspace's is.

    Raises: NeedsPerson where no candidate is safe and short enough.
    """
    name = hashlib.sha256(os.fsencode(places.data)).hexdigest()[:12]
    refused: list[str] = []
    for parent in _socket_parents(account):
        home = parent / f"meterpost-{os.geteuid()}"
        path = home / name
        if len(os.fsencode(path / SOCKET_NAME)) > _SOCKET_PATH_BYTES:
            refused.append(f"{path} is too long")
            continue
        try:
            secure_directory(home, 0o711 if account.switched else 0o700)
            secure_directory(path, 0o700, account.uid)
        except (NeedsPerson, OSError) as exc:
            refused.append(str(exc))
            continue
        if account.can_enter(path):
            return path
        refused.append(f"{account.name} cannot enter {path}")
    raise NeedsPerson(
        f"There is no safe place for the database's socket: {'; '.join(refused)}.",
        hint="Set TMPDIR to a directory of your own with a short path.",
    )


def _socket_parents(account: Account) -> list[Path]:
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    first = Path("/run") if account.switched else Path(runtime) if runtime else None
    candidates = [first, Path(tempfile.gettempdir()), Path("/tmp")]  # noqa: S108  (checked by secure_directory)
    return [
        path for path in dict.fromkeys(candidates) if path is not None and os.access(path, os.W_OK)
    ]


def _elsewhere(places: Places, account: Account) -> Places:
    clusters = secure_directory(shared_root(account) / "clusters", 0o711)
    digest = hashlib.sha256(os.fsencode(places.given)).hexdigest()[:8]
    home = clusters / f"{digest}-{secrets.token_hex(4)}"
    home.mkdir(mode=0o711)
    home.chmod(0o711)
    (home / _MOVED_FROM).write_bytes(os.fsencode(places.given))
    data = home / "data"
    data.mkdir(mode=0o700)
    account.own(data)
    if places.given.is_dir():
        places.given.rmdir()  # empty: it holds no cluster, and rmdir refuses anything else
    places.given.symlink_to(data, target_is_directory=True)
    return Places(places.given, data)


def _check_owner_record(places: Places) -> None:
    """Refuse to run one moved database for two workspaces (a copied folder copies the link)."""
    record = places.data.parent / _MOVED_FROM
    if not places.given.is_symlink() or not record.is_file():
        return
    original = Path(os.fsdecode(record.read_bytes()))
    if original == places.given:
        return
    if original.is_symlink() and original.resolve() == places.data:
        raise Conflict(
            f"{places.given} is a copy of {original}: both point to the database {places.data}.",
            hint="Remove the link to begin with an empty database, or copy the data as well.",
        )
    record.write_bytes(os.fsencode(places.given))


def _absolute(data_dir: Path) -> Path:
    """Absolute, with every parent resolved and the last component kept (it may be our link)."""
    parent = data_dir.absolute().parent
    _make_parents(parent)
    return parent.resolve() / data_dir.name


def _make_parents(parent: Path) -> None:
    """Make missing parents; those of root let the server's user pass, but not look."""
    if parent.exists():
        return
    _make_parents(parent.parent)
    mode = 0o711 if os.geteuid() == 0 else 0o700
    parent.mkdir(mode=mode, exist_ok=True)
