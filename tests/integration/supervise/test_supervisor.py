"""A parent and its processes, all real."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import psycopg
import pytest

from meterpost.core.errors import Conflict
from meterpost.supervise import SupervisorState, WorkspaceLock, read_state

pytestmark = pytest.mark.integration

#: Notes its start, becomes ready, notes its orderly end; has a worker of its own.
_CHILD = """
import os, signal, subprocess, sys, time
from pathlib import Path
name, home = sys.argv[1], Path(sys.argv[2])
def note(what):
    with (home / "notes").open("a") as file:
        file.write(f"{what} {name}\\n")
def end(*_):
    note("stop")
    worker.terminate()
    sys.exit(0)
signal.signal(signal.SIGTERM, signal.SIG_IGN if "deaf" in name else end)
loyal = "from meterpost.supervise import die_with_parent as d; d(int(sys.argv[1]));"
code = "import sys, time;" + (loyal if "loyal" in name else "") + "time.sleep(600)"
worker = subprocess.Popen([sys.executable, "-c", code, str(os.getpid())])
(home / f"{name}.worker").write_text(str(worker.pid))
note("start")
(home / f"{name}.ready").touch()
while True:
    time.sleep(0.05)
"""

_UP = """
import sys, time
from pathlib import Path
from meterpost.supervise import *
home, names = Path(sys.argv[1]), sys.argv[2].split(",")
policy = RestartPolicy(restarts_max=2, window_s=60, backoff_first_s=0.05)
children = []
for name in names:
    if name == "postgres":
        from meterpost.storage.embedded import EmbeddedPostgres
        children.append(ServerChild("postgres", EmbeddedPostgres(home / "pg"), policy=policy))
    elif name == "slow":
        class Slow:
            def start(self): (home / "slow.starting").touch(); time.sleep(600)
            def stop(self): (home / "slow.stopped").touch()
            def is_running(self): return False
            def pid(self): return None
            def tend(self): pass
        children.append(ServerChild("slow", Slow()))
    elif name == "broken":
        argv = [sys.executable, "-c", "exit(3)"]
        children.append(ProcessChild(ChildSpec(name, argv, policy=policy)))
    else:
        ready = home / f"{name}.ready"
        children.append(ProcessChild(ChildSpec(
            name, [sys.executable, str(home / "child.py"), name, str(home)],
            ready=ready_file(ready), clears=[ready], grace_s=0.5, policy=policy)))
supervisor = Supervisor(children, lock=home / "up.pid", state=home / "up.json",
                        on_event=lambda line: print(line, flush=True))
