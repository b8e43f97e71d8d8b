"""What goes over the engine's socket: frames of JSON, and failures as values.

A frame is four bytes of length (big-endian) and that many bytes of one JSON object. The client
sends one request; the engine answers with any number of ``{"progress": [what, done, total]}``
and then one ``{"result": …}`` or ``{"problem": …}``.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from meterpost.core import errors
from meterpost.core.errors import InvalidInput, MeterpostError, Permanent, Transient
from meterpost.core.problem import Problem
from meterpost.engine.ports import Caller

REQUEST_BYTES_MAX = 16 * 1024 * 1024
ANSWER_BYTES_MAX = 64 * 1024 * 1024
#: Problems listed in one failure; the sentence says that there are more.
PROBLEMS_MAX = 1_000

_LENGTH = struct.Struct(">I")
_NAME_CHARACTERS_MAX = 200


class FrameTooLarge(Permanent):
    """A request or answer that does not fit into one frame."""

    code = "frame-too-large"


class BadFrame(Permanent):
    """Bytes that are no frame of ours."""

    code = "bad-frame"


@dataclass(frozen=True, slots=True)
class Request:
    """One operation asked for."""

    operation: str
    arguments: Mapping[str, Any] = field(default_factory=dict, repr=False)
    caller: Caller = field(default_factory=Caller)
    correlation_id: str | None = None
    traceparent: str | None = None

    def to_frame(self) -> dict[str, object]:
        """As it is sent."""
        frame: dict[str, object] = {
            "operation": self.operation,
            "arguments": dict(self.arguments),
            "token": self.caller.token,
            "user": self.caller.user,
            "correlation_id": self.correlation_id,
            "traceparent": self.traceparent,
        }
        return {key: value for key, value in frame.items() if value is not None}

    @classmethod
    def from_frame(cls, frame: Mapping[str, Any]) -> Request:
        """Checked: every word is text of a sensible length, nothing is unknown.

        Raises: BadFrame.
        """
        unknown = set(frame) - {*_WORDS, "arguments"}
        if unknown:
            raise BadFrame(f"The request has unknown keys: {', '.join(sorted(unknown))[:200]}.")
        arguments = frame.get("arguments", {})
        if not isinstance(arguments, dict):
            raise BadFrame("The request's arguments are no object.")
        words: dict[str, str | None] = {}
        for name in _WORDS:
            value = frame.get(name)
            if value is not None and not (
                isinstance(value, str) and 0 < len(value) <= _NAME_CHARACTERS_MAX
            ):
                raise BadFrame(f"The request's {name} is not a text of up to 200 characters.")
            words[name] = value
        operation = words["operation"]
        if operation is None:
            raise BadFrame("The request names no operation.")
        caller = Caller(words["token"], words["user"])
        return cls(operation, arguments, caller, words["correlation_id"], words["traceparent"])


_WORDS = ("operation", "token", "user", "correlation_id", "traceparent")


def send_frame(peer: socket.socket, frame: Mapping[str, object], bytes_max: int) -> None:
    """Write one frame.

    Raises: FrameTooLarge before anything is written; OSError when the other side is gone.
    """
    body = json.dumps(frame, ensure_ascii=False, separators=(",", ":")).encode()
    if len(body) > bytes_max:
        raise FrameTooLarge(
            f"{len(body):,} bytes are more than the {bytes_max:,} that fit into one message.",
            hint="Ask for less at once.",
        )
    peer.sendall(_LENGTH.pack(len(body)) + body)


def receive_frame(peer: socket.socket, bytes_max: int) -> dict[str, Any] | None:
    """The next frame; None where the other side ended before one began.

    Raises: FrameTooLarge without reading it; BadFrame; EOFError in the middle of a frame.
    """
    head = _receive(peer, _LENGTH.size)
    if head is None:
        return None
    (length,) = _LENGTH.unpack(head)
    if length > bytes_max:
        raise FrameTooLarge(
            f"A message of {length:,} bytes is more than the {bytes_max:,} allowed.",
            hint="Send less at once.",
        )
    body = _receive(peer, length)
    if body is None:
        raise EOFError
    try:
        frame = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise BadFrame("A message is not JSON.") from exc
    if not isinstance(frame, dict):
        raise BadFrame("A message is not a JSON object.")
    return frame


def _receive(peer: socket.socket, count: int) -> bytes | None:
    """Exactly so many bytes; None at an end before the first. Raises: EOFError at one within."""
    received = bytearray()
    while len(received) < count:
        part = peer.recv(min(count - len(received), 1 << 20))
        if not part:
            if received:
                raise EOFError
            return None
        received += part
    return bytes(received)


def problem_frame(error: MeterpostError) -> dict[str, object]:
    """A failure as it is sent. ``kind`` is the nearest class of the core's tree."""
    kind = next(each.code for each in type(error).__mro__ if each in _CLASSES.values())  # type: ignore[attr-defined]
    problems = error.problems if isinstance(error, InvalidInput) else ()
    return {
        "problem": {
            "kind": kind,
            "code": error.code,
            "sentence": error.sentence,
            "hint": error.hint,
            "after_s": error.after_s if isinstance(error, Transient) else None,
            "problems": [
                {
                    "code": each.code,
                    "sentence": each.sentence,
                    "where": each.where,
                    "hint": each.hint,
                }
                for each in problems[:PROBLEMS_MAX]
            ],
            "problems_count": len(problems),
        }
    }


def error_of(problem: Mapping[str, Any]) -> MeterpostError:
    """The failure that a problem frame tells of, as the class it had or the nearest we know."""
    sentence = str(problem.get("sentence") or "The engine failed without a word.")
    hint = problem.get("hint")
    class_ = _CLASSES.get(str(problem.get("kind")), MeterpostError)
    error: MeterpostError
    if issubclass(class_, InvalidInput):
        listed = [Problem(**each) for each in problem.get("problems", ())]
        count = int(problem.get("problems_count", len(listed)))
        if count > len(listed):
            sentence = f"{sentence} (the first {len(listed)} of {count} problems)"
        error = class_(sentence, listed, hint=hint)
    elif issubclass(class_, Transient):
        error = class_(sentence, hint=hint, after_s=problem.get("after_s"))
    else:
        error = class_(sentence, hint=hint)
    error.code = str(problem.get("code", class_.code))
    return error


def _core_errors() -> Iterator[type[MeterpostError]]:
    for value in vars(errors).values():
        if isinstance(value, type) and issubclass(value, MeterpostError):
            yield value


_CLASSES: dict[str, type[MeterpostError]] = {each.code: each for each in _core_errors()}
