"""The engine's ear: a local socket, a thread per connection."""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import structlog

from meterpost.core.errors import MeterpostError, NotAllowed, Transient
from meterpost.core.ids import Ids, RandomIds
from meterpost.engine.peer import is_trusted, peer_of
from meterpost.engine.wire import (
    ANSWER_BYTES_MAX,
    REQUEST_BYTES_MAX,
    FrameTooLarge,
    Request,
    problem_frame,
    receive_frame,
    send_frame,
)
from meterpost.observe.logging import log_context
from meterpost.observe.metrics import EngineMetrics
from meterpost.operations.registry import Progress

_log = structlog.get_logger(__name__)

CONNECTIONS_MAX = 64
#: A client has this long to send its request, and to take each message of ours.
_PEER_TIMEOUT_S = 30.0
_PROGRESS_EVERY_S = 0.05
_ACCEPT_POLL_S = 0.2


class Handler(Protocol):
    """Runs one request."""

    def __call__(self, request: Request, progress: Progress) -> object:
        """The result as plain JSON. Raises: MeterpostError, which the client is told."""
        ...


class InternalFailure(MeterpostError):
    """A defect of ours; the log has the details under the correlation id."""

    code = "internal"


class SocketServer:
    """Answers requests on a Unix socket that only our own user can reach.

    What was begun is finished, also when its client is gone.
    """

    def __init__(
        self,
        path: Path,
        handler: Handler,
        metrics: EngineMetrics,
        *,
        ids: Ids | None = None,
        connections_max: int = CONNECTIONS_MAX,
    ) -> None:
        self._path = path
        self._handler = handler
        self._metrics = metrics
        self._ids = ids or RandomIds()
        self._places = threading.BoundedSemaphore(connections_max)
        self._connections_max = connections_max
        self._stopping = threading.Event()
        self._listener: socket.socket | None = None
        self._acceptor: threading.Thread | None = None
        self._lock = threading.Lock()
        self._serving: dict[threading.Thread, socket.socket] = {}
        self._running: dict[int, str] = {}

    def start(self) -> None:
        """Listen. A socket left by a killed engine is replaced: the caller holds the lock that
        says there is no other engine.
        """
        self._path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(self._path))  # its directory is 0700, so nobody connects before chmod
        self._path.chmod(0o600)
        listener.listen(128)
        listener.settimeout(_ACCEPT_POLL_S)
        self._listener = listener
        self._acceptor = threading.Thread(target=self._accept, name="socket", daemon=True)
        self._acceptor.start()

    def stop(self, within_s: float) -> list[str]:
        """Take no more requests and wait for those begun; the operations that did not finish."""
        self._stopping.set()
        if self._acceptor is not None:
            self._acceptor.join()
        self._path.unlink(missing_ok=True)
        with self._lock:
            waiting = [
                peer for thread, peer in self._serving.items() if thread.ident not in self._running
            ]
        for peer in waiting:  # connected, but nothing asked
            with suppress(OSError):
                peer.shutdown(socket.SHUT_RD)
        deadline = time.monotonic() + within_s
        with self._lock:
            threads = list(self._serving)
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return self.running()

    def running(self) -> list[str]:
        """The operations being run."""
        with self._lock:
            return sorted(self._running.values())

    def _accept(self) -> None:
        assert self._listener is not None
        with closing(self._listener):
            while not self._stopping.is_set():
                try:
                    peer, _ = self._listener.accept()
                except TimeoutError:
                    continue
                except OSError as exc:
                    _log.warning("socket_accept_failed", error=str(exc))
                    self._stopping.wait(_ACCEPT_POLL_S)  # out of file handles, most likely
                    continue
                self._take(peer)

    def _take(self, peer: socket.socket) -> None:
        peer.settimeout(_PEER_TIMEOUT_S)
        if not self._places.acquire(blocking=False):
            peer.settimeout(1.0)
            with closing(peer):
                self._answer(
                    peer,
                    problem_frame(
                        Transient(
                            f"The engine already serves {self._connections_max} clients.",
                            after_s=1.0,
                        )
                    ),
                )
            return
        thread = threading.Thread(target=self._serve, args=(peer,), name="client", daemon=True)
        with self._lock:
            self._serving[thread] = peer
        thread.start()

    def _serve(self, peer: socket.socket) -> None:
        self._metrics.connections.inc()
        try:
            with closing(peer):
                self._serve_one(peer)
        except (OSError, EOFError) as exc:
            _log.info("client_left", error=str(exc))
        finally:
            with self._lock:
                self._serving.pop(threading.current_thread(), None)
            self._metrics.connections.dec()
            self._places.release()

    def _serve_one(self, peer: socket.socket) -> None:
        who = peer_of(peer)
        try:
            if not is_trusted(who):
                _log.warning("client_refused", uid=None if who is None else who.uid)
                raise NotAllowed(
                    "Only the user who runs the engine may use its socket.",
                    hint=f"Run the command as user id {os.geteuid()}, or use the HTTP API.",
                )
            frame = receive_frame(peer, REQUEST_BYTES_MAX)
            if frame is None:
                return  # somebody looked whether we are here
            request = Request.from_frame(frame)
        except MeterpostError as exc:
            self._answer(peer, problem_frame(exc))
            return
        correlation_id = request.correlation_id or self._ids.correlation_id()
        with log_context(
            correlation_id=correlation_id,
            traceparent=request.traceparent,
            operation=request.operation,
        ):
            answer = self._run(peer, request, correlation_id)
            try:
                self._answer(peer, answer)
            except FrameTooLarge as exc:
                self._answer(peer, problem_frame(exc))

    def _run(self, peer: socket.socket, request: Request, correlation_id: str) -> dict[str, object]:
        ident = threading.get_ident()
        with self._lock:
            self._running[ident] = request.operation
        try:
            result = self._handler(replace(request, correlation_id=correlation_id), _Progress(peer))
        except MeterpostError as exc:
            return problem_frame(exc)
        except Exception:  # noqa: BLE001  (the one place where a defect becomes an answer)
            _log.exception("operation_failed")
            return problem_frame(
                InternalFailure(
                    f"The engine failed in {request.operation}; its log has the details under "
                    f"{correlation_id}."
                )
            )
        finally:
            with self._lock:
                del self._running[ident]
        return {"result": result}

    @staticmethod
    def _answer(peer: socket.socket, frame: dict[str, object]) -> None:
        try:
            send_frame(peer, frame, ANSWER_BYTES_MAX)
        except OSError as exc:
            _log.info("client_left", error=str(exc))


class _Progress:
    """Tells a client how far its operation is, at most twenty times a second.

    A client that has left, or does not listen, is told nothing more; its operation goes on.
    """

    def __init__(self, peer: socket.socket) -> None:
        self._peer: socket.socket | None = peer
        self._told_at = 0.0
        self._told = ""

    def __call__(self, what: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        soon = now - self._told_at < _PROGRESS_EVERY_S
        if self._peer is None or (soon and what == self._told and done != total):
            return
        self._told_at, self._told = now, what
        try:
            send_frame(self._peer, {"progress": [what, done, total]}, ANSWER_BYTES_MAX)
        except OSError as exc:
            _log.info("client_left_operation_goes_on", error=str(exc))
            with suppress(OSError):
                self._peer.shutdown(socket.SHUT_RDWR)  # half a frame may be on its way
            self._peer = None
