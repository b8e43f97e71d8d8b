"""Resources over HTTP: a billing run from import to approval, pages, repeated requests."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from meterpost.access.model import Role, Scope

pytestmark = pytest.mark.integration


def _import(world: Any, text: str, token: str, **query: str) -> httpx.Response:
    return world.http(  # type: ignore[no-any-return]
        "POST",
        "/v1/masterdata/imports",
        token,
        content=text.encode(),
        params=query,
        headers={"Content-Type": "application/yaml"},
    )


@pytest.fixture(scope="module")
def billed(world: Any, masterdata: str) -> dict[str, Any]:
    """Master data, events and a close, all over HTTP; the close's answer."""
    engineer, operator = world.person(Role.ENGINEER), world.person(Role.OPERATOR)
    assert _import(world, masterdata, engineer).status_code == 200
    events = [
        {
            "specversion": "1.0",
            "id": f"r-{n}",
            "source": "//api.test",
            "type": "api.call",
            "subject": "alpha" if n else "stranger",
            "time": "2026-10-03T10:00:00Z",
            "data": {"tokens": 100},
        }
        for n in range(4)
    ]
    response = world.http(
        "POST",
        "/v1/events",
        engineer,
        json=events,
        headers={"Content-Type": "application/cloudevents-batch+json"},
    )
    assert response.status_code == 202
    body = {"period": "2026-10", "entity": "acme"}
    response = world.http("POST", "/v1/closes", operator, json=body)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def test_a_file_can_be_imported_as_it_is(world: Any, masterdata: str) -> None:
    """YAML as the body, CSV with its name, JSON records, and files in JSON; `dry_run` stores
    nothing.
    """
    token = world.key(Scope.MASTERDATA_WRITE, Scope.MASTERDATA_READ)
    assert _import(world, masterdata, token, dry_run="true").status_code == 200
    csv = world.http(
        "POST",
        "/v1/masterdata/imports?name=customers.csv&dry_run=true",
        token,
        content=b"id,name\nglobex,Globex\n",
        headers={"Content-Type": "text/csv"},
    )
    assert csv.status_code == 200, csv.text
    records = {"records": {"customers": [{"id": "umbrella", "name": "Umbrella"}]}}
    made = world.http("POST", "/v1/masterdata/imports", token, json=records)
    assert made.status_code == 200, made.text
    listed = world.http("GET", "/v1/masterdata/customers", token).json()["items"]
    assert "umbrella" in {each["id"] for each in listed}
    assert "globex" not in {each["id"] for each in listed}
    history = world.http("GET", "/v1/masterdata/customers/umbrella/history", token).json()
    assert len(history["items"]) == 1
    assert world.http("GET", "/v1/masterdata/customers/umbrella", token).json()["id"] == "umbrella"
    assert world.http("GET", "/v1/masterdata/customers/nobody", token).status_code == 404


def test_links_are_made_found_and_ended(world: Any, billed: dict[str, Any]) -> None:
    """PUT, GET and DELETE on the crosswalk; ids with slashes go in query and body."""
    token = world.key(Scope.MASTERDATA_WRITE, Scope.MASTERDATA_READ)
    named = {"system": "//api.test", "kind": "subject", "external_id": "beta/1"}
    made = world.http("PUT", "/v1/crosswalk", token, json={**named, "canonical_id": "S-1"})
    assert made.status_code == 200, made.text
    found = world.http("GET", "/v1/crosswalk", token, params=named).json()
    assert found["canonical_id"] == "S-1"
    key = "~1~1api.test/subject/beta~11"
    history = world.http("GET", f"/v1/masterdata/crosswalk/{key}/history", token).json()
    assert [each["external_id"] for each in history["items"]] == ["beta/1"]
    assert world.http("DELETE", "/v1/crosswalk", token, params=named).status_code == 200
    found = world.http("GET", "/v1/crosswalk", token, params=named).json()
    assert found["canonical_id"] is None


def test_usage_can_be_asked_by_group(world: Any, billed: dict[str, Any]) -> None:
    """Quantities are strings, groups come by repetition of `by`."""
    token = world.key(Scope.USAGE_READ)
    url = "/v1/usage?meter=tokens&period=2026-10&by=subject&where=source://api.test"
    items = world.http("GET", url, token).json()["items"]
    assert {each["subject"]: each["quantity"] for each in items} == {
        "alpha": "300",
        "stranger": "100",
    }


def test_a_transaction_is_approved_by_what_was_seen(world: Any, billed: dict[str, Any]) -> None:
    """Another hash is a conflict; a person without the scope is refused; the right hash counts."""
    reader = world.person(Role.VIEWER)
    url = f"/v1/transactions?close={billed['close']['id']}&state=in_review&state=approved"
    [listed] = world.http("GET", url, reader).json()["items"]
    one = f"/v1/transactions/{listed['id']}"
    shown = world.http("GET", one, reader).json()
    assert shown["state"] == "in_review"
    assert shown["lines"][0]["sentences"]
    approver = world.person(Role.APPROVER)
    seen = {"hash": shown["document_hash"]}
    other = world.http("POST", f"{one}/approve", approver, json={"hash": "0" * 64})
    assert other.status_code == 409, other.text
    assert other.headers["content-type"] == "application/problem+json"
    assert world.http("POST", f"{one}/approve", reader, json=seen).status_code == 403
    answer = world.http("POST", f"{one}/approve", approver, json=seen)
    assert answer.status_code == 200, answer.text
    assert answer.json()["state"] == "approved"


