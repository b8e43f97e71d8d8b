"""FastAPI's part: one endpoint per route, each a request read, an operation asked, an answer."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

import msgspec
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from meterpost.access.model import require
from meterpost.api.asking import arguments_of
from meterpost.api.calling import Asked, Calls
from meterpost.api.docs_page import docs_page
from meterpost.api.openapi import openapi_document
from meterpost.api.problems import (
    Answer,
    HeadersTooLarge,
    MethodNotAllowed,
    TooLarge,
    problem_answer,
)
from meterpost.api.routes import ROUTES, Route
from meterpost.core import errors
from meterpost.core.errors import InvalidInput, MeterpostError, NotFound, Permanent
from meterpost.core.ids import Ids
from meterpost.operations.registry import Operation, find_operation

BODY_BYTES_MAX = 1_000_000
#: Imports carry whole files.
UPLOAD_BYTES_MAX = 16_000_000
QUERY_BYTES_MAX = 16_384
PATH_BYTES_MAX = 8_192
HEADERS_BYTES_MAX = 32_768

_CORRELATION_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_CORRELATION = "meterpost.correlation_id"
#: Answers hold business data: no cache keeps them, no page frames them, no script runs in them.
_SECURITY_HEADERS = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; "
        b"base-uri 'none'; form-action 'none'",
    ),
)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Endpoints:
    """The routes of `meterpost.api.routes`, bound to their operations."""

    def __init__(self, calls: Calls, ids: Ids) -> None:
        self._calls = calls
        self._ids = ids
        self._document = openapi_document()
        self._openapi = msgspec.json.encode(self._document)
        self._docs = docs_page(self._document).encode()

    def app(self) -> FastAPI:
        """A FastAPI application with every route."""
        app = FastAPI(
            title="meterpost",
            openapi_url=None,
            docs_url=None,
            redoc_url=None,
            redirect_slashes=False,
            exception_handlers={HTTPException: self._no_route},
        )
        app.openapi = lambda: self._document  # type: ignore[method-assign]
        for route in ROUTES:
            app.add_api_route(
                route.path,
                self._endpoint(route, find_operation(route.operation)),
                methods=[route.method],
                name=f"{route.method} {route.path}",
                response_model=None,
                include_in_schema=False,
            )
        for path, content, media_type in (
            ("/v1/openapi.json", self._openapi, "application/json"),
            ("/docs", self._docs, "text/html; charset=utf-8"),
        ):
            app.add_api_route(
                path, _page(content, media_type), response_model=None, include_in_schema=False
            )
        return app

    async def guarded(self, app: FastAPI, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request whose head is within limits; every answer names the request."""
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        given = next((value for name, value in headers if name == b"x-correlation-id"), b"")
        fits = _CORRELATION_ID.fullmatch(given)
        correlation_id = given.decode() if fits else self._ids.correlation_id()
        scope[_CORRELATION] = correlation_id
        added = [*_SECURITY_HEADERS, (b"x-correlation-id", correlation_id.encode())]

        async def sending(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *added]
            await send(message)

        try:
            _require_head(scope, headers)
        except MeterpostError as exc:
            response = _response(problem_answer(exc, correlation_id))
            await response(scope, receive, sending)
            return
        await app(scope, receive, sending)

    def _endpoint(
        self, route: Route, operation: Operation
    ) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            correlation_id = request.scope[_CORRELATION]
            try:
                answer = await self._answer(route, operation, request, correlation_id)
            except Exception as exc:  # noqa: BLE001  (the one place where a defect becomes a 500)
                answer = problem_answer(exc, correlation_id, operation.scope)
            return _response(answer)

        return endpoint

    async def _answer(
        self, route: Route, operation: Operation, request: Request, correlation_id: str
    ) -> Answer:
        authorization = request.headers.get("authorization", "")
        principal, token = await self._calls.principal(authorization)
        require(principal, operation.scope)
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        body = await _body(request, UPLOAD_BYTES_MAX if route.uploads else BODY_BYTES_MAX)
        query = request.scope["query_string"]
        arguments = arguments_of(route, operation, request.path_params, query, media_type, body)
        trace = request.headers.get("traceparent", "")
        key = request.headers.get("idempotency-key")
        if key is not None and route.secret:
            raise InvalidInput(
                "This call takes no Idempotency-Key: its answer holds a secret that is not kept."
            )
        asked = Asked(
            operation,
            arguments,
            principal,
            token,
            correlation_id,
            trace if _TRACEPARENT.fullmatch(trace) else None,
        )
        return await self._calls.answer(
            asked,
            partial(_present, route, request.url.path, query, correlation_id),
            slow=route.slow,
            key=key if operation.creates else None,
            request_hash=_digest(route.method, request.url.path, query, media_type, body),
        )

    async def _no_route(self, request: Request, exc: Exception) -> Response:
        assert isinstance(exc, HTTPException)
        error: Permanent
        if exc.status_code == 405:
            error = MethodNotAllowed(f"{request.method} is not possible here.")
        else:
            error = NotFound("There is nothing here.", hint="See /v1/openapi.json.")
        answer = problem_answer(error, request.scope[_CORRELATION])
        return _response(Answer(answer.status, answer.body, dict(exc.headers or {})))


