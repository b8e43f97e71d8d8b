"""Which request means what: authorisation, faults, routes; knows HTTP's words, no sockets."""

from __future__ import annotations

import hmac
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from meterpost_sandbox import clerk, documents, masterdata
from meterpost_sandbox.answers import Answer, Refused, not_found, refusal
from meterpost_sandbox.faults import Fate, Faults
from meterpost_sandbox.invoices import (
    BATCH_MAX,
    Invoices,
    Settings,
    bad_query,
    page_limit,
    parse_json,
)
from meterpost_sandbox.ledger import Arrival, Ledger, now_utc
from meterpost_sandbox.stats import stats

_QUERY_FIELDS_MAX = 300
_CODES_MAX = 200
_INVOICE = re.compile(r"/v1/invoices/([^/]+)")
_MASTER = re.compile(rf"/v1/({'|'.join(masterdata.KINDS)})(?:/([^/]+))?")
_CLERK = re.compile(r"/clerk/invoices(?:/([^/]+)(?:/(post|cancel|credit))?)?")

Query = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request, read completely; times are those of its arrival."""

    method: str
    target: str
    body: bytes
    authorization: str
    idempotency_key: str | None
    wall: float
    monotonic: float


@dataclass(slots=True)
class _Course:
    """What is known of a request while it is worked on, for the list of arrivals."""

    kind: str = "other"
    items: int = 0
    fault: str | None = None


class _Dropped(Exception):
    """The connection is to be closed without an answer."""


class App:
    """The ERP behind its HTTP edge; threads share it."""

    def __init__(self, ledger: Ledger, faults: Faults, token: str, settings: Settings) -> None:
        self._ledger = ledger
        self._faults = faults
        self._authorization = f"Bearer {token}".encode()
        self._invoices = Invoices(ledger, faults, settings)

    def handle(self, request: Request) -> Answer | None:
        """The answer, or None where a fault drops the connection."""
        path = urlsplit(request.target).path
        if path == "/healthz":
            return Answer(200, {"status": "ok"})
        course = _Course()
        answer: Answer | None
        try:
            answer = self._answer(request, path, course)
        except Refused as refused:
            answer = refusal(refused)
        except _Dropped:
            answer = None
        if path.startswith(("/v1/", "/clerk/")):
            self._ledger.note_arrival(
                Arrival(
                    wall=request.wall,
                    monotonic=request.monotonic,
                    kind=course.kind,
                    method=request.method,
                    path=path[:200],
                    items=course.items,
                    status="dropped" if answer is None else str(answer.status),
                    fault=course.fault,
                )
            )
        return answer

    def _answer(self, request: Request, path: str, course: _Course) -> Answer:
        if not hmac.compare_digest(request.authorization.encode(), self._authorization):
            raise Refused(401, "unauthorized", "send the header Authorization: Bearer TOKEN")
        if path.startswith("/_sandbox/"):
            return self._sandbox(request, path)
        if match := _CLERK.fullmatch(path):
            return self._clerk(request, match[1], match[2])
        if path.startswith("/v1/") and (outage := self._faults.out(now_utc())):
            course.kind = _kind(request.method, path)
            self._strike(course, outage)
            raise _later(503, "unavailable", "the ERP is down for the moment", 1)
        if path in ("/v1/invoices", "/v1/invoices:batch") or _INVOICE.fullmatch(path):
            return self._invoice(request, path, course)
        if match := _MASTER.fullmatch(path):
            return self._master(request, match[1], match[2])
        raise not_found(path[:80])

    def _invoice(self, request: Request, path: str, course: _Course) -> Answer:
        course.kind = _kind(request.method, path)
        if course.kind == "other":
            raise _wrong_method(request)
        if course.kind == "read":
            query = _query(request)
            fate = self._endure(self._faults.fate("read"), course)
            if match := _INVOICE.fullmatch(path):
                answer = self._invoices.read(unquote(match[1]))
            else:
                answer = self._invoices.search(query)
            time.sleep(fate.stall_after_s)
            return answer
        body = parse_json(request.body)
        batch = path.endswith(":batch")
        course.items = _items(body) if batch else 1
        divisible = batch and not (isinstance(body, dict) and body.get("atomic"))
        fate = self._endure(self._faults.fate("write", divisible=divisible), course)
        carry_out = self._invoices.batch if batch else self._invoices.create
        try:
            answer = carry_out(body, request.body, request.idempotency_key, fate)
        except Refused as refused:
            answer = refusal(refused)  # a drop hides refusals too
        time.sleep(fate.stall_after_s)
        if fate.ending:
            raise _Dropped
        return answer

    def _endure(self, fate: Fate, course: _Course) -> Fate:
        """The fate, after what of it comes before the work; raises what ends the request there."""
        for fault in fate.struck():
            self._strike(course, fault)
        time.sleep(fate.stall_before_s)
        match fate.ending:
            case "drop_before_commit":
                raise _Dropped
            case "status_429":
                raise _later(429, "too_many_requests", "slow down", fate.retry_after_s)
            case "status_500":
                raise Refused(500, "internal_error", "something went wrong")
            case "status_503":
                raise _later(503, "unavailable", "try again later", fate.retry_after_s)
            case _:
                return fate

    def _strike(self, course: _Course, fault: str) -> None:
        self._ledger.note_fault(fault)
        course.fault = fault if course.fault is None else f"{course.fault}+{fault}"

    def _master(self, request: Request, kind: str, code: str | None) -> Answer:
        match request.method, code:
            case "GET", None:
                return self._master_listing(kind, _query(request))
            case "GET", str():
                with self._ledger.read() as connection:
                    return Answer(200, masterdata.get(connection, kind, unquote(code)))
            case "POST", None:
                body = parse_json(request.body)
                with self._ledger.write() as connection:
                    return Answer(201, masterdata.create(connection, kind, body))
            case "PUT", None:
                body = parse_json(request.body)
                with self._ledger.write() as connection:
                    return Answer(200, masterdata.replace(connection, kind, body))
            case _:
                raise _wrong_method(request)

    def _master_listing(self, kind: str, query: Query) -> Answer:
        codes: list[str] = []
        after, limit = "", 100
        for name, value in query:
            if name == "code":
                codes.extend(each for each in value.split(",") if each)
            elif name == "cursor":
                after = documents.cursor_position(value, str)
            elif name == "limit":
                limit = page_limit(value)
            else:
                raise bad_query(name, "unknown parameter")
        if len(codes) > _CODES_MAX:
            raise bad_query("code", f"at most {_CODES_MAX} codes are looked up at once")
        with self._ledger.read() as connection:
            found, more = masterdata.listing(connection, kind, tuple(codes), after, limit)
        cursor = None if more is None else documents.cursor_text(more)
        return Answer(200, {"records": found, "next_cursor": cursor})

    def _clerk(self, request: Request, document: str | None, action: str | None) -> Answer:
        body = parse_json(request.body) if request.body else {}
        match request.method, document, action:
            case "GET", str(), None:
                with self._ledger.read() as connection:
                    shown = documents.read(connection, document, visible_only=False)
                    return Answer(200, shown)
            case "POST", None, None:
                with self._ledger.write() as connection:
                    return Answer(201, clerk.create(connection, body))
            case "PATCH", str(), None:
                with self._ledger.write() as connection:
                    return Answer(200, clerk.edit(connection, document, body))
            case "DELETE", str(), None:
                with self._ledger.write() as connection:
                    clerk.delete(connection, document)
                    return Answer(204)
            case "POST", str(), "post":
                with self._ledger.write() as connection:
                    return Answer(200, clerk.post(connection, document, body))
            case "POST", str(), "cancel":
                with self._ledger.write() as connection:
                    return Answer(200, clerk.cancel(connection, document))
            case "POST", str(), "credit":
                with self._ledger.write() as connection:
                    return Answer(201, clerk.credit(connection, document, body))
            case _:
                raise _wrong_method(request)

    def _sandbox(self, request: Request, path: str) -> Answer:
        match request.method, path:
            case "GET", "/_sandbox/faults":
                return Answer(200, self._faults.as_json())
            case "PUT", "/_sandbox/faults":
                self._faults.set(parse_json(request.body))
                return Answer(200, self._faults.as_json())
            case "GET", "/_sandbox/stats":
                self._ledger.flush()
                with self._ledger.read() as connection:
                    return Answer(200, stats(connection, dict(_query(request))))
            case _, "/_sandbox/faults" | "/_sandbox/stats":
                raise _wrong_method(request)
            case _:
                raise not_found(path[:80])


def _later(status: int, code: str, message: str, after_s: float | None) -> Refused:
    """A refusal that says when to come again."""
    headers = {} if after_s is None else {"Retry-After": f"{after_s:g}"}
    return Refused(status, code, message, headers=headers)


def _items(body: object) -> int:
    listed = body.get("invoices") if isinstance(body, dict) else None
    return min(len(listed), BATCH_MAX) if isinstance(listed, list) else 0


def _kind(method: str, path: str) -> str:
    if path in ("/v1/invoices", "/v1/invoices:batch") and method == "POST":
        return "write"
    if method == "GET" and (path == "/v1/invoices" or _INVOICE.fullmatch(path)):
        return "read"
    return "other"


def _query(request: Request) -> Query:
    query = urlsplit(request.target).query
    try:
        return parse_qsl(
            query,
            keep_blank_values=True,
            max_num_fields=_QUERY_FIELDS_MAX,
            errors="strict",
        )
    except ValueError as exc:
        raise Refused(400, "invalid_query", f"the query cannot be read: {exc}"[:200]) from exc


def _wrong_method(request: Request) -> Refused:
    return Refused(405, "method_not_allowed", f"{request.method[:20]} is not possible here")
