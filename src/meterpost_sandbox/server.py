"""The HTTP edge: a thread per connection, one process, loopback only."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import FrameType
from typing import Any

from meterpost_sandbox.answers import Answer, Refused, refusal
from meterpost_sandbox.app import App, Request
from meterpost_sandbox.faults import Faults
from meterpost_sandbox.invoices import Settings, json_bytes
from meterpost_sandbox.ledger import Ledger, exclusive

BODY_MAX = 8 * 1024 * 1024
_FLUSH_EVERY_S = 0.25
_FINISH_WITHIN_S = 5.0
_LINGER_S = 2.0
_LINGER_BYTES_MAX = 64 * 1024 * 1024
_LOG = logging.getLogger("meterpost_sandbox")


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """How to start the server; ``port`` 0 takes a free one."""

    ledger: Path
    token: str
    port: int = 0
    port_file: Path | None = None
    seed: int = 1
    faults: object = None
    settings: Settings = field(default_factory=Settings)


def serve(options: ServeOptions, announce: Callable[[str], object]) -> None:
    """Serve until SIGTERM or SIGINT; ``announce`` is called with the URL once it accepts.

    Raises: LedgerInUse; Refused where the faults are not understood; OSError for the port.
    """
    faults = Faults(options.seed, options.faults)
    with exclusive(options.ledger):
        ledger = Ledger(options.ledger)
        try:
            app = App(ledger, faults, options.token, options.settings)
            with _Server(("127.0.0.1", options.port), app) as server:
                _serve_until_signal(server, ledger, options, announce)
        finally:
            ledger.close()


def _serve_until_signal(
    server: _Server, ledger: Ledger, options: ServeOptions, announce: Callable[[str], object]
) -> None:
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    previous = {each: signal.signal(each, on_signal) for each in (signal.SIGTERM, signal.SIGINT)}
    accepting = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1})
    accepting.start()
    try:
        port = server.server_address[1]
        if options.port_file is not None:
            _write_port(options.port_file, int(port))
        announce(f"http://127.0.0.1:{port}")
        while not stop.wait(_FLUSH_EVERY_S):
            ledger.flush()
    finally:
        server.shutdown()
        accepting.join()
        server.finish(_FINISH_WITHIN_S)
        for number, handler in previous.items():
            signal.signal(number, handler)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], app: App) -> None:
        self.app = app
        self.working = 0
        self.idle = threading.Condition()
        super().__init__(address, _Handler)

    def finish(self, within_s: float) -> None:
        """Let requests in progress end, for a bounded time."""
        with self.idle:
            self.idle.wait_for(lambda: self.working == 0, within_s)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news; anything else is logged with its traceback."""
        level = logging.DEBUG if isinstance(sys.exception(), OSError) else logging.ERROR
        _LOG.log(level, "connection from %s ended", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 300  # an idle keep-alive connection gives its thread back
    server: _Server

    def _serve(self) -> None:
        with self.server.idle:
            self.server.working += 1
        try:
            self._answer_one()
        finally:
            with self.server.idle:
                self.server.working -= 1
                self.server.idle.notify_all()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815 (names of http.server)

    def _answer_one(self) -> None:
        wall, monotonic = time.time(), time.monotonic()
        try:
            body = self._body()
        except Refused as refused:
            # The rest of the body was not read, so the connection cannot go on.
            self.close_connection = True
            self._send(refusal(refused))
            self._linger()
            return
        request = Request(
            method=self.command,
            target=self.path,
            body=body,
            authorization=self.headers.get("Authorization", ""),
            idempotency_key=self.headers.get("Idempotency-Key"),
            wall=wall,
            monotonic=monotonic,
        )
        try:
            answer = self.server.app.handle(request)
        except Exception:  # noqa: BLE001 (the edge: logged, answered as 500)
            _LOG.exception("%s %s failed", self.command, self.path[:200])
            answer = refusal(Refused(500, "internal_error", "a defect of the sandbox; see its log"))
        if answer is None:
            self._drop()
        else:
            self._send(answer)

    def _body(self) -> bytes:
        if "Transfer-Encoding" in self.headers:
            raise Refused(411, "length_required", "send Content-Length, not a chunked body")
        text = self.headers.get("Content-Length", "0")
        if not (text.isascii() and text.isdigit()):
            raise Refused(400, "malformed", "Content-Length is not a number")
        if len(text) > 18 or int(text) > BODY_MAX:
            raise Refused(413, "too_large", f"at most {BODY_MAX} bytes are taken")
        body = self.rfile.read(int(text))
        if len(body) < int(text):
            raise Refused(400, "malformed", "the body is shorter than Content-Length")
        return body

    def _send(self, answer: Answer) -> None:
        body = b"" if answer.body is None else json_bytes(answer.body)
        head = [f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}"]
        head += [f"{name}: {value}" for name, value in answer.headers.items()]
        if answer.status != HTTPStatus.NO_CONTENT:
            head += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        if self.close_connection:
            head.append("Connection: close")
        # One write, one packet: the answer either leaves whole or not at all.
        self.wfile.write("\r\n".join([*head, "", ""]).encode() + body)

    def _linger(self) -> None:
        """Take in what the client still sends: closing on unread bytes would reset the answer."""
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(_LINGER_S)
            left = _LINGER_BYTES_MAX
            while left > 0 and (taken := len(self.connection.recv(65536))):
                left -= taken

    def _drop(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests stand in the ledger, not on standard error."""


def _write_port(path: Path, port: int) -> None:
    """The port in a file that is either absent or whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(f"{port}\n", encoding="ascii")
    draft.replace(path)