sys.exit(supervisor.run())
"""


def eventually(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture
def home() -> Iterator[Path]:
    root = Path(tempfile.mkdtemp(prefix="meterpost-test-"))
    root.chmod(0o711)
    (root / "child.py").write_text(textwrap.dedent(_CHILD))
    yield root
    shutil.rmtree(root)


@contextmanager
def up(home: Path, *names: str) -> Iterator[subprocess.Popen[str]]:
    """A running supervisor; whatever a failed test leaves of it is ended."""
    with (home / "said").open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-c", _UP, str(home), ",".join(names)],
            stdout=said,
            stderr=subprocess.STDOUT,
            text=True,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)


def state_of(home: Path) -> SupervisorState | None:
    return read_state(home / "up.json")


def phase(home: Path) -> str | None:
    state = state_of(home)
    return None if state is None else state.phase


def pid_of(home: Path, name: str) -> int:
    state = state_of(home)
    assert state is not None
    return state.child(name).pid or 0


def notes(home: Path) -> list[str]:
    path = home / "notes"
    return path.read_text().splitlines() if path.exists() else []


def gone(*pids: int) -> bool:
    """Whether none of them runs (a zombie waits for its parent and runs no more)."""

    def ended(pid: int) -> bool:
        try:
            return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    return all(ended(pid) for pid in pids)


def test_children_start_in_order_and_stop_in_reverse(home: Path) -> None:
    """SIGTERM ends all in reverse order, exit code 0, and the state file says so."""
    with up(home, "one", "two", "three") as process:
        eventually(lambda: phase(home) == "ready")
        pids = [pid_of(home, name) for name in ("one", "two", "three")]
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert notes(home) == [
        "start one", "start two", "start three", "stop three", "stop two", "stop one"
    ]  # fmt: skip
    assert gone(*pids)
    state = state_of(home)
    assert state is not None
    assert [child.phase for child in state.children] == ["stopped"] * 3


def test_a_dead_child_is_restarted_alone_and_its_workers_do_not_stay(home: Path) -> None:
    """SIGKILL of one child restarts that one; what it had started ends with it."""
    with up(home, "one", "two"):
        eventually(lambda: phase(home) == "ready")
        one, two = pid_of(home, "one"), pid_of(home, "two")
        worker = int((home / "one.worker").read_text())
        os.kill(one, signal.SIGKILL)
        eventually(lambda: pid_of(home, "one") not in (0, one) and len(notes(home)) == 3)
        eventually(lambda: gone(worker))
        assert pid_of(home, "two") == two
        state = state_of(home)
        assert state is not None
        assert state.child("one").restarts == 1
        assert state.child("one").last_exit == "SIGKILL"


def test_a_child_that_keeps_dying_ends_everything_with_a_sentence(home: Path) -> None:
    """Past the limit the supervisor stops the others and exits with 1."""
    with up(home, "one", "broken") as process:
        assert process.wait(60) == 1
    said = (home / "said").read_text()
    assert "broken cannot be kept running: it ended 3 times within 60 s" in said
    assert "exit code 3" in said
    assert notes(home) == ["start one", "stop one"]
    assert phase(home) == "failed"


def test_a_child_deaf_to_sigterm_is_ended_after_its_grace(home: Path) -> None:
    """SIGKILL follows SIGTERM, for the child and its workers."""
    with up(home, "deaf", "two") as process:
        eventually(lambda: phase(home) == "ready")
        pids = pid_of(home, "deaf"), int((home / "deaf.worker").read_text())
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    assert gone(*pids)
    assert "deaf does not stop" in (home / "said").read_text()


def test_a_long_recovery_can_be_interrupted(home: Path) -> None:
    """SIGTERM while a server is still starting does not wait for it to be ready."""
    with up(home, "slow", "two") as process:
        eventually((home / "slow.starting").exists)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert (home / "slow.stopped").exists()
    assert notes(home) == [], "what comes after it was never started"


def test_children_die_with_a_killed_parent(home: Path) -> None:
    """SIGKILL of the supervisor leaves no child, no loyal worker, and a free workspace."""
    with up(home, "deaf", "loyal") as process:
        eventually(lambda: phase(home) == "ready")
        loyal = int((home / "loyal.worker").read_text())
        pids = pid_of(home, "deaf"), pid_of(home, "loyal"), loyal
        process.kill()
        process.wait()
        eventually(lambda: gone(*pids))
    psutil.Process(int((home / "deaf.worker").read_text())).kill()  # it asked for nothing
    with WorkspaceLock(home / "up.pid"):
        pass


def test_a_second_supervisor_names_the_first(home: Path) -> None:
    """The same workspace cannot be run twice; the message has the process number."""
    with up(home, "one") as process:
        eventually(lambda: phase(home) == "ready")
        with pytest.raises(Conflict, match=rf"already running .* \(process {process.pid}\)"):
            WorkspaceLock(home / "up.pid").acquire()
    with WorkspaceLock(home / "up.pid"):
        pass


def test_postgres_is_restarted_and_taken_over(home: Path) -> None:
    """A killed server recovers under the others; a killed supervisor's server is found again."""
    from meterpost.storage.embedded import EmbeddedPostgres

    def count() -> int:
        with (
            EmbeddedPostgres(home / "pg") as guest,
            psycopg.connect(guest.dsn()) as connection,
        ):
            assert not guest.owner
            row = connection.execute("SELECT count(*) FROM kept").fetchone()
            assert row is not None
            return int(row[0])

    with up(home, "postgres", "one") as process:
        eventually(lambda: phase(home) == "ready")
        with (
            EmbeddedPostgres(home / "pg") as guest,
            psycopg.connect(guest.dsn()) as connection,
        ):
            connection.execute("CREATE TABLE kept AS SELECT generate_series(1, 1000)")
        one, server = pid_of(home, "one"), pid_of(home, "postgres")
        os.kill(server, signal.SIGKILL)
        eventually(lambda: pid_of(home, "postgres") not in (0, server))
        eventually(lambda: state_of(home).child("postgres").phase == "ready")  # type: ignore[union-attr]
        assert pid_of(home, "one") == one, "the others carry on"
        assert count() == 1000

        server = pid_of(home, "postgres")
        process.kill()
        process.wait()
        eventually(lambda: gone(one))
        psutil.Process(int((home / "one.worker").read_text())).kill()
        assert psutil.pid_exists(server)

    (home / "up.json").unlink()
    with up(home, "postgres", "one") as process:
        eventually(lambda: phase(home) == "ready")
        assert pid_of(home, "postgres") == server
        assert count() == 1000
        process.terminate()
        assert process.wait(60) == 0
    assert gone(server)
