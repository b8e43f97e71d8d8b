"""The life of an embedded server, with the traps that end others' lives."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import psycopg
import pytest

from meterpost.core.errors import NeedsPerson, Permanent, Transient
from meterpost.storage.embedded import EmbeddedPostgres

pytestmark = pytest.mark.integration

ROOT = os.geteuid() == 0

_HOLDER = """
import sys, time
from pathlib import Path
from meterpost.storage.embedded import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]))
server.start()
print(server.pid(), flush=True)
time.sleep(600)
"""


def eventually(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def rows(dsn: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(query).fetchall()


def fill(dsn: str, count: int = 1000) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute("CREATE TABLE kept (n bigint PRIMARY KEY)")
        connection.execute("INSERT INTO kept SELECT generate_series(1, %s)", (count,))


def test_a_fresh_server_is_private_and_durable(workspace: Path) -> None:
    """A first start makes a cluster that only its password opens, over no network."""
    data = workspace / "pg"
    with EmbeddedPostgres(data) as server:
        dsn = server.dsn()
        shown = {
            name: rows(dsn, f"SHOW {name}")[0][0]
            for name in (
                "listen_addresses",
                "fsync",
                "full_page_writes",
                "synchronous_commit",
                "data_checksums",
                "server_encoding",
                "server_version_num",
                "shared_buffers",
            )
        }
        assert shown.pop("server_version_num", "").startswith("18")  # type: ignore[union-attr]
        assert shown == {
            "listen_addresses": "",
            "fsync": "on",
            "full_page_writes": "on",
            "synchronous_commit": "on",
            "data_checksums": "on",
            "server_encoding": "UTF8",
            "shared_buffers": "128MB",
        }
        assert rows(dsn, "SELECT datlocale FROM pg_database WHERE datname = 'meterpost'") == [
            ("C.UTF-8",)
        ]
        assert rows(dsn, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") == [(False,)]
        process = psutil.Process(server.pid())
        assert not process.net_connections("inet")
        assert process.uids().real != 0
        password = psycopg.conninfo.conninfo_to_dict(dsn)["password"]
        assert password not in " ".join(process.cmdline())
        assert str(password) not in (workspace / "pg.log").read_text()
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(dsn, password="guess")
        socket_dir = Path(str(psycopg.conninfo.conninfo_to_dict(dsn)["host"]))
        assert stat.S_IMODE(socket_dir.stat().st_mode) == 0o700
    assert stat.S_IMODE((workspace / "pg.secret").stat().st_mode) == 0o600
    assert not psutil.pid_exists(process.pid)
    assert not socket_dir.exists()


def test_data_and_passwords_outlive_a_restart(workspace: Path) -> None:
    """Stop and start again keep rows and the URL's password."""
    with EmbeddedPostgres(workspace / "pg") as server:
        first = server.dsn()
        fill(first)
    with EmbeddedPostgres(workspace / "pg") as server:
        assert server.dsn() == first
        assert rows(first, "SELECT count(*) FROM kept") == [(1000,)]


def test_the_server_of_a_killed_run_is_taken_over(workspace: Path) -> None:
    """A run that was killed leaves its server; the next one uses it and stops it at its end."""
    data = workspace / "pg"
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(data)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    with holder, holder.stdout:
        pid = int(holder.stdout.readline())

        with EmbeddedPostgres(data) as guest:
            assert (guest.pid(), guest.owner) == (pid, False)
        assert psutil.pid_exists(pid), "who only attached must not stop it"

        holder.kill()
        holder.wait()
    assert psutil.pid_exists(pid)
    said: list[str] = []
    with EmbeddedPostgres(data, on_progress=said.append) as heir:
        assert (heir.pid(), heir.owner) == (pid, True)
        assert rows(heir.dsn(), "SELECT 1") == [(1,)]
    assert any("Taking over" in line for line in said)
    eventually(lambda: not psutil.pid_exists(pid))


def test_a_stranger_with_the_servers_old_number_is_left_alone(workspace: Path) -> None:
    """A stale postmaster.pid naming a living process of the same user hinders nobody."""
    data = workspace / "pg"
    with EmbeddedPostgres(data) as server:
        process = psutil.Process(server.pid())
        uid, gid = process.uids().real, process.gids().real
    stranger = subprocess.Popen(
        ["/bin/sleep", "600"], cwd="/", **({"user": uid, "group": gid} if ROOT else {})
    )
    try:
        stale = data / "postmaster.pid"
        stale.write_text(f"{stranger.pid}\n{data}\n1700000000\n5432\n/nowhere\n\n1 2\nready   \n")
        os.chown(stale, uid, gid)
        with EmbeddedPostgres(data) as server:
            assert server.pid() != stranger.pid
            assert rows(server.dsn(), "SELECT 1") == [(1,)]
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_killed_server_recovers_its_rows_and_says_so(workspace: Path) -> None:
    """SIGKILL of the postmaster loses nothing; the same object starts it again."""
    said: list[str] = []
    server = EmbeddedPostgres(workspace / "pg", on_progress=said.append)
    dsn = server.start()
    try:
        fill(dsn, 20_000)
        busy = psycopg.connect(dsn)  # its backend must notice by itself that the server is gone
        os.kill(server.pid() or 0, signal.SIGKILL)
        eventually(lambda: not server.is_running())
        assert server.start() == dsn
        assert rows(dsn, "SELECT count(*) FROM kept") == [(20_000,)]
        busy.close()
    finally:
        server.stop()
    assert any("recovering" in line for line in said)