def _present(route: Route, path: str, query: bytes, correlation_id: str, result: object) -> Answer:
    """The answer that shows a result. Runs in the operation's thread."""
    if route.shape is not None and route.shape.one:
        assert isinstance(result, Mapping)
        [item] = result["items"]
        if not item["ok"]:
            return problem_answer(_failure(item), correlation_id)
        result = item
    headers: dict[str, str] = {}
    if route.lists and isinstance(result, Mapping) and result.get("next"):
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True)
        others = [(name, value) for name, value in pairs if name != "cursor"]
        following = urlencode([*others, ("cursor", str(result["next"]))])
        headers["Link"] = f'<{quote(path)}?{following}>; rel="next"'
    return Answer(route.status, msgspec.json.encode(result), headers)


def _failure(item: Mapping[str, Any]) -> MeterpostError:
    """The failure that an item of many tells of, as the class its code belongs to."""
    classes = {
        each.code: each
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, MeterpostError)
    }
    error = classes.get(item["code"], errors.Permanent)(item["sentence"], hint=item["hint"])
    error.code = item["code"]
    return error


def _require_head(scope: Scope, headers: list[tuple[bytes, bytes]]) -> None:
    if sum(len(name) + len(value) for name, value in headers) > HEADERS_BYTES_MAX:
        raise HeadersTooLarge(f"The headers have more than {HEADERS_BYTES_MAX} bytes.")
    if len(scope["path"]) > PATH_BYTES_MAX:
        raise HeadersTooLarge(f"The path has more than {PATH_BYTES_MAX} characters.")
    if len(scope["query_string"]) > QUERY_BYTES_MAX:
        raise HeadersTooLarge(f"The query has more than {QUERY_BYTES_MAX} bytes.")


async def _body(request: Request, bytes_max: int) -> bytes:
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise InvalidInput("The body is compressed.", hint="Only POST /v1/events unpacks.")
    said = request.headers.get("content-length", "")
    if said.isascii() and said.isdigit() and (len(said) > 18 or int(said) > bytes_max):
        raise TooLarge(f"The request has {said[:20]} bytes; up to {bytes_max} are accepted.")
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > bytes_max:
            raise TooLarge(f"The request has more than {bytes_max} bytes.")
        chunks.append(chunk)
    return b"".join(chunks)


def _digest(method: str, path: str, query: bytes, media_type: str, body: bytes) -> str:
    """What an Idempotency-Key stands for."""
    parts = (method.encode(), path.encode("utf-8", "surrogatepass"), query, media_type.encode())
    head = b"".join(len(part).to_bytes(4) + part for part in parts)
    return hashlib.sha256(head + body).hexdigest()


def _response(answer: Answer) -> Response:
    return Response(answer.body, answer.status, dict(answer.headers), answer.media_type)


def _page(content: bytes, media_type: str) -> Callable[[], Awaitable[Response]]:
    async def page() -> Response:
        return Response(content, media_type=media_type)

    return page
