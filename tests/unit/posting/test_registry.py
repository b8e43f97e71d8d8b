"""Connectors by name, and how the sandbox's answers are read."""

from __future__ import annotations

import httpx
import pytest

from meterpost.connectors import registry, sandbox
from meterpost.connectors.sandbox.client import SandboxClient
from meterpost.core.errors import InvalidInput, MeterpostError, NotFound, OutcomeUnknown, Transient
from meterpost.core.ids import TargetId
from meterpost.posting.config import ConnectionConfig
from meterpost.posting.errors import ClosedPeriod, Duplicate, Rejected


def connection(**options: object) -> ConnectionConfig:
    return ConnectionConfig(TargetId("erp"), "sandbox", "test", "http://127.0.0.1", options=options)


def test_an_unknown_connector_names_what_is_installed() -> None:
    """The error says which connectors there are."""
    with pytest.raises(NotFound, match="no connector named 'nonesuch'"):
        registry.load("nonesuch")


def test_a_missing_secret_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening without the token says which secret is missing."""
    monkeypatch.setattr(registry, "load", lambda name: sandbox)
    with pytest.raises(InvalidInput, match="lacks the secret token"):
        registry.open_erp(connection(), {})
    registry.open_erp(connection(), {"token": "t"}).close()


def test_options_are_checked() -> None:
    """Unknown names and wrong types are collected."""
    with pytest.raises(InvalidInput) as caught:
        sandbox.open_erp(connection(native_keys="yes", colour="red"), {"token": "t"})
    assert [problem.where for problem in caught.value.problems] == ["colour", "native_keys"]


def refusal(status: int, code: str) -> httpx.Response:
    return httpx.Response(status, json={"error": {"code": code, "message": "m", "field": "f"}})


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (refusal(422, "precision"), Rejected),
        (refusal(422, "closed_period"), ClosedPeriod),
        (refusal(409, "duplicate_reference"), Duplicate),
        (refusal(503, "unavailable"), Transient),
        (refusal(500, "internal_error"), OutcomeUnknown),
        (httpx.Response(503, text="proxy"), OutcomeUnknown),
        (httpx.Response(502, text="proxy"), OutcomeUnknown),
        (httpx.Response(422, text="not the ERP's own"), OutcomeUnknown),
        (httpx.Response(201, text="{cut"), OutcomeUnknown),
        (httpx.Response(302, headers={"Location": "/"}), OutcomeUnknown),
    ],
)
def test_what_an_answer_to_a_write_means(
    reply: httpx.Response, expected: type[MeterpostError]
) -> None:
    """Only an answer of the ERP's own that excludes a stored document is definite."""
    client = SandboxClient("http://erp", "t", transport=httpx.MockTransport(lambda _: reply))
    with pytest.raises(expected) as caught:
        client.create_invoice({}, timeout_s=1, native_key=None)
    assert type(caught.value) is expected
    client.close()


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (httpx.ConnectError("refused"), Transient),
        (httpx.ConnectTimeout("slow"), Transient),
        (httpx.WriteError("broke"), OutcomeUnknown),
        (httpx.ReadError("broke"), OutcomeUnknown),
        (httpx.ReadTimeout("slow"), OutcomeUnknown),
        (httpx.RemoteProtocolError("cut"), OutcomeUnknown),
    ],
)
def test_what_a_broken_line_means(
    failure: httpx.TransportError, expected: type[MeterpostError]
) -> None:
    """Before a connection exists nothing happened; after that we cannot know."""

    def fail(request: httpx.Request) -> httpx.Response:
        raise failure

    client = SandboxClient("http://erp", "t", transport=httpx.MockTransport(fail))
    with pytest.raises(expected):
        client.create_invoice({}, timeout_s=1, native_key=None)
    with pytest.raises(Transient):
        client.ping()
    client.close()