def test_a_long_recovery_is_awaited_with_progress(workspace: Path) -> None:
    """Replaying much of the log has no fixed limit, and shows that it goes on."""
    said: list[str] = []
    server = EmbeddedPostgres(workspace / "pg")
    dsn = server.start()
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept (n bigint, filler text)")
        connection.execute("CREATE INDEX ON kept (filler)")
        connection.execute(
            "INSERT INTO kept SELECT n, md5(n::text) FROM generate_series(1, 50000) AS n"
        )
    psutil.Process(server.pid()).kill()
    eventually(lambda: not server.is_running())
    server.stop()
    with EmbeddedPostgres(workspace / "pg", on_progress=said.append) as again:
        assert rows(again.dsn(), "SELECT count(*) FROM kept") == [(50_000,)]
    assert any("redo" in line for line in said)


def test_a_start_without_progress_is_given_up_cleanly(workspace: Path) -> None:
    """Past the time without progress the start ends, and nothing of it stays behind."""
    with EmbeddedPostgres(workspace / "pg"):
        pass
    hasty = EmbeddedPostgres(workspace / "pg", recovery_timeout_s=0.0)
    with pytest.raises(Transient, match="made no progress"):
        hasty.start()
    assert not hasty.owner
    with EmbeddedPostgres(workspace / "pg") as server:
        assert rows(server.dsn(), "SELECT 1") == [(1,)]


def test_a_silent_start_ends_with_the_servers_last_words(workspace: Path) -> None:
    """A server that ends at once gives an error that quotes its log."""
    with EmbeddedPostgres(workspace / "pg"):
        pass
    broken = EmbeddedPostgres(workspace / "pg", settings={"shared_buffers": "'no size'"})
    with pytest.raises(Permanent, match=r'ended while starting.*"shared_buffers"'):
        broken.start()
    assert not broken.is_running()
    assert not broken.owner
    with EmbeddedPostgres(workspace / "pg") as server:
        assert rows(server.dsn(), "SELECT 1") == [(1,)]


def test_a_workspace_path_longer_than_a_socket_name_works(workspace: Path) -> None:
    """The socket's path is short however deep the workspace lies."""
    deep = workspace / ("deep-" * 12) / ("deeper-" * 12) / "pg"
    with EmbeddedPostgres(deep) as server:
        host = str(psycopg.conninfo.conninfo_to_dict(server.dsn())["host"])
        assert len(host) < 90 < len(str(deep))
        assert rows(server.dsn(), "SELECT 1") == [(1,)]


@pytest.mark.skipif(not ROOT, reason="only root has an unprivileged user to switch to")
def test_root_in_a_closed_folder(closed_workspace: Path) -> None:
    """As root in a 0700 folder the data is put where the server's user reaches it."""
    data = closed_workspace / "checkout" / "pg"
    data.parent.mkdir(mode=0o700)
    with EmbeddedPostgres(data) as server:
        fill(server.dsn())
        assert psutil.Process(server.pid()).uids().real != 0
    assert data.is_symlink()
    assert stat.S_IMODE(data.resolve().stat().st_mode) == 0o700
    assert stat.S_IMODE(data.parent.stat().st_mode) == 0o700, "nothing of ours is opened"
    assert (data.parent / "pg.secret").exists()
    with EmbeddedPostgres(data) as server:
        assert rows(server.dsn(), "SELECT count(*) FROM kept") == [(1000,)]


@pytest.mark.skipif(not ROOT, reason="only root has an unprivileged user to switch to")
def test_a_copied_workspace_does_not_run_the_originals_data(closed_workspace: Path) -> None:
    """Copying a workspace copies the link; running both on one database is refused."""
    with EmbeddedPostgres(closed_workspace / "one" / "pg"):
        pass
    copy = closed_workspace / "two"
    subprocess.run(["cp", "-a", closed_workspace / "one", copy], check=True)
    with pytest.raises(Exception, match="is a copy of"):
        EmbeddedPostgres(copy / "pg").start()


def test_a_prepared_socket_directory_is_refused(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link that someone left where our socket directory goes is not followed."""
    from meterpost.storage.embedded import places

    trap, shared = workspace / "trap", workspace / "shared"
    trap.mkdir()
    shared.mkdir(mode=0o777)
    (shared / f"meterpost-{os.geteuid()}").symlink_to(trap)
    monkeypatch.setattr(places, "_socket_parents", lambda _account: [shared])
    with pytest.raises(NeedsPerson, match="no directory"):
        EmbeddedPostgres(workspace / "pg").start()
    assert list(trap.iterdir()) == []


def test_an_interrupted_first_start_leaves_nothing_in_the_way(workspace: Path) -> None:
    """What a killed initdb left behind is cleared, and a foreign directory is refused."""
    (workspace / "pg.init-killed" / "data").mkdir(parents=True)
    with EmbeddedPostgres(workspace / "pg"):
        pass
    assert not list(workspace.glob("pg.init-*"))
    (workspace / "other").mkdir()
    (workspace / "other" / "letters.txt").write_text("mine")
    with pytest.raises(Permanent, match="neither empty nor a database"):
        EmbeddedPostgres(workspace / "other").start()
    assert (workspace / "other" / "letters.txt").read_text() == "mine"


def test_a_lost_or_open_secret_is_named(workspace: Path) -> None:
    """Without its secret a database is not opened by other means."""
    with EmbeddedPostgres(workspace / "pg"):
        pass
    secret = workspace / "pg.secret"
    secret.chmod(0o644)
    with pytest.raises(NeedsPerson, match="can be read by other users"):
        EmbeddedPostgres(workspace / "pg").start()
    secret.unlink()
    with pytest.raises(NeedsPerson, match=r"pg\.secret cannot be read"):
        EmbeddedPostgres(workspace / "pg").start()
