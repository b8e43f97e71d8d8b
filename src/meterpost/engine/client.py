"""The engine as its clients see it: the command line and the edge."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

from meterpost.core.errors import NotAllowed, OutcomeUnknown, Permanent, Transient
from meterpost.engine.peer import is_trusted, peer_of
from meterpost.engine.ports import Caller
from meterpost.engine.run_dir import RunDirectory
from meterpost.engine.wire import (
    ANSWER_BYTES_MAX,
    REQUEST_BYTES_MAX,
    Request,
    error_of,
    receive_frame,
    send_frame,
)

if TYPE_CHECKING:
    from meterpost.operations.registry import Progress

_CONNECT_TIMEOUT_S = 5.0


class EngineNotRunning(Transient):
    """Nobody listens at the engine's socket."""

    code = "engine-not-running"


class EngineClient:
    """Asks the engine of one workspace; each call has a connection of its own.

    Safe to use from several threads.
    """

    def __init__(self, run_directory: RunDirectory) -> None:
        self._run_directory = run_directory

    def call(
        self,
        operation: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        caller: Caller | None = None,
        correlation_id: str | None = None,
        traceparent: str | None = None,
        on_progress: Progress | None = None,
        timeout_s: float | None = None,
    ) -> Any:
        """The operation's result, as plain JSON.

        ``timeout_s`` bounds the wait for each message of the engine; without it a long
        operation is waited for as long as the engine lives. Leaving early does not stop what
        was begun.

        Raises: what the operation raises, as the same class of `core.errors`;
        EngineNotRunning before anything was sent; OutcomeUnknown when the engine ended, or did
        not answer in time, afterwards.
        """
        request = Request(
            operation, arguments or {}, caller or Caller(), correlation_id, traceparent
        )
        with closing(self._connect()) as engine:
            try:
                with suppress(BrokenPipeError, ConnectionResetError):
                    # A refusal may come before all was read; it waits to be received.
                    send_frame(engine, request.to_frame(), REQUEST_BYTES_MAX)
                engine.settimeout(timeout_s)
                while (frame := receive_frame(engine, ANSWER_BYTES_MAX)) is not None:
                    if "progress" in frame:
                        if on_progress is not None:
                            on_progress(*frame["progress"])
                    elif "problem" in frame:
                        raise error_of(frame["problem"])
                    elif "result" in frame:
                        return frame["result"]
                    else:
                        raise Permanent("The engine answered with an unknown message.")
            except TimeoutError as exc:
                raise OutcomeUnknown(
                    f"The engine did not answer {operation} within {timeout_s} s.",
                    hint="It may still finish: look before repeating.",
                ) from exc
            except (OSError, EOFError) as exc:
                raise _ended(operation) from exc
        raise _ended(operation)

    def is_running(self) -> bool:
        """Whether an engine accepts connections."""
        try:
            self._connect().close()
        except Transient:
            return False
        return True

    def _connect(self) -> socket.socket:
        path = self._run_directory.socket()
        if path is None:
            raise _not_running("It was never started in this workspace.")
        engine = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            engine.settimeout(_CONNECT_TIMEOUT_S)
            engine.connect(str(path))
            peer = peer_of(engine)
        except OSError as exc:
            engine.close()
            raise _not_running(f"Its socket says: {exc.strerror or exc}.") from exc
        if not is_trusted(peer):
            engine.close()
            # A foreign process in a shared folder would be handed our key.
            raise NotAllowed(f"The process behind {path} belongs to another user.")
        return engine


def _not_running(why: str) -> EngineNotRunning:
    return EngineNotRunning(
        f"The engine is not running. {why}", hint="Start it with `meterpost up`.", after_s=2.0
    )


def _ended(operation: str) -> OutcomeUnknown:
    return OutcomeUnknown(
        f"The engine ended before it answered {operation}.",
        hint="What was stored before stays stored: look, then ask again.",
    )
