"""Client and engine over a real socket, in one process."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from meterpost.core.errors import (
    InvalidInput,
    MeterpostError,
    NotAllowed,
    OutcomeUnknown,
    Transient,
)
from meterpost.core.problem import Problem
from meterpost.engine import socket as engine_socket
from meterpost.engine.client import EngineClient, EngineNotRunning
from meterpost.engine.peer import Peer
from meterpost.engine.ports import Caller
from meterpost.engine.run_dir import RunDirectory
from meterpost.engine.socket import SocketServer
from meterpost.engine.wire import REQUEST_BYTES_MAX, BadFrame, FrameTooLarge, Request, send_frame
from meterpost.observe.metrics import EngineMetrics
from meterpost.operations.registry import Progress

pytestmark = pytest.mark.integration

_WAIT_S = 30.0
Eventually = Callable[[Callable[[], object], str], None]


class _Operations:
    """A handler with one operation per behaviour under test."""

    def __init__(self) -> None:
        self.finished: list[str] = []
        self.go = threading.Event()
        self.begun = threading.Semaphore(0)

    def __call__(self, request: Request, progress: Progress) -> object:
        match request.operation:
            case "echo":
                return {
                    "arguments": request.arguments,
                    "token": request.caller.token,
                    "user": request.caller.user,
                    "correlation_id": request.correlation_id,
                }
            case "count":
                for n in range(3):
                    progress("events", n + 1, 3)
                return "counted"
            case "refuse":
                raise InvalidInput("No.", [Problem("bad", "Bad.", "a.yaml:3")], hint="Mend it.")
            case "defect":
                raise ZeroDivisionError("the inner workings of a secret")
            case "huge":
                return "x" * (65 * 1024 * 1024)
            case "wait":
                self.begun.release()
                assert self.go.wait(_WAIT_S)
                progress("late", 1, 1)
                self.finished.append("wait")
                return "waited"
        raise AssertionError(request.operation)


@pytest.fixture
def operations() -> _Operations:
    return _Operations()


@pytest.fixture
def server(run_directory: RunDirectory, operations: _Operations) -> Iterator[SocketServer]:
    server = SocketServer(
        run_directory.new_socket(), operations, EngineMetrics(), connections_max=4
    )
    server.start()
    yield server
    operations.go.set()
    assert server.stop(_WAIT_S) == []


@pytest.fixture
def client(run_directory: RunDirectory, server: SocketServer) -> EngineClient:
    return EngineClient(run_directory)


def test_what_is_asked_arrives_and_the_result_comes_back(client: EngineClient) -> None:
    """Arguments, caller and correlation id arrive; a request without an id is given one."""
    answer = client.call(
        "echo", {"a": ["ü", 1, None]}, caller=Caller("mp_k.s", "anna"), correlation_id="C7"
    )
    assert answer == {
        "arguments": {"a": ["ü", 1, None]},
        "token": "mp_k.s",
        "user": "anna",
        "correlation_id": "C7",
    }
    assert len(client.call("echo")["correlation_id"]) == 26


def test_progress_is_told_while_it_happens(client: EngineClient) -> None:
    """A watcher sees at least the first and the last step, in order."""
    seen: list[tuple[str, int, int | None]] = []
    result = client.call("count", on_progress=lambda *told: seen.append(told))
    assert result == "counted"
    assert seen[0] == ("events", 1, 3)
    assert seen[-1] == ("events", 3, 3)


def test_failures_are_raised_again_at_the_client(client: EngineClient) -> None:
    """A refusal arrives as its own class with its problems; a defect without its inner words."""
    with pytest.raises(InvalidInput) as refused:
        client.call("refuse")
    assert refused.value.problems == (Problem("bad", "Bad.", "a.yaml:3"),)
    assert refused.value.hint == "Mend it."
    with pytest.raises(MeterpostError, match="C9") as defect:
        client.call("defect", correlation_id="C9")
    assert defect.value.code == "internal"
    assert "secret" not in str(defect.value)


def test_too_large_a_request_or_result_is_refused_with_a_sentence(
    client: EngineClient, run_directory: RunDirectory
) -> None:
    """Neither side reads or sends more than its limit, and the engine goes on."""
    with pytest.raises(FrameTooLarge):
        client.call("echo", {"text": "x" * REQUEST_BYTES_MAX})
    with pytest.raises(MeterpostError, match="Ask for less") as huge:
        client.call("huge")
    assert huge.value.code == "frame-too-large"
    with _raw(run_directory) as raw:
        raw.sendall((REQUEST_BYTES_MAX + 1).to_bytes(4, "big"))
        assert b"frame-too-large" in _all(raw)
    assert client.call("count") == "counted"


def test_a_malformed_request_is_answered(run_directory: RunDirectory, client: EngineClient) -> None:
    """Somebody who does not speak the protocol is told so, and harms nobody."""
    with _raw(run_directory) as raw:
        send_frame(raw, {"operation": ["x"]}, 1000)
        assert BadFrame.code.encode() in _all(raw)
    with _raw(run_directory) as raw:
        raw.sendall(b"\0\0\0\x05half")
    assert client.is_running()
    assert client.call("count") == "counted"


def test_several_clients_are_served_at_once_up_to_a_bound(
    client: EngineClient, operations: _Operations, eventually: Eventually, server: SocketServer
) -> None:
    """Four wait together, the fifth is told to come again, and all four get their answer."""
    answers: list[object] = []
    threads = [
        threading.Thread(target=lambda: answers.append(client.call("wait"))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert operations.begun.acquire(timeout=_WAIT_S)
    with pytest.raises(Transient, match="already serves 4"):
        client.call("echo")
    assert server.running() == ["wait"] * 4
    operations.go.set()
    for thread in threads:
        thread.join(_WAIT_S)
    assert answers == ["waited"] * 4
    eventually(lambda: not server.running(), "operations stay noted after their end")


def test_what_was_begun_is_finished_without_its_client(
    run_directory: RunDirectory,
    operations: _Operations,
    server: SocketServer,
    eventually: Eventually,
) -> None:
    """A client that leaves does not stop a close."""
    with _raw(run_directory) as raw:
        send_frame(raw, {"operation": "wait"}, 1000)
        assert operations.begun.acquire(timeout=_WAIT_S)
    operations.go.set()
    eventually(lambda: operations.finished == ["wait"], "the operation was given up")


def test_stopping_waits_for_what_was_begun(
    run_directory: RunDirectory, operations: _Operations
) -> None:
    """No new request is taken, the one in progress is named, and answered when it ends."""
    server = SocketServer(run_directory.new_socket(), operations, EngineMetrics())
    server.start()
    client = EngineClient(run_directory)
    answers: list[object] = []
    thread = threading.Thread(target=lambda: answers.append(client.call("wait")))
    thread.start()
    assert operations.begun.acquire(timeout=_WAIT_S)
    assert server.stop(0.05) == ["wait"]
    with pytest.raises(EngineNotRunning):
        client.call("echo")
    operations.go.set()
    thread.join(_WAIT_S)
    assert answers == ["waited"]
    assert server.stop(_WAIT_S) == []


def test_a_foreign_user_is_refused_on_either_side(
    client: EngineClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither does the engine serve another user, nor does a client give it a key."""
    monkeypatch.setattr(engine_socket, "peer_of", lambda _connection: Peer(1, 4711))
    with pytest.raises(NotAllowed, match="Only the user who runs the engine"):
        client.call("echo")
    monkeypatch.setattr("meterpost.engine.client.peer_of", lambda _connection: Peer(1, 4711))
    with pytest.raises(NotAllowed, match="belongs to another user"):
        client.call("echo")


