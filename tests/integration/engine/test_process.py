"""The engine as a process of its own, over an application of the test's."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from meterpost.core.errors import Conflict, NotAuthenticated, NotFound
from meterpost.engine.backlog import EngineState
from meterpost.engine.client import EngineClient
from meterpost.engine.lock import EventStoreLock
from meterpost.engine.ports import Caller
from meterpost.engine.run_dir import RunDirectory

pytestmark = pytest.mark.integration

_WAIT_S = 60.0
Start = Callable[..., "subprocess.Popen[str]"]
Eventually = Callable[[Callable[[], object], str], None]

_ENGINE = """
import sys, threading, time
from dataclasses import dataclass
from pathlib import Path
from meterpost.core.clock import SystemClock
from meterpost.core.errors import MeterpostError, NotAuthenticated, Permanent, Transient
from meterpost.engine.ports import Job
from meterpost.engine.process import exit_with, run_engine, stop_on_signals
from meterpost.engine.run_dir import RunDirectory
from meterpost.metering.model import Position
from meterpost.observe.logging import configure_logging
from meterpost.operations import registry
from meterpost.operations.registry import Context, operation

home = Path(sys.argv[1])
registry._load = lambda: None
configure_logging("engine")

class Broken(Exception): pass

@dataclass(frozen=True)
class Nothing: pass

@dataclass(frozen=True)
class Close:
    name: str

running = []

@operation("test.close", scope="closes:run", summary="Notes itself.", needs_events=True,
           creates=True)
def close(context: Context, arguments: Close) -> object:
    running.append(arguments.name)
    together = list(running)
    context.progress("closing", 1, 2)
    (home / f"{arguments.name}.begun").touch()
    deadline = time.monotonic() + 60
    while not (home / f"{arguments.name}.go").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    running.remove(arguments.name)
    (home / f"{arguments.name}.finished").touch()
    return {"together": together, "correlation_id": context.correlation_id}

@operation("test.break", scope="closes:run", summary="Breaks the store.", needs_events=True)
def break_(context: Context, arguments: Nothing) -> object:
    raise Broken

class Application:
    clock = SystemClock()
    sequence = 0
    def open_events(self): (home / "opened").touch()
    def position(self): return Position("one", self.sequence)
    def jobs(self, stopping):
        return [Job("drain", self.drain, 0.02), Job("broken", self.broken, 0.02),
                Job("transient", self.transient, 0.02)]
    def drain(self):
        if self.sequence < 100:
            self.sequence += 1
            return True
        return False
    def broken(self): raise Permanent("The secret is missing.")
    def transient(self): raise Transient("Down.")
    def context(self, caller, correlation_id, progress):
        if caller.user != "anna":
            raise NotAuthenticated("Who is that?")
        from meterpost.access.model import Principal, Role, scopes_of
        roles = frozenset({Role.OPERATOR})
        return Context(self, Principal("anna", roles, scopes_of(roles)), correlation_id, progress)
    def close(self): (home / "closed").touch()

stopping = threading.Event()
try:
    with stop_on_signals(stopping):
        exit_with(run_engine(Application(), RunDirectory(Path(sys.argv[2])), stopping,
                             fatal=(Broken,), stop_within_s=float(sys.argv[3])))
except MeterpostError as exc:
    print(f"{type(exc).__name__}: {exc}")
    sys.exit(3)
