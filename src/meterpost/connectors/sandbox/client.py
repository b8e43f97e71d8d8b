"""HTTP to the sandbox ERP: one request per call, its failures in our words, nothing repeated."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import httpx

from meterpost.core.errors import (
    MeterpostError,
    NotAllowed,
    NotAuthenticated,
    OutcomeUnknown,
    Throttled,
    Transient,
)
from meterpost.posting.errors import ClosedPeriod, Duplicate, Rejected

READ_TIMEOUT_S = 20.0
_CONNECT_TIMEOUT_S = 5.0
_ANSWER_BYTES_MAX = 64 * 1024 * 1024
_PAGES_MAX = 100_000
_VENDOR_TEXT_MAX = 2_000
_AFTER_MAX_S = 3_600.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer."""

    status: int
    body: object
    retry_after_s: float | None

    @property
    def error(self) -> Mapping[str, object]:
        """The error object of a refusal, empty where the answer is not the ERP's own."""
        error = self.body.get("error") if isinstance(self.body, dict) else None
        return error if isinstance(error, dict) else {}


class SandboxClient:
    """Speaks to one sandbox with one token."""

    def __init__(
        self, url: str, token: str, *, transport: httpx.BaseTransport | None = None
    ) -> None:
        self._http = httpx.Client(
            base_url=url.rstrip("/"),
            headers={"Authorization": f"Bearer {token}", "Accept": "application/json"},
            transport=transport,
            trust_env=False,
        )
        self._url = url

    def create_invoice(
        self, invoice: Mapping[str, object], *, timeout_s: float, native_key: str | None
    ) -> Mapping[str, object]:
        """The invoice as stored.

        Raises: Transient, Throttled, Rejected, ClosedPeriod, Duplicate, NotAuthenticated,
        NotAllowed; OutcomeUnknown for all that leaves open whether it was stored.
        """
        headers = {} if native_key is None else {"Idempotency-Key": native_key}
        answer = self._ask(
            "POST", "/v1/invoices", json=invoice, headers=headers, timeout_s=timeout_s
        )
        if answer.status in {200, 201} and isinstance(answer.body, dict):
            return answer.body
        raise self._write_failure(answer)

    def invoice(self, document_id: str) -> Mapping[str, object] | None:
        """The invoice with that id, or None.

        Raises: Transient, Throttled, NotAuthenticated, NotAllowed, Rejected.
        """
        answer = self._ask("GET", "/v1/invoices/" + _path_segment(document_id))
        if answer.status == 404 and answer.error.get("code") == "not_found":
            return None
        return self._read_body(answer)

    def invoices(self, **filters: str) -> Iterator[Mapping[str, object]]:
        """Every invoice that the filters name, page by page to the end.

        Raises: Transient, Throttled, NotAuthenticated, NotAllowed, Rejected.
        """
        cursor: str | None = None
        for _ in range(_PAGES_MAX):
            params = {**filters, "limit": "200"} | ({"cursor": cursor} if cursor else {})
            body = self._read_body(self._ask("GET", "/v1/invoices", params=params))
            page = body.get("invoices")
            if not isinstance(page, list):
                raise Transient(f"The ERP at {self._url} answered a search without invoices.")
            yield from page
            following = body.get("next_cursor")
            if following is None:
                return
            cursor = str(following)
        raise Transient(f"The ERP at {self._url} gave {_PAGES_MAX} pages without an end.")

    def ping(self) -> None:
        """Nothing, where address and token are right.

        Raises: Transient, Throttled, NotAuthenticated, NotAllowed, Rejected.
        """
        self._read_body(self._ask("GET", "/v1/customers", params={"limit": "1"}))

    def close(self) -> None:
        """Let go of connections."""
        self._http.close()

    def _ask(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        json: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = READ_TIMEOUT_S,
    ) -> Answer:
        written = method != "GET"
        deadline = time.monotonic() + timeout_s
        # Connecting and writing take their share out of the whole, so that it stays the whole.
        connect = min(_CONNECT_TIMEOUT_S, timeout_s / 4)
        limits = httpx.Timeout(timeout_s / 2, connect=connect, write=timeout_s / 4, pool=connect)
        try:
            with self._http.stream(
                method, path, params=params, json=json, headers=headers, timeout=limits
            ) as reply:
                content = _read_until(reply, deadline)
                return Answer(reply.status_code, _decoded(content), _retry_after(reply))
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as exc:
            raise Transient(
                f"The ERP at {self._url} cannot be reached: {str(exc) or type(exc).__name__}.",
                hint="Is it running, and the address right?",
            ) from exc
        except (httpx.TransportError, httpx.DecodingError, _TooLate) as exc:
            sentence = f"The ERP at {self._url} gave no answer: {str(exc) or type(exc).__name__}."
            if written:
                raise OutcomeUnknown(sentence, hint="Look the document up.") from exc
            raise Transient(sentence) from exc

    def _read_body(self, answer: Answer) -> Mapping[str, object]:
        if answer.status == 200 and isinstance(answer.body, dict):
            return answer.body
        failure = self._refusal(answer)
        if failure is None:
            failure = Transient(f"The ERP at {self._url} answered with status {answer.status}.")
        raise failure

    def _write_failure(self, answer: Answer) -> MeterpostError:
        failure = self._refusal(answer)
        if failure is None:
            # 500, 502, 504, an answer cut short: it may have been stored before that.
            failure = OutcomeUnknown(
                f"The ERP at {self._url} answered with status {answer.status}, which leaves open "
                "whether the document was stored.",
                hint="Look it up.",
            )
        return failure

    def _refusal(self, answer: Answer) -> MeterpostError | None:
        """The error for an answer that certainly did nothing, None for any other."""
        code, words = str(answer.error.get("code", "")), str(answer.error.get("message", ""))
        place = answer.error.get("field")
        vendor_text = f"{code}: {words}"[:_VENDOR_TEXT_MAX] + (f" ({place})" if place else "")
        match answer.status, code:
            case 401, _:
                return NotAuthenticated(
                    f"The ERP at {self._url} does not accept our token.",
                    hint="Put the right one where the connection's secret `token` points.",
                )
            case 403, _:
                return NotAllowed(f"The ERP at {self._url} does not let us do this: {words}")
            case 429, _:
                return Throttled(
                    f"The ERP at {self._url} asks us to slow down.", after_s=answer.retry_after_s
                )
            case 503, "unavailable":
                return Transient(
                    f"The ERP at {self._url} is not available: {words}.",
                    after_s=answer.retry_after_s,
                )
            case 409, "duplicate_reference":
                known = answer.error.get("existing_id")
                return Duplicate(f"The ERP holds this reference already, as document {known}.")
            case 422, "closed_period" | "unknown_period":
                return ClosedPeriod(words, vendor_text=vendor_text)
            case ((400 | 404 | 405 | 409 | 411 | 413 | 422), _) if code:
                return Rejected(words, vendor_text=vendor_text)
            case _:
                return None


class _TooLate(Exception):
    """The answer was still arriving when the exchange's time was over."""


def _read_until(reply: httpx.Response, deadline: float) -> bytes:
    content = bytearray()
    for chunk in reply.iter_bytes():
        content += chunk
        if time.monotonic() > deadline:
            raise _TooLate("the answer took longer than the whole exchange may")
        if len(content) > _ANSWER_BYTES_MAX:
            raise _TooLate(f"the answer is larger than {_ANSWER_BYTES_MAX} bytes")
    return bytes(content)


def _decoded(content: bytes) -> object:
    try:
        return json.loads(content)
    except ValueError:
        return None


def _retry_after(reply: httpx.Response) -> float | None:
    try:
        seconds = float(reply.headers.get("Retry-After", ""))
    except ValueError:
        return None
    return min(max(seconds, 0.0), _AFTER_MAX_S) if math.isfinite(seconds) else None


def _path_segment(document_id: str) -> str:
    if not document_id.isascii() or not document_id.isalnum() or len(document_id) > 40:
        raise Rejected(f"{document_id!r} is not the id of a document in this ERP.")
    return document_id
