"""The edge as a process of its own, over an application of the test's."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from meterpost.core.errors import Conflict
from meterpost.engine.edge import EdgeAddress, require_free

pytestmark = pytest.mark.integration

_WAIT_S = 60.0
Start = Callable[..., "subprocess.Popen[str]"]
Eventually = Callable[[Callable[[], object], str], None]

_EDGE = """
import asyncio, sys
from functools import partial
from pathlib import Path
from meterpost.engine.edge import EdgeAddress, serve_edge
from meterpost.engine.ops import PATHS, ops_app
from meterpost.engine.readiness import NotReady

def make_app(home):
    def readiness():
        return [] if (home / "ready").exists() else [NotReady("engine", "Not running.")]
    ops = ops_app(readiness, lambda: b"metric 1\\n", lambda: 3)

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                kind = message["type"]
                (home / kind).touch()
                await send({"type": f"{kind}.complete"})
                if kind == "lifespan.shutdown":
                    return
        if scope["path"] in PATHS:
            return await ops(scope, receive, send)
        (home / "begun").touch()
        while not (home / "go").exists():
            await asyncio.sleep(0.01)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"finished"})
    return app

if __name__ == "__main__":
    serve_edge(partial(make_app, Path(sys.argv[1])), EdgeAddress(port=int(sys.argv[2])))
"""


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def edge(start: Start, tmp_path: Path, port: int, eventually: Eventually) -> subprocess.Popen[str]:
    process = start(_EDGE, str(tmp_path), str(port))
    eventually(
        lambda: process.poll() is not None or get(port, "/healthz") is not None,
        "the edge does not answer",
    )
    assert process.poll() is None, process.communicate()[0]
    return process


def get(port: int, path: str) -> tuple[int, bytes] | None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}{path}", timeout=_WAIT_S) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, exc.read()
    except OSError:
        return None


def test_it_serves_health_readiness_and_metrics(
    edge: subprocess.Popen[str], port: int, tmp_path: Path
) -> None:
    """Alive at once; ready only when nothing stands in the way."""
    assert get(port, "/healthz") == (200, b'{"status": "ok"}')
    answer = get(port, "/readyz")
    assert answer is not None
    assert answer[0] == 503
    assert json.loads(answer[1])["reasons"] == [{"part": "engine", "sentence": "Not running."}]
    (tmp_path / "ready").touch()
    ready = get(port, "/readyz")
    assert ready is not None
    assert ready[0] == 200
    assert get(port, "/metrics") == (200, b"metric 1\n")


def test_sigterm_finishes_requests_and_the_lifespan(
    edge: subprocess.Popen[str], port: int, tmp_path: Path, eventually: Eventually
) -> None:
    """A request in progress is answered, the application shut down, the exit code 0."""
    answers: list[object] = []
    thread = threading.Thread(target=lambda: answers.append(get(port, "/slow")))
    thread.start()
    eventually((tmp_path / "begun").exists, "the request does not arrive")
    edge.send_signal(signal.SIGTERM)
    (tmp_path / "go").touch()
    thread.join(_WAIT_S)
    output, _ = edge.communicate(timeout=_WAIT_S)
    assert answers == [(200, b"finished")]
    assert edge.returncode == 0, output
    assert (tmp_path / "lifespan.shutdown").exists()


def test_the_worker_dies_with_its_parent(
    edge: subprocess.Popen[str], port: int, eventually: Eventually
) -> None:
    """A killed edge leaves no worker behind that goes on accepting events."""
    workers = psutil.Process(edge.pid).children(recursive=True)
    assert workers
    edge.kill()
    edge.communicate(timeout=_WAIT_S)
    _, alive = psutil.wait_procs(workers, timeout=_WAIT_S)
    assert not alive
    assert get(port, "/healthz") is None


def test_the_edge_ends_when_its_worker_was_killed(edge: subprocess.Popen[str]) -> None:
    """The supervisor sees it end and starts all of it again."""
    [worker] = psutil.Process(edge.pid).children()
    os.kill(worker.pid, signal.SIGKILL)
    output, _ = edge.communicate(timeout=_WAIT_S)
    assert edge.returncode == 1, output


def test_a_taken_port_is_refused_before_anything_starts(
    edge: subprocess.Popen[str], port: int, start: Start, tmp_path: Path
) -> None:
    """Two edges never share a port, although the kernel would let them."""
    with pytest.raises(Conflict, match="Address already in use"):
        require_free(EdgeAddress(port=port))
    second = start(_EDGE, str(tmp_path), str(port))
    output, _ = second.communicate(timeout=_WAIT_S)
    assert second.returncode == 1
    assert "Nothing can listen on" in output
