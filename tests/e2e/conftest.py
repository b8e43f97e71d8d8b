"""A workspace, `meterpost up` over it, and events sent to it."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import structlog
from typer.testing import CliRunner, Result

from meterpost.access.model import Role, Scope
from meterpost.bootstrap import open_application
from meterpost.cli.app import app
from meterpost.config import init_workspace, open_workspace
from meterpost.core.ids import UserId
from meterpost.engine.run_dir import RunDirectory
from meterpost.storage.duckdb.store import DuckDbEventStore
from meterpost.supervise import read_state

_WAIT_S = 120.0
_TYPE = "com.example.api.request"


@dataclass
class Installation:
    """A workspace and the processes over it. ``sent`` counts events answered with 202.

    ``user`` is who asks where a command names nobody; ``environment`` is added to ours.
    """

    root: Path
    port: int
    token: str = ""
    sent: int = 0
    user: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def run(self) -> RunDirectory:
        return RunDirectory(self.root / ".meterpost" / "run")

    def command(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """One of our own commands in this workspace."""
        process = subprocess.Popen(
            [sys.executable, "-m", "meterpost", *arguments, "--workspace", str(self.root)],
            env={**os.environ, **self._environment(), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.processes.append(process)
        return process

    def run_here(self, *arguments: str, user: str = "") -> Result:
        """One of our own commands in this process, whatever its end: no Python is started."""
        who = ["--as", user] if user else []
        return CliRunner().invoke(
            app,
            [*arguments, *who, "--workspace", str(self.root)],
            env={"METERPOST_API_KEY": "", "COLUMNS": "200", **self._environment()},
        )

    def ok(self, *arguments: str, user: str = "") -> str:
        """What a command says that ends with 0."""
        result = self.run_here(*arguments, user=user)
        assert result.exit_code == 0, (arguments, result.stdout, result.stderr)
        return result.stdout

    def json(self, *arguments: str, user: str = "") -> Any:
        """The plain result of a command that ends with 0."""
        return json.loads(self.ok(*arguments, "--json", user=user))

    def refused(self, code: int, *arguments: str, user: str = "") -> str:
        """The sentence of a command that ends with that code; there is no traceback."""
        result = self.run_here(*arguments, user=user)
        assert result.exit_code == code, (arguments, result.stdout, result.stderr)
        assert "Traceback" not in result.output
        return result.stderr + result.stdout

    def _environment(self) -> dict[str, str]:
        return {
            "METERPOST_EDGE__PORT": str(self.port),
            "METERPOST_USER": self.user,
            **self.environment,
        }

    def up(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """`meterpost up`, ready."""
        process = self.command("up", *arguments, **environment)
        self.until(lambda: process.poll() is not None or self.ready(), "it does not become ready")
        assert process.poll() is None, process.communicate()[0]
        return process

    def down(self, process: subprocess.Popen[str]) -> str:
        """What it said, after SIGTERM and an orderly end."""
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=_WAIT_S)
        assert process.returncode == 0, output
        return output

    def ready(self) -> bool:
        return self.get("/readyz")[0] == 200

    def pid_or_none(self, child: str) -> int | None:
        state = read_state(self.run.supervisor_state)
        return None if state is None else state.child(child).pid

    def pid(self, child: str) -> int:
        pid = self.pid_or_none(child)
        assert pid is not None
        return pid

    def kill(self, child: str) -> None:
        os.kill(self.pid(child), signal.SIGKILL)

    def get(self, path: str) -> tuple[int, dict[str, Any]]:
        return self._request(urllib.request.Request(f"http://127.0.0.1:{self.port}{path}"))

    def text(self, path: str) -> str:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{self.port}{path}", timeout=_WAIT_S) as answer:
            return str(answer.read().decode())

    def send(self, count: int) -> None:
        """Send new events, again and again until they are accepted."""
        events = [
            {
                "specversion": "1.0",
                "id": f"e{self.sent + n}",
                "source": "test",
                "type": _TYPE,
                "subject": "s",
                "time": "2026-10-01T00:00:00Z",
                "data": {"tokens": 2},
            }
            for n in range(count)
        ]
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v1/events",
            data=json.dumps(events).encode(),
            headers={
                "authorization": f"Bearer {self.token}",
                "content-type": "application/cloudevents-batch+json",
            },
        )
        self.until(lambda: self._request(request)[0] == 202, "the events are not accepted")
        self.sent += count

    def drained(self) -> bool:
        status, page = self.get("/readyz")
        return status == 200 and page["events_behind"] == 0

    def stored(self) -> int:
        """Events in the event store, while nothing runs."""
        with DuckDbEventStore(self.root / ".meterpost") as store:
            return sum(cell["processed"] for cell in store.ledger_counts())

    @staticmethod
    def until(what: Callable[[], object], why: str) -> None:
        deadline = time.monotonic() + _WAIT_S
        while not what():
            assert time.monotonic() < deadline, why
            time.sleep(0.05)

    @staticmethod
    def _request(request: urllib.request.Request) -> tuple[int, dict[str, Any]]:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=_WAIT_S) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code, json.loads(exc.read())
        except OSError:
            return 0, {}


@contextmanager
def _installation(root: Path) -> Iterator[Installation]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    installation = Installation(root, port)
    try:
        yield installation
    finally:
        for process in installation.processes:
            if process.poll() is None:
                process.terminate()
                try:
                    process.communicate(timeout=_WAIT_S)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.communicate()
        data = installation.root / ".meterpost" / "pg"
        if data.is_symlink():  # the server's user cannot reach the tests' folders under root
            shutil.rmtree(data.resolve().parent)


@pytest.fixture(scope="session")
def installation_in() -> Callable[[Path], AbstractContextManager[Installation]]:
    """Makes installations over folders (`init` is still to come); leaves none of their processes.

    For modules that share one over many tests.
    """
    return _installation


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    """A new workspace; afterwards none of its processes is left."""
    init_workspace(tmp_path / "ws", "acme")
    with _installation(tmp_path / "ws") as installation:
        yield installation


@pytest.fixture(scope="module")
def commands_here() -> Iterator[None]:
    """Commands may run in this process: the logging that they set up is undone afterwards."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def with_key(installation: Installation) -> Installation:
    """The same with a first administrator and a key that may write events."""
    workspace = open_workspace(installation.root)
    with open_application(workspace) as application:
        now = application.clock.now()
        user = application.access.first_administrator("anna", "Anna", now, {Role.ENGINEER})
        key = application.access.create_key(
            application.access.person(UserId(user.id)), user.id, {Scope.EVENTS_WRITE}, now
        )
        installation.token = key.token
    return installation
