"""A throw-away PostgreSQL server made of Debian's own packages, for tests.

Our embedded server is one build of PostgreSQL; a database URL may name any other. This one is
compiled, configured and upgraded by somebody else, and speaks TCP.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from meterpost.core.errors import NeedsPerson, Permanent, Transient
from meterpost.storage.embedded.account import Account, server_account
from meterpost.storage.embedded.durable import VERSION_MIN

#: Where Debian and Ubuntu keep one folder per major version.
PROGRAMS = Path("/usr/lib/postgresql")
_ADMIN = "postgres"
_NEEDED = ("initdb", "postgres")
_INSTALL_S = 180.0
_INITDB_S = 120.0
_START_S = 60.0
_STOP_S = 30.0
#: Between finding a free port and the server listening on it, somebody else may take it.
_PORTS_TRIED = 3
_LOG_SHOWN = 2_000


@dataclass(frozen=True, slots=True)
class DebianServer:
    """A running server: its major version, and its superuser's URL over TCP."""

    version: int
    url: str = field(repr=False)


def debian_programs(root: Path = PROGRAMS) -> tuple[int, Path]:
    """The newest installed major version that meterpost can use, and its folder of programs.

    Raises: NeedsPerson where there is none.
    """
    found = [
        (int(folder.name), folder / "bin")
        for folder in (root.iterdir() if root.is_dir() else ())
        if re.fullmatch(r"[1-9]\d?", folder.name)
        and all((folder / "bin" / name).is_file() for name in _NEEDED)
    ]
    usable = [each for each in found if each[0] >= VERSION_MIN]
    if not usable:
        old = ", ".join(str(version) for version, _ in sorted(found))
        raise NeedsPerson(
            f"{root} holds no PostgreSQL {VERSION_MIN} or newer"
            + (f", only {old}." if old else "."),
            hint="Install Debian's package: apt-get install postgresql",
        )
    return max(usable)


def ensure_debian_programs(
    root: Path = PROGRAMS, *, installer: str = "apt-get", may_install: bool | None = None
) -> tuple[int, Path]:
    """`debian_programs`, installed first where they are missing and we may (None: as root).

    Raises: NeedsPerson where they are missing still, with what the installer said.
    """
    try:
        return debian_programs(root)
    except NeedsPerson:
        allowed = os.geteuid() == 0 if may_install is None else may_install
        if not allowed or shutil.which(installer) is None:
            raise
    deadline = time.monotonic() + _INSTALL_S
    for arguments in (("update",), ("install", "-y", "--no-install-recommends", "postgresql")):
        try:
            done = subprocess.run(
                [installer, *arguments],
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
                timeout=max(deadline - time.monotonic(), 1.0),
            )
        except subprocess.TimeoutExpired as exc:
            raise NeedsPerson(
                f"`{installer} {' '.join(arguments)}` took longer than {_INSTALL_S:g} s.",
                hint="Install Debian's package by hand: apt-get install postgresql",
            ) from exc
    # Lists that could not be refreshed do no harm where the package is known already.
    if done.returncode != 0:
        raise NeedsPerson(
            f"`{installer} install postgresql` failed: {done.stdout.strip()[-_LOG_SHOWN:]}",
            hint="Install Debian's package by hand: apt-get install postgresql",
        )
    return debian_programs(root)


@contextmanager
def debian_server(settings: Mapping[str, str] | None = None) -> Iterator[DebianServer]:
    """A new cluster on a free loopback port, stopped and removed afterwards.

    It asks for passwords (scram-sha-256), and runs as an unprivileged user with its defaults
    plus ``settings``; ``fsync`` stays on.

    Raises: NeedsPerson without the programs or a user to run them; Permanent, Transient where
    it does not start, with what it said.
    """
    version, programs = ensure_debian_programs()
    folder = Path(tempfile.mkdtemp(prefix="meterpost-debian-"))
    try:
        account = server_account(folder / "data", None)
        folder.chmod(0o711)  # the account passes through, nobody lists
        password = _make_cluster(programs, folder, account)
        process, port = _start(programs, folder, account, settings or {}, password)
        try:
            yield DebianServer(version, _url(password, port))
        finally:
            _stop(process)
    finally:
        shutil.rmtree(folder)


def _url(password: str, port: int) -> str:
    return f"postgresql://{_ADMIN}:{password}@127.0.0.1:{port}/postgres"


def _make_cluster(programs: Path, folder: Path, account: Account) -> str:
    password = secrets.token_hex(16)
    data, file = folder / "data", folder / "password"
    data.mkdir(mode=0o700)
    account.own(data)
    file.touch(mode=0o600)
    file.write_text(password, encoding="utf-8")
    account.own(file)
    try:
        made = subprocess.run(
            [
                *(programs / "initdb", "-D", data, "--username", _ADMIN, "--pwfile", file),
                *("--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-sync"),
            ],
            cwd="/",
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_INITDB_S,
            **account.identity(),
        )
    finally:
        file.unlink()
    if made.returncode != 0:
        raise Permanent(f"Debian's initdb failed: {made.stderr.strip()[-_LOG_SHOWN:]}")
    return password


def _start(
    programs: Path, folder: Path, account: Account, settings: Mapping[str, str], password: str
) -> tuple[subprocess.Popen[bytes], int]:
    log = folder / "log"
    for _ in range(_PORTS_TRIED):
        port = _free_port()
        values = {
            **settings,
            "listen_addresses": "127.0.0.1",
            "port": str(port),
            "unix_socket_directories": "",
        }
        options = [part for name, value in values.items() for part in ("-c", f"{name}={value}")]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [programs / "postgres", "-D", folder / "data", *options],
                cwd="/",
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C at the tests' terminal is not for it
                **account.identity(),
            )
        try:
            if _answers(process, _url(password, port)):
                return process, port
        except BaseException:
            _stop(process)
            raise
    said = log.read_text(encoding="utf-8", errors="replace").strip()[-_LOG_SHOWN:]
    raise Permanent(f"Debian's PostgreSQL does not start: {said}")


def _answers(process: subprocess.Popen[bytes], url: str) -> bool:
    """Whether it takes connections; False where it ended instead."""
    deadline = time.monotonic() + _START_S
    while process.poll() is None:
        try:
            psycopg.connect(url, connect_timeout=5).close()
        except psycopg.OperationalError as exc:
            if time.monotonic() > deadline:
                raise Transient(
                    f"Debian's PostgreSQL does not answer within {_START_S:g} s."
                ) from exc
            time.sleep(0.05)
        else:
            return True
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End it in order, whoever is connected; at once where that takes too long."""
    for how in (signal.SIGINT, signal.SIGQUIT):
        if process.poll() is None:
            process.send_signal(how)
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                continue
    if process.poll() is None:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _environment() -> dict[str, str]:
    """English messages, UTC, and none of the caller's PG variables."""
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC", "HOME": "/"}