def test_the_socket_is_for_its_owner_only(
    run_directory: RunDirectory, server: SocketServer
) -> None:
    """Socket 0600 in a directory 0700."""
    path = run_directory.socket()
    assert path is not None
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_no_engine_is_a_clear_sentence(run_directory: RunDirectory) -> None:
    """Before the first start and after the last stop the client says how to start one."""
    client = EngineClient(run_directory)
    assert not client.is_running()
    with pytest.raises(EngineNotRunning, match="meterpost up"):
        client.call("echo")
    run_directory.new_socket()
    with pytest.raises(EngineNotRunning):
        client.call("echo")


def test_an_engine_that_ends_or_is_slow_leaves_the_outcome_open(
    client: EngineClient, operations: _Operations, run_directory: RunDirectory
) -> None:
    """After a request was sent, silence does not mean that nothing happened."""
    with pytest.raises(OutcomeUnknown, match="did not answer"):
        client.call("wait", timeout_s=0.05)
    operations.go.set()
    path = run_directory.path / "dying.sock"
    with closing(socket.socket(socket.AF_UNIX)) as dying:
        dying.bind(str(path))
        dying.listen()
        (run_directory.path / "engine.address").write_text(str(path))

        def die() -> None:
            peer, _ = dying.accept()
            peer.recv(4)
            peer.close()

        thread = threading.Thread(target=die)
        thread.start()
        with pytest.raises(OutcomeUnknown, match="ended before it answered"):
            client.call("echo")
        thread.join(_WAIT_S)


def _raw(run_directory: RunDirectory) -> socket.socket:
    raw = socket.socket(socket.AF_UNIX)
    raw.settimeout(_WAIT_S)
    raw.connect(str(run_directory.socket()))
    return raw


def _all(raw: socket.socket) -> bytes:
    received = b""
    while part := raw.recv(65536):
        received += part
    return received
