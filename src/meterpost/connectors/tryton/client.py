"""Calls to a Tryton server over JSON-RPC, with its failures in our words.

One call is one request. Nothing is repeated here, with one exception: a request that the server
turned away with 401 never ran (the session is checked before anything else), so the client signs
in again and sends it once more.

Source: Tryton 8.2, ``POST /<database>/rpc/`` (``trytond/protocols/dispatcher.py``). Servers before
8.0 listen at another path and are not supported.
"""

from __future__ import annotations

import base64
import itertools
import re
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from meterpost.connectors.tryton import wire
from meterpost.connectors.tryton.config import LOOKUP_TIMEOUT_S, TrytonConfig
from meterpost.core.errors import (
    Conflict,
    MeterpostError,
    NotAllowed,
    NotAuthenticated,
    OutcomeUnknown,
    Permanent,
    Throttled,
    Transient,
)
from meterpost.posting.errors import Rejected

ANSWER_BYTES_MAX = 64 * 1024 * 1024
VENDOR_TEXT_MAX = 2_000
#: Tryton refuses a login for as long as its `[session] timeout` after too many wrong passwords.
LOGIN_PAUSE_S = 300.0

#: Errors of the request itself, raised before anything is stored: a KeyError's text is the bare
#: quoted name of a field or model.
_REQUEST_ERROR = re.compile(r"'[\w.,-]+'|could not convert .*|invalid literal .*", re.DOTALL)


