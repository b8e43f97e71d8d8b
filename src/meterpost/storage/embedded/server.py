"""A PostgreSQL server of our own: start, find again, stop."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Literal, Self
from urllib.parse import quote, urlencode

import psutil  # type: ignore[import-untyped]  # it carries no types
import psycopg

from meterpost.core.errors import Conflict, NeedsPerson, Permanent, Transient
from meterpost.storage.embedded.account import Account
from meterpost.storage.embedded.binaries import Binaries, binaries_for, clean_environment
from meterpost.storage.embedded.cluster import (
    ADMIN,
    DATABASE,
    ROLE,
    SETTINGS,
    Secret,
    ensure_role_and_database,
    make_cluster,
    write_configuration,
)
from meterpost.storage.embedded.log import LogReader, last_lines, limit_log, open_log
from meterpost.storage.embedded.places import OwnershipLock, Places, settle, socket_directory
from meterpost.storage.embedded.postmaster import (
    PostmasterFile,
    leftover_processes,
    remove_stale_file,
    running_server,
)

CURRENT_VERSION = 18

StopMode = Literal["smart", "fast", "immediate"]
_STOP_SIGNALS: Mapping[StopMode, signal.Signals] = {
    "smart": signal.SIGTERM,
    "fast": signal.SIGINT,
    "immediate": signal.SIGQUIT,
}
_POLL_S = 0.02
#: How long processes of a killed server get to notice by themselves that it is gone.
_LEFTOVER_GRACE_S = 10.0


class EmbeddedPostgres:
    """One server over one data directory, reached through a private socket by password.

    The process that starts it owns its life and stops it; where the previous owner was killed,
    the server it left behind is taken over. While the owner lives, others that call `start`
    only attach, and their `stop` leaves the server alone.

    ``recovery_timeout_s`` limits the time *without any progress* of a recovery, not its length.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        version: int = CURRENT_VERSION,
        on_progress: Callable[[str], None] | None = None,
        run_as: str | None = None,
        settings: Mapping[str, str] | None = None,
        recovery_timeout_s: float = 600.0,
        stop_timeout_s: float = 120.0,
    ) -> None:
        self._data_dir = data_dir
        self._version = version
        self._progress = on_progress or _silent
        self._run_as = run_as
        self._settings = {**SETTINGS, **(settings or {})}
        self._recovery_timeout_s = recovery_timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._places: Places | None = None
        self._account: Account | None = None
        self._lock: OwnershipLock | None = None
        self._secret: Secret | None = None
        self._socket_dir: Path | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._process: psutil.Process | None = None
        self._log: LogReader | None = None

    def start(self) -> str:
        """The URL of the application's database, once the server answers.

        Makes the cluster where there is none, takes over or attaches to a running server, and
        waits for crash recovery for as long as that makes progress.

        Raises: Permanent (another version's data, a server that ends at once; the sentence has
        its last log lines), NeedsPerson (rights, secrets, unsafe directories), Transient (no
        progress), Conflict (a copied workspace).
        """
        if self.is_running():
            return self.dsn()
        places = Places.of(self._data_dir)
        refuse_half_upgraded(places)
        self._places, self._account = settle(places, self._run_as)
        if self._lock is None:
            self._lock = OwnershipLock(self._places.lock)
        deadline = time.monotonic() + self._recovery_timeout_s
        while not self._lock.acquire():
            if self._attach(self._places, self._account):
                return self.dsn()
            if time.monotonic() > deadline:
                raise Transient(
                    f"Another process is starting or stopping the database {self._places.given} "
                    f"and did not finish in {self._recovery_timeout_s:.0f} s."
                )
            time.sleep(_POLL_S)
        try:
            self._start_as_owner(self._places, self._account)
        except BaseException:
            self._give_up()
            raise
        return self.dsn()

    def stop(self, mode: StopMode = "fast") -> None:
        """The server is down, if it was ours to stop; otherwise nothing happens.

        A server that does not end in time is stopped at once; the next start recovers it.

        Raises: Transient where even that does not end it.
        """
        process, owner = self._process, self._lock is not None and self._lock.held
        try:
            if process is not None and owner and self.is_running():
                self._end(process, mode)
                self._remove_socket_directory()
        finally:
            self._forget()

    def dsn(self, database: str = DATABASE) -> str:
        """A URL with the application role's password, for psycopg, libpq and SQLAlchemy.

        Raises: Conflict while the server is not started.
        """
        secret, socket_dir = self._require_started()
        return _url(ROLE, secret.role, socket_dir, database)

    def admin_dsn(self, database: str = "postgres") -> str:
        """The same for the superuser: upgrades, backups, tests.

        Raises: Conflict while the server is not started.
        """
        secret, socket_dir = self._require_started()
        return _url(ADMIN, secret.admin, socket_dir, database)

    def is_running(self) -> bool:
        """Whether the server this object started, took over or attached to is alive."""
        if self._child is not None and self._child.poll() is not None:
            return False
        process = self._process
        return (
            process is not None
            and process.is_running()
            and process.status() != psutil.STATUS_ZOMBIE
        )

    def pid(self) -> int | None:
        """The server's process number while it runs."""
        return self._process.pid if self._process is not None and self.is_running() else None

    def tend(self) -> None:
        """Keep the log within its size; the supervisor calls this now and then."""
        if self._places is not None and self._lock is not None and self._lock.held:
            limit_log(self._places.log)

    @property
    def owner(self) -> bool:
        """Whether this object answers for the server's life."""
        return self._lock is not None and self._lock.held

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    # -- starting -----------------------------------------------------------------------------

    def _start_as_owner(self, places: Places, account: Account) -> None:
        binaries = binaries_for(account, self._version)
        if places.has_cluster:
            require_version(places, self._version)
            self._secret = Secret.load(places.secret)
        else:
            self._progress(f"Making a PostgreSQL {self._version} database in {places.data}")
            self._secret = make_cluster(places, binaries, account)
        limit_log(places.log)
        self._log = LogReader(places.log)
        if not self._take_over(places, account):
            self._clear_leftovers(places, account)
            self._launch(places, binaries, account)
            if not self._wait_until_ready(places):
                raise Permanent(
                    f"PostgreSQL ended while starting on {places.data}. "
                    f"It said: {last_lines(places.log)}"
                )
        with self._connect_admin(places) as admin:
            ensure_role_and_database(admin, self._secret)

    def _take_over(self, places: Places, account: Account) -> bool:
        """Whether a server that a killed run left behind is now ours, and ready."""
        self._child = None
        self._process = running_server(places.data, account)
        if self._process is None:
            return False
        self._progress(f"Taking over the PostgreSQL server {self._process.pid} of a killed run")
        return self._wait_until_ready(places)  # False: it was on its way down

    def _launch(self, places: Places, binaries: Binaries, account: Account) -> None:
        write_configuration(places, account, self._settings)
        self._socket_dir = socket_directory(places, account)
        log = open_log(places.log)
        try:
            self._child = subprocess.Popen(
                [
                    binaries.program("postgres"),
                    "-D",
                    str(places.data),
                    "-k",
                    str(self._socket_dir),
                    "-c",
                    "listen_addresses=",
                ],
                cwd="/",
                env=clean_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C in the terminal is for meterpost, not for it
                umask=0o077,
                **account.identity(),
            )
        finally:
            os.close(log)
        self._process = psutil.Process(self._child.pid)

    def _wait_until_ready(self, places: Places) -> bool:
        """True when the server accepts connections, False when it has ended.

        Asked of its own status file: a connection attempt would be refused during recovery and
        fill the log that shows whether recovery makes progress.
        """
        assert self._process is not None
        assert self._log is not None
        last_progress = time.monotonic()
        while True:
            ended = not self.is_running()
            for line in self._log.new_lines():
                last_progress = time.monotonic()
                if any(word in line for word in ("redo", "recover", "syncing", "interrupted")):
                    self._progress(f"PostgreSQL is recovering: {line}")
            if ended:
                return False
            file = PostmasterFile.read(places.data)
            if file is not None and file.pid == self._process.pid and file.state == "ready":
                self._socket_dir = file.socket_dir
                return True
            if time.monotonic() - last_progress > self._recovery_timeout_s:
                raise Transient(
                    f"PostgreSQL on {places.data} made no progress for "
                    f"{self._recovery_timeout_s:.0f} s. It said: {last_lines(places.log)}"
                )
            time.sleep(_POLL_S)

    def _connect_admin(self, places: Places) -> psycopg.Connection[tuple[object, ...]]:
        """A superuser's connection, which also proves that this is our server.

        The password exchange authenticates both sides; the directory it serves must be ours.
        """
        try:
            admin = psycopg.connect(self.admin_dsn(), autocommit=True, connect_timeout=30)
        except psycopg.OperationalError as exc:
            raise NeedsPerson(
                f"The PostgreSQL server of {places.data} does not accept the secret in "
                f"{places.secret}: {_without_newlines(exc)}",
                hint="Restore the secret that belongs to this database.",
            ) from exc
        row = admin.execute("SHOW data_directory").fetchone()
        if row is None or Path(str(row[0])).resolve() != places.data.resolve():
            admin.close()
            raise Conflict(f"The server behind {self._socket_dir} serves another database.")
        return admin

    def _attach(self, places: Places, account: Account) -> bool:
        """Use the living owner's server, if it is ready."""
        file = PostmasterFile.read(places.data)
        if file is None or file.state != "ready" or file.socket_dir is None:
            return False
        process = running_server(places.data, account)
        if process is None:
            return False
        self._secret = Secret.load(places.secret)
        self._process, self._socket_dir = process, file.socket_dir
        try:
            psycopg.connect(self.dsn(), connect_timeout=30).close()
        except psycopg.OperationalError:
            # Still being made, or on its way down: the caller looks again until its deadline.
            self._process = self._socket_dir = None
            return False
        return True

    def _clear_leftovers(self, places: Places, account: Account) -> None:
        """No process of a killed server is left, and neither is its stale file."""
        if PostmasterFile.read(places.data) is None:
            return
        left = leftover_processes(places.data, account)
        if left:
            self._progress("Waiting for processes of a killed PostgreSQL server to end")
            _, left = psutil.wait_procs(left, timeout=_LEFTOVER_GRACE_S)
            for process in left:
                process.send_signal(signal.SIGQUIT)  # what their own server would send them
            _, left = psutil.wait_procs(left, timeout=_LEFTOVER_GRACE_S)
        if left:
            numbers = ", ".join(str(process.pid) for process in left)
            raise Transient(
                f"Processes {numbers} of a killed PostgreSQL server still use {places.data}."
            )
        remove_stale_file(places.data)

    # -- stopping -----------------------------------------------------------------------------

    def _end(self, process: psutil.Process, mode: StopMode) -> None:
        for attempt, patience_s in ((mode, self._stop_timeout_s), ("immediate", 15.0)):
            try:
                process.send_signal(_STOP_SIGNALS[attempt])  # checks that the number is still its
                self._wait_for_end(process, patience_s)
            except psutil.NoSuchProcess:
                return
            except (psutil.TimeoutExpired, subprocess.TimeoutExpired):
                self._progress("PostgreSQL does not stop; ending it at once")
                continue
            return
        raise Transient(f"The PostgreSQL server {process.pid} does not end.")

    def _remove_socket_directory(self) -> None:
        if self._socket_dir is not None:
            with suppress(OSError):  # not empty, or gone: the next start checks it anyway
                self._socket_dir.rmdir()

    def _wait_for_end(self, process: psutil.Process, patience_s: float) -> None:
        if self._child is not None:
            self._child.wait(patience_s)
        else:
            process.wait(patience_s)

    def _give_up(self) -> None:
        """After a failed start: end what was just launched (not what was taken over)."""
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(signal.SIGQUIT)
            try:
                self._child.wait(15.0)
            except subprocess.TimeoutExpired:
                self._progress(f"The PostgreSQL server {self._child.pid} does not end")
        self._forget()

    def _forget(self) -> None:
        if self._lock is not None:
            self._lock.release()
        self._child = self._process = self._secret = self._socket_dir = None

    def _require_started(self) -> tuple[Secret, Path]:
        if self._secret is None or self._socket_dir is None:
            raise Conflict(f"The database {self._data_dir} is not started.")
        return self._secret, self._socket_dir