"""


@pytest.fixture
def engine(
    start: Start, tmp_path: Path, run_directory: RunDirectory, eventually: Eventually
) -> Callable[..., subprocess.Popen[str]]:
    """Starts an engine and waits until it is ready."""

    def engine(stop_within_s: float = 60.0) -> subprocess.Popen[str]:
        process = start(_ENGINE, str(tmp_path), str(run_directory.path), str(stop_within_s))
        eventually(
            lambda: run_directory.engine_ready.exists() or process.poll() is not None,
            "the engine does not become ready",
        )
        assert process.poll() is None, process.communicate()[0]
        return process

    return engine


def _end(process: subprocess.Popen[str]) -> tuple[int, str]:
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=_WAIT_S)
    return process.returncode, output


def test_it_works_tells_how_it_is_and_stops_in_order(
    engine: Callable[..., subprocess.Popen[str]],
    run_directory: RunDirectory,
    tmp_path: Path,
    eventually: Eventually,
) -> None:
    """Jobs run, one that fails is visible and stops no other; SIGTERM closes and exits with 0."""
    process = engine()
    client = EngineClient(run_directory)
    eventually(lambda: client.call("engine.status")["position"]["sequence"] == 100, "no drain")
    status = client.call("engine.status")
    assert status["pid"] == process.pid
    jobs = {job["name"]: job for job in status["jobs"]}
    assert jobs["drain"]["state"] == "running"
    assert (jobs["broken"]["state"], jobs["broken"]["problem"]) == (
        "failed",
        "The secret is missing.",
    )
    assert jobs["transient"]["state"] == "waiting"
    eventually(
        lambda: (
            EngineState.read(run_directory.engine_state) == EngineState(process.pid, "one", 100)
        ),
        "the position is not written down for the edge",
    )
    metrics = client.call("engine.metrics")
    assert 'meterpost_engine_job_failed{job="broken"} 1.0' in metrics
    assert 'meterpost_engine_job_failed{job="drain"} 0.0' in metrics
    code, output = _end(process)
    assert code == 0, output
    assert (tmp_path / "closed").exists()
    assert not run_directory.engine_ready.exists()
    assert '"event": "job_failed"' in output
    assert not client.is_running()


def test_operations_run_for_known_people_one_close_after_the_other(
    engine: Callable[..., subprocess.Popen[str]],
    run_directory: RunDirectory,
    tmp_path: Path,
) -> None:
    """Who asks is checked, unknown operations are named, two closes do not run together."""
    engine()
    client = EngineClient(run_directory)
    with pytest.raises(NotAuthenticated):
        client.call("test.close", {"name": "a"})
    with pytest.raises(NotFound, match=r"test\.nothing"):
        client.call("test.nothing", caller=Caller(user="anna"))
    answers: dict[str, object] = {}
    waiting = threading.Event()

    def close(name: str) -> None:
        def told(what: str, _done: int, _total: int | None) -> None:
            if what.startswith("waiting"):
                waiting.set()

        answers[name] = client.call(
            "test.close",
            {"name": name},
            caller=Caller(user="anna"),
            correlation_id=name,
            on_progress=told,
        )

    threads = [threading.Thread(target=close, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    assert waiting.wait(_WAIT_S)
    for name in "ab":
        (tmp_path / f"{name}.go").touch()
    for thread in threads:
        thread.join(_WAIT_S)
    assert answers == {name: {"together": [name], "correlation_id": name} for name in ("a", "b")}


def test_sigterm_lets_a_close_finish(
    engine: Callable[..., subprocess.Popen[str]],
    run_directory: RunDirectory,
    tmp_path: Path,
    eventually: Eventually,
) -> None:
    """Its client gets the answer, and only then does the engine close its stores."""
    process = engine()
    answers: list[object] = []
    client = EngineClient(run_directory)
    thread = threading.Thread(
        target=lambda: answers.append(
            client.call("test.close", {"name": "a"}, caller=Caller(user="anna"))
        )
    )
    thread.start()
    eventually((tmp_path / "a.begun").exists, "the close does not begin")
    process.send_signal(signal.SIGTERM)
    eventually(lambda: not run_directory.engine_ready.exists(), "the signal is not noticed")
    assert not (tmp_path / "closed").exists()
    (tmp_path / "a.go").touch()
    thread.join(_WAIT_S)
    assert len(answers) == 1
    process.communicate(timeout=_WAIT_S)
    assert process.returncode == 0
    assert (tmp_path / "closed").exists()


def test_what_does_not_finish_in_time_is_left_and_said(
    engine: Callable[..., subprocess.Popen[str]],
    run_directory: RunDirectory,
    tmp_path: Path,
    eventually: Eventually,
) -> None:
    """The engine does not wait for ever, and its exit code tells that something was cut off."""
    process = engine(stop_within_s=0.1)
    thread = threading.Thread(target=_swallow, args=(EngineClient(run_directory),))
    thread.start()
    eventually((tmp_path / "a.begun").exists, "the close does not begin")
    code, output = _end(process)
    thread.join(_WAIT_S)
    assert code == 75, output
    assert "engine_leaves_unfinished" in output
    assert not (tmp_path / "a.finished").exists()


def _swallow(client: EngineClient) -> None:
    from meterpost.core.errors import OutcomeUnknown

    with pytest.raises(OutcomeUnknown):
        client.call("test.close", {"name": "a"}, caller=Caller(user="anna"))


def test_a_second_engine_is_refused_with_the_pid_of_the_first(
    engine: Callable[..., subprocess.Popen[str]],
    start: Start,
    run_directory: RunDirectory,
    tmp_path: Path,
) -> None:
    """Neither a second engine nor a command opens the event store beside a running engine."""
    process = engine()
    second = start(_ENGINE, str(tmp_path), str(run_directory.path), "60")
    output, _ = second.communicate(timeout=_WAIT_S)
    assert second.returncode == 3, output
    assert f"Conflict: The event store is open in process {process.pid}" in output
    with pytest.raises(Conflict, match=str(process.pid)), EventStoreLock(run_directory):
        pass
    assert EngineClient(run_directory).is_running()


def test_a_killed_engine_leaves_nothing_that_hinders_the_next(
    engine: Callable[..., subprocess.Popen[str]], run_directory: RunDirectory
) -> None:
    """Its lock is free, its socket and ready file are replaced."""
    first = engine()
    first.kill()
    first.communicate(timeout=_WAIT_S)
    assert run_directory.engine_ready.exists()
    assert not EngineClient(run_directory).is_running()
    run_directory.engine_ready.unlink()  # what the supervisor clears before each start
    second = engine()
    assert EngineClient(run_directory).call("engine.status")["pid"] == second.pid


def test_a_broken_store_ends_the_engine_so_that_it_is_started_anew(
    engine: Callable[..., subprocess.Popen[str]], run_directory: RunDirectory, tmp_path: Path
) -> None:
    """A failure that no retry mends does not leave a process that answers and does nothing."""
    process = engine()
    with pytest.raises(Exception, match=r"failed in test\.break"):
        EngineClient(run_directory).call("test.break", caller=Caller(user="anna"))
    output, _ = process.communicate(timeout=_WAIT_S)
    assert process.returncode == 1, output
    assert not (tmp_path / "closed").exists()


def test_the_lock_is_free_for_a_command_when_no_engine_runs(run_directory: RunDirectory) -> None:
    """Without an engine a command opens the event store itself, under the same lock."""
    with (
        EventStoreLock(run_directory),
        pytest.raises(Conflict, match=str(os.getpid())),
        EventStoreLock(run_directory),
    ):
        pass
    with EventStoreLock(run_directory):
        pass