def test_a_decision_about_many_answers_for_each(world: Any, billed: dict[str, Any]) -> None:
    """One that does not exist leaves the answer a 200 that says so."""
    token = world.person(Role.REVIEWER)
    body = {"ids": [999_999], "reason": "look"}
    response = world.http("POST", "/v1/transactions/release", token, json=body)
    assert response.status_code == 200
    assert response.json()["refused"] == 1
    one = world.http("POST", "/v1/transactions/999999/release", token, json={"reason": "look"})
    assert one.status_code == 404


def test_exceptions_are_assigned(world: Any, billed: dict[str, Any]) -> None:
    """The stranger's usage waits in the list, and gets an owner."""
    token = world.person(Role.REVIEWER)
    items = world.http("GET", "/v1/exceptions?period=2026-10", token).json()["items"]
    assert items
    body = {"assignee": "ada"}
    url = f"/v1/exceptions/{items[0]['id']}"
    assert world.http("POST", f"{url}/assign", token, json=body).json()["assignee"] == "ada"
    assert world.http("GET", url, token).json()["assignee"] == "ada"


def test_the_ledgers_balance_over_http(world: Any, billed: dict[str, Any]) -> None:
    """Trace, proof and balance answer; nothing is unexplained."""
    token = world.person(Role.VIEWER)
    balance = world.http("GET", "/v1/balance/2026-10", token).json()
    assert balance["unexplained"] in ("0", 0), balance
    assert world.http("GET", "/v1/trace/event:r-1", token).status_code == 200
    proof = world.http("GET", f"/v1/proofs/close:{billed['close']['id']}", token)
    assert proof.json()["proved"] is True, proof.text


def test_pages_follow_one_another_to_the_end(world: Any) -> None:
    """By `next`, and by the Link header, which keeps the other filters; nothing twice."""
    token = world.key(Scope.AUDIT_READ)
    whole = world.http("GET", "/v1/audit?limit=1000&actor=boss", token).json()["items"]
    assert len(whole) > 4
    by_cursor, by_link = [], []
    cursor: str | None = ""
    while cursor is not None:
        more = {"cursor": cursor} if cursor else {}
        page = world.http(
            "GET", "/v1/audit", token, params={"limit": 3, "actor": "boss", **more}
        ).json()
        by_cursor += page["items"]
        assert len(page["items"]) <= 3
        cursor = page["next"]
    url: str | None = "/v1/audit?limit=3&actor=boss"
    while url is not None:
        response = world.http("GET", url, token)
        by_link += response.json()["items"]
        link = response.headers.get("link")
        assert (link is None) == (response.json()["next"] is None)
        url = None if link is None else link[1 : link.index(">")]
    assert by_cursor == by_link == whole


@pytest.mark.parametrize("cursor", ["nonsense", "AAAA", "OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5", "%00"])
def test_a_cursor_of_nobody_is_refused(world: Any, cursor: str) -> None:
    """Also one whose number no database holds."""
    token = world.key(Scope.AUDIT_READ)
    response = world.http("GET", f"/v1/audit?cursor={cursor}", token)
    assert response.status_code == 400, response.text


def _create(world: Any, token: str, key: str, **body: object) -> httpx.Response:
    return world.http(  # type: ignore[no-any-return]
        "POST",
        "/v1/users",
        token,
        content=json.dumps(body),
        headers={"Idempotency-Key": key, "Content-Type": "application/json"},
    )


def test_the_same_request_again_gets_the_first_answer(world: Any) -> None:
    """Created once, answered twice alike; the second says that it is a replay."""
    token = world.key(Scope.ADMIN)
    first = _create(world, token, "k-1", id="idem-1", roles=["viewer"])
    again = _create(world, token, "k-1", id="idem-1", roles=["viewer"])
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.content == again.content
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    plain = world.http("POST", "/v1/users", token, json={"id": "idem-1", "roles": ["viewer"]})
    assert plain.status_code == 409


def test_a_key_for_another_request_is_refused(world: Any) -> None:
    """422; another caller's equal key is another key."""
    token = world.key(Scope.ADMIN)
    assert _create(world, token, "k-2", id="idem-2", roles=[]).status_code == 201
    other = _create(world, token, "k-2", id="idem-3", roles=[])
    assert (other.status_code, other.json()["type"]) == (
        422,
        "urn:meterpost:problem:idempotency-key-reused",
    )
    assert _create(world, world.key(Scope.ADMIN), "k-2", id="idem-3", roles=[]).status_code == 201
    assert _create(world, token, "", id="idem-4", roles=[]).status_code == 400


def test_a_request_that_failed_can_be_made_again(world: Any) -> None:
    """A refusal is not kept: once its cause is gone, the same key and request succeed."""
    token = world.key(Scope.MASTERDATA_WRITE)
    admin = world.key(Scope.ADMIN)
    assert token
    assert _create(world, admin, "k-5", id="IDEM 5", roles=[]).status_code == 400
    assert _create(world, admin, "k-5", id="idem-5", roles=[]).status_code == 201


def test_at_once_only_one_is_carried_out(world: Any, billed: dict[str, Any]) -> None:
    """While the first is being carried out, the same request with the same key is a 409."""
    token = world.key(Scope.CLOSES_RUN)
    entered, go = threading.Event(), threading.Event()

    def wait() -> None:
        entered.set()
        assert go.wait(30)

    def close() -> httpx.Response:
        return world.http(  # type: ignore[no-any-return]
            "POST",
            "/v1/closes",
            token,
            json={"period": "2026-10", "entity": "acme"},
            headers={"Idempotency-Key": "k-6"},
        )

    world.engine.meanwhile = wait
    try:
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(close)
            assert entered.wait(30)
            second = close()
            go.set()
            assert first.result(60).status_code == 200
    finally:
        go.set()
        world.engine.meanwhile = lambda: None
    assert second.status_code == 409
    third = close()
    assert third.headers["idempotent-replayed"] == "true"
    assert third.content == first.result().content