def require_version(places: Places, version: int) -> None:
    """Raise Permanent where another major version made the data."""
    made_by = places.version()
    if made_by == version:
        return
    if made_by < version:
        raise Permanent(
            f"The database {places.given} was made by PostgreSQL {made_by}; this is "
            f"PostgreSQL {version}.",
            hint="Run `meterpost db upgrade`, which keeps the old data until the new is verified.",
        )
    raise Permanent(
        f"The database {places.given} was made by PostgreSQL {made_by}, newer than {version}.",
        hint="Use the newer meterpost that made it.",
    )


def refuse_half_upgraded(places: Places) -> None:
    """Raise Permanent where the data is missing because an upgrade was interrupted."""
    if places.has_cluster:
        return
    kept = sorted(places.data.parent.glob(f"{places.data.name}.before-*"))
    if kept:
        raise Permanent(
            f"There is no database in {places.given}, but {kept[-1]} is what an upgrade kept.",
            hint="Run `meterpost db upgrade` to finish it, or move that directory away.",
        )


def _url(role: str, password: str, socket_dir: Path, database: str) -> str:
    # require_auth: a server that asks for no proof, or for the bare password, is not ours.
    options = urlencode({"host": str(socket_dir), "port": 5432, "require_auth": "scram-sha-256"})
    return f"postgresql://{quote(role)}:{quote(password, safe='')}@/{quote(database)}?{options}"


def _without_newlines(error: Exception) -> str:
    return " ".join(str(error).split())


def _silent(message: str) -> None:
    """No progress is shown where nobody asked for it."""