class TrytonClient:
    """A signed-in user of one database; safe to share between threads."""

    def __init__(
        self, config: TrytonConfig, *, transport: httpx.BaseTransport | None = None
    ) -> None:
        self.config = config
        self._base = config.url.rstrip("/")
        self._path = f"{self._base}/{quote(config.database, safe='')}/rpc/"
        self._authorization: str | None = None
        self._sign_in_lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._http = httpx.Client(
            transport=transport,
            # The server labels long answers as gzip whether or not gzip was accepted, so it
            # always has to be.
            headers={"Accept-Encoding": "gzip", "Content-Type": "application/json"},
            follow_redirects=False,
            # Shorter than the two seconds after which gunicorn closes an idle connection: a
            # write on a connection that just closed would leave its outcome unknown.
            limits=httpx.Limits(max_connections=16, keepalive_expiry=1.0),
            trust_env=False,
        )

    def version(self, *, timeout_s: float = LOOKUP_TIMEOUT_S) -> str:
        """The server's release series, such as ``8.2``; needs no sign-in.

        Raises: Transient, Permanent where no Tryton from 8.0 on answers at the address.
        """
        response = self._send(
            f"{self._base}/rpc/", "common.server.version", [], None, timeout_s, writes=False
        )
        if response.status_code in {404, 405}:
            raise Permanent(
                f"No Tryton from 8.0 on answers at {self._base}.",
                hint="Check the address; servers before 8.0 are not supported.",
            )
        return str(self._result(response, "common.server.version", writes=False))

    def call(
        self,
        method: str,
        *params: object,
        context: Mapping[str, object] | None = None,
        timeout_s: float = LOOKUP_TIMEOUT_S,
        writes: bool,
    ) -> Any:
        """The method's result. ``writes`` says whether running it changes anything.

        ``timeout_s`` bounds connecting, sending and each wait for a part of the answer.

        Raises: Transient, Throttled (nothing happened), Rejected, Conflict, Permanent (refused,
        nothing stored), NotAuthenticated, NotAllowed, OutcomeUnknown (only where it writes).
        """
        deadline = time.monotonic() + timeout_s
        # Messages are matched in English, whatever language the user reads.
        arguments = [*params, {"language": "en", **(context or {})}]
        authorization = self._authorization or self._sign_in(None, timeout_s)
        for attempt in (1, 2):
            left_s = max(deadline - time.monotonic(), 0.001)
            response = self._send(
                self._path, method, arguments, authorization, left_s, writes=writes
            )
            if response.status_code != 401:
                return self._result(response, method, writes=writes)
            if attempt == 1:
                authorization = self._sign_in(authorization, left_s)
        raise NotAuthenticated(
            f"Tryton turned {self.config.username} away right after a successful sign-in."
        )

    def close(self) -> None:
        """Let go of the connections; the session ends by itself."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _sign_in(self, stale: str | None, timeout_s: float) -> str:
        """The header of a session that is not the stale one; one thread signs in for all."""
        with self._sign_in_lock:
            if self._authorization is not None and self._authorization != stale:
                return self._authorization
            user, method = self.config.username, "common.db.login"
            params = [user, {"password": self.config.password}, "en"]
            response = self._send(self._path, method, params, None, timeout_s, writes=False)
            if response.status_code == 401:
                raise NotAuthenticated(
                    f"Tryton does not accept the password of {user} for {self.config.database}.",
                    hint="Correct the connection's credentials; six wrong attempts lock the login "
                    "for five minutes.",
                )
            if response.status_code == 429:
                raise Throttled(
                    f"Tryton has locked the login {user} after too many wrong passwords.",
                    after_s=LOGIN_PAUSE_S,
                )
            found = self._result(response, method, writes=False)
            try:
                user_id, token = int(found[0]), str(found[1])
            except (TypeError, ValueError, IndexError, KeyError) as exc:
                raise Permanent("Tryton's answer to the sign-in cannot be understood.") from exc
            session = base64.b64encode(f"{user}:{user_id}:{token}".encode()).decode()
            self._authorization = f"Session {session}"
            return self._authorization

    def _send(
        self,
        url: str,
        method: str,
        params: list[Any],
        authorization: str | None,
        timeout_s: float,
        *,
        writes: bool,
    ) -> httpx.Response:
        """The complete response, whatever its status."""
        # Exactly these three keys: with others the server answers errors in another form.
        body = wire.encode({"id": next(self._numbers), "method": method, "params": params})
        headers = {"Authorization": authorization} if authorization else {}
        deadline = time.monotonic() + timeout_s
        try:
            with self._http.stream(
                "POST", url, content=body, headers=headers, timeout=timeout_s
            ) as response:
                parts: list[bytes] = []
                size = 0
                for part in response.iter_bytes():
                    size += len(part)
                    parts.append(part)
                    if size > ANSWER_BYTES_MAX or time.monotonic() > deadline:
                        raise _unclear(method, "its answer is too long or too slow", writes=writes)
            return httpx.Response(
                response.status_code,
                headers={
                    name: value
                    for name, value in response.headers.items()
                    if name in {"content-type", "retry-after"}
                },
                content=b"".join(parts),
            )
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as exc:
            raise Transient(f"Tryton at {self._base} cannot be reached: {exc}.") from exc
        except httpx.HTTPError as exc:
            reason = str(exc) or type(exc).__name__
            raise _unclear(method, reason, writes=writes) from exc

    def _result(self, response: httpx.Response, method: str, *, writes: bool) -> Any:
        status = response.status_code
        if status != 200:
            raise _from_status(response, method, self.config, writes=writes)
        try:
            answer = wire.decode(response.content)
        except ValueError as exc:
            raise _unclear(method, f"its answer is not JSON ({exc})", writes=writes) from exc
        if not isinstance(answer, dict) or not ("result" in answer or "error" in answer):
            raise _unclear(method, "its answer has neither result nor error", writes=writes)
        if "error" in answer:
            raise from_error(answer["error"], method, writes=writes)
        return answer["result"]


def from_error(error: object, method: str, *, writes: bool) -> MeterpostError:
    """Our error for the ``error`` of an answer: a list of a class name and its arguments."""
    match error:
        case ["UserError", [str(message), *rest]]:
            detail = next((part for part in rest if isinstance(part, str) and part), "")
            text = f"{message} {detail}".strip()[:VENDOR_TEXT_MAX]
            if message.startswith("You are not allowed to access"):
                return NotAllowed(
                    f"Tryton: {text}", hint="Give the connection's user the group it lacks."
                )
            return Rejected(f"Tryton refused: {text}", vendor_text=text)
        case ["UserWarning", [_, str(message), *_]]:
            return Rejected(
                f"Tryton warns: {message[:VENDOR_TEXT_MAX]}",
                vendor_text=message[:VENDOR_TEXT_MAX],
                hint="A person has to confirm that in Tryton.",
            )
        case ["ConcurrencyException", [str(message), *_]]:
            return Conflict(f"Tryton: {message[:VENDOR_TEXT_MAX]}")
        case ["LoginException", *_]:
            return NotAuthenticated("Tryton asks for another way to sign in than a password.")
        case ["RateLimitException", *_]:
            return Throttled("Tryton asks to slow down.", after_s=LOGIN_PAUSE_S)
        case [str(message), *_] if _REQUEST_ERROR.fullmatch(message):
            return Permanent(
                f"Tryton cannot work with the request {method}: {message[:VENDOR_TEXT_MAX]}",
                hint="A module that meterpost needs may be missing, or the release is too new.",
            )
        case [str(message), *_]:
            # Something broke inside the server, at a moment it does not tell: a commit whose
            # answer was lost looks the same as a query that failed.
            return _unclear(method, message[:VENDOR_TEXT_MAX], writes=writes)
        case _:
            return _unclear(method, "its error has an unknown form", writes=writes)


def _from_status(
    response: httpx.Response, method: str, config: TrytonConfig, *, writes: bool
) -> MeterpostError:
    match response.status_code:
        case 401:
            return NotAuthenticated(f"Tryton does not accept the sign-in of {config.username}.")
        case 403:
            return Permanent(
                f"Tryton does not offer {method}.",
                hint="A module that meterpost needs may be missing.",
            )
        case 404:
            return Permanent(f"Tryton at {config.url} has no database {config.database}.")
        case 429:
            return Throttled("Tryton asks to slow down.", after_s=_retry_after(response))
        case 503:
            return Transient("Tryton is not available just now.", after_s=_retry_after(response))
        case status if 300 <= status < 500:
            return Permanent(
                f"Tryton answered {method} with HTTP {status}.",
                hint="Check the connection's address.",
            )
        case status:
            return _unclear(method, f"HTTP {status}", writes=writes)


def _retry_after(response: httpx.Response) -> float | None:
    text = response.headers.get("retry-after", "")
    return float(text) if text.isdecimal() else None


def _unclear(method: str, reason: str, *, writes: bool) -> MeterpostError:
    if writes:
        return OutcomeUnknown(
            f"It is not known whether Tryton ran {method}: {reason}.",
            hint="Look the document up before sending it again.",
        )
    return Transient(f"Tryton did not answer {method}: {reason}.")
