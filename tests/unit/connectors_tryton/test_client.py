"""The Tryton client's failures, each as the error that says what to do next."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from meterpost.connectors.tryton import open_erp
from meterpost.connectors.tryton.client import TrytonClient, from_error
from meterpost.connectors.tryton.config import TrytonConfig
from meterpost.connectors.tryton.erp import PREPARE_MAX_S
from meterpost.core.errors import (
    Conflict,
    InvalidInput,
    MeterpostError,
    NotAllowed,
    NotAuthenticated,
    OutcomeUnknown,
    Permanent,
    Throttled,
    Transient,
)
from meterpost.core.ids import TargetId
from meterpost.posting.config import ConnectionConfig
from meterpost.posting.errors import Rejected

CONFIG = TrytonConfig("http://tryton.example", "books", "integration", "a-secret")
CREATE = "model.account.invoice.create"


class Server:
    """Signs everybody in, and answers calls with what the test gives it, in order."""

    def __init__(self, *answers: Callable[[httpx.Request], httpx.Response]) -> None:
        self.answers = list(answers)
        self.methods: list[str] = []
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        method = json.loads(request.content)["method"]
        self.methods.append(method)
        self.requests.append(request)
        if method == "common.db.login":
            return httpx.Response(200, json={"id": 1, "result": [1, f"t{len(self.methods)}", None]})
        return self.answers.pop(0)(request)

    def client(self) -> TrytonClient:
        return TrytonClient(CONFIG, transport=httpx.MockTransport(self))


def status(code: int, **more: Any) -> Callable[[httpx.Request], httpx.Response]:
    return lambda _: httpx.Response(code, **more)


def result(value: object) -> Callable[[httpx.Request], httpx.Response]:
    return status(200, json={"id": 1, "result": value})


def broken(error: type[httpx.TransportError]) -> Callable[[httpx.Request], httpx.Response]:
    def answer(request: httpx.Request) -> httpx.Response:
        raise error("broken", request=request)

    return answer


def test_the_session_is_renewed_once_where_the_server_turned_us_away() -> None:
    """401 means the call never ran: sign in again, send once more, with the new session."""
    server = Server(status(401), result([7]))
    assert server.client().call(CREATE, [], writes=True) == [7]
    assert server.methods == ["common.db.login", CREATE, "common.db.login", CREATE]
    first, second = server.requests[1], server.requests[3]
    assert first.headers["Authorization"] != second.headers["Authorization"]


def test_two_refused_sessions_are_a_matter_for_a_person() -> None:
    """The client does not sign in for ever."""
    server = Server(status(401), status(401))
    with pytest.raises(NotAuthenticated):
        server.client().call(CREATE, [], writes=True)
    assert len(server.methods) == 4


@pytest.mark.parametrize(
    ("answer", "writing", "reading"),
    [
        (broken(httpx.ConnectError), Transient, Transient),
        (broken(httpx.ConnectTimeout), Transient, Transient),
        (broken(httpx.PoolTimeout), Transient, Transient),
        (broken(httpx.ReadTimeout), OutcomeUnknown, Transient),
        (broken(httpx.ReadError), OutcomeUnknown, Transient),
        (broken(httpx.WriteError), OutcomeUnknown, Transient),
        (broken(httpx.RemoteProtocolError), OutcomeUnknown, Transient),
        (status(500), OutcomeUnknown, Transient),
        (status(502), OutcomeUnknown, Transient),
        (status(504), OutcomeUnknown, Transient),
        (status(503), Transient, Transient),
        (status(429, headers={"Retry-After": "7"}), Throttled, Throttled),
        (status(403), Permanent, Permanent),
        (status(404), Permanent, Permanent),
        (status(302), Permanent, Permanent),
        (status(200, content=b"<html>"), OutcomeUnknown, Transient),
        (status(200, content=b'{"id": 1'), OutcomeUnknown, Transient),
        (status(200, json={"id": 1}), OutcomeUnknown, Transient),
        (status(200, json=[]), OutcomeUnknown, Transient),
    ],
)
def test_each_failure_says_whether_it_may_have_happened(
    answer: Callable[[httpx.Request], httpx.Response],
    writing: type[MeterpostError],
    reading: type[MeterpostError],
) -> None:
    """A write whose answer is not clear is unknown; a read can simply be tried again."""
    for writes, expected in ((True, writing), (False, reading)):
        with pytest.raises(MeterpostError) as caught:
            Server(answer).client().call(CREATE, [], writes=writes)
        assert type(caught.value) is expected
        assert "a-secret" not in str(caught.value)


def test_nothing_is_repeated_after_a_broken_connection() -> None:
    """One call is one request; posting decides about another."""
    server = Server(broken(httpx.ReadError))
    with pytest.raises(OutcomeUnknown):
        server.client().call(CREATE, [], writes=True)
    assert server.methods.count(CREATE) == 1


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (["UserError", ["A value is required.", "", None]], Rejected),
        (["UserError", ['You are not allowed to access "X".', "Within: Y", None]], NotAllowed),
        (["UserError", ['You are not allowed to modify "X".', "", None]], Rejected),
        (["UserWarning", ["h.future", "Dated in the future.", ""]], Rejected),
        (["ConcurrencyException", ["Records were modified"]], Conflict),
        (["RateLimitException", []], Throttled),
        (["LoginException", ["password", "Password", "password"]], NotAuthenticated),
        (["'no_such_field'", ""], Permanent),
        (["could not convert string to float: 'abc'", ""], Permanent),
        (["server closed the connection unexpectedly", ""], OutcomeUnknown),
        ({}, OutcomeUnknown),
    ],
)
def test_errors_in_an_answer(error: object, expected: type[MeterpostError]) -> None:
    """What Tryton refused is final; what broke inside it while writing is unknown."""
    assert type(from_error(error, CREATE, writes=True)) is expected


def test_long_vendor_texts_are_cut() -> None:
    """A selection error carries 30 kB of domain; a sentence does not."""
    error = from_error(["UserError", ["x" * 40_000, "", None]], CREATE, writes=True)
    assert len(str(error)) < 2_100


def test_gzip_is_always_accepted_and_read() -> None:
    """The server compresses long answers whatever we accept, so we accept it."""
    body = gzip.compress(json.dumps({"id": 1, "result": "long" * 1000}).encode())
    server = Server(status(200, content=body, headers={"Content-Encoding": "gzip"}))
    assert server.client().call("model.x.read", writes=False) == "long" * 1000
    assert server.requests[-1].headers["Accept-Encoding"] == "gzip"


def test_messages_are_asked_for_in_english_and_keys_are_exactly_three() -> None:
    """The context comes last and carries the language; another key would change error forms."""
    server = Server(result(None))
    server.client().call("model.x.read", [1], context={"company": 3}, writes=False)
    body = json.loads(server.requests[-1].content)
    assert set(body) == {"id", "method", "params"}
    assert body["params"] == [[1], {"language": "en", "company": 3}]


def test_an_old_server_is_named() -> None:
    """Servers before 8.0 answer 405 at the new path."""
    with pytest.raises(Permanent, match=r"8\.0"):
        Server(status(405)).client().version()


def test_a_bad_configuration_lists_every_problem() -> None:
    """Address, login and decimals are checked before the first call, all at once."""
    with pytest.raises(InvalidInput) as caught:
        TrytonConfig("ftp://x", "a/b", "", "", quantity_decimals=-1)
    assert {problem.where for problem in caught.value.problems} == {
        *("url", "database", "username", "password", "quantity_decimals")
    }
    assert "a-secret" not in repr(CONFIG)


def test_a_connection_says_what_its_options_lack() -> None:
    """Missing, unknown and mistyped options are listed together, before anything is opened."""
    connection = ConnectionConfig(
        *(TargetId("erp"), "tryton", "test", "http://tryton.example"),
        options={"database": "books", "company": "one", "databse": "books"},
    )
    with pytest.raises(InvalidInput) as caught:
        open_erp(connection, {"password": "a-secret"})
    assert {(problem.code, problem.where) for problem in caught.value.problems} == {
        ("unknown-option", "options.databse"),
        ("invalid-option", "options.company"),
        ("missing-option", "options.username"),
    }


def test_absence_is_certain_only_after_the_look_ups_too() -> None:
    """What comes between posting's clock and the creating request is part of the limit."""
    connection = ConnectionConfig(
        *(TargetId("erp"), "tryton", "test", "http://tryton.example"),
        options={"database": "books", "username": "integration"},
        request_limit_s=60,
        margin_s=5,
    )
    erp = open_erp(connection, {"password": "a-secret"})
    assert erp.capabilities.certain_absence_s == 60 + PREPARE_MAX_S + 5
    erp.close()
