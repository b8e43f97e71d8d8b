"""Arguments from path, query and body."""

from __future__ import annotations

import json

import pytest

from meterpost.api.asking import arguments_of
from meterpost.api.problems import WrongMediaType
from meterpost.api.routes import ROUTES, Route
from meterpost.core.errors import InvalidInput
from meterpost.operations.registry import find_operation


def _route(method: str, path: str) -> Route:
    [found] = [each for each in ROUTES if (each.method, each.path) == (method, path)]
    return found


def _asked(
    method: str,
    path: str,
    query: bytes = b"",
    body: bytes = b"",
    media_type: str = "application/json",
    **variables: str,
) -> dict[str, object]:
    route = _route(method, path)
    operation = find_operation(route.operation)
    return dict(arguments_of(route, operation, variables, query, media_type, body))


def test_lists_and_pairs_come_by_repetition() -> None:
    """`by` twice is a list of two, `where` twice a mapping of two."""
    query = b"meter=calls&by=subject&by=model&where=subject%3Aa%3Ab&where=model:x"
    assert _asked("GET", "/v1/usage", query) == {
        "meter": "calls",
        "by": ["subject", "model"],
        "where": {"subject": "a:b", "model": "x"},
    }


@pytest.mark.parametrize(
    "query",
    [
        b"meter=calls&meter=tokens",
        b"meter=calls&where=subject",
        b"meter=calls&unknown=1",
        b"meter=",
        b"meter=a%00b",
        b"meter=calls&window=week",
        b"&".join(b"by=x" for _ in range(300)) + b"&meter=calls",
        b"meter=\xff",
    ],
)
def test_a_query_that_does_not_fit_is_refused(query: bytes) -> None:
    """Twice, unpaired, unknown, empty, not storable, too many: each is told."""
    with pytest.raises(InvalidInput):
        _asked("GET", "/v1/usage", query)


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b'{"period": NaN}',
        b'{"period": "2026-10"',
        b'{"period": 1e999999}',
        b'{"period": ' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b'{"period": "\xff"}',
        b'{"period": "\\ud800"}',
        b'{"period": "2026-10", "more": 1}',
        b'{"period": 1.5}',
        b"{}",
    ],
)
def test_a_body_that_does_not_fit_is_refused(body: bytes) -> None:
    """Broken, too deep, too long, not storable, unknown or missing fields."""
    with pytest.raises(InvalidInput):
        _asked("POST", "/v1/closes", body=body)


def test_the_body_must_be_json() -> None:
    """A form is no JSON."""
    with pytest.raises(WrongMediaType):
        _asked("POST", "/v1/closes", body=b"a=1", media_type="application/x-www-form-urlencoded")


def test_what_stands_in_the_path_is_not_given_again() -> None:
    """Two ids in one request could differ."""
    body = json.dumps({"id": 5, "assignee": "ada"}).encode()
    with pytest.raises(InvalidInput, match="stands in the path"):
        _asked("POST", "/v1/exceptions/{id}/assign", body=body, id="4")


def test_one_decision_becomes_the_operations_list() -> None:
    """Approving one transaction is approving a list of one, hash included."""
    body = json.dumps({"hash": "a" * 64}).encode()
    assert _asked("POST", "/v1/transactions/{id}/approve", body=body, id="7") == {
        "transactions": [{"id": 7, "hash": "a" * 64}],
        "reason": "",
    }


def test_keys_of_several_parts_can_hold_slashes() -> None:
    """`~1` is a slash within a part."""
    asked = _asked(
        "GET",
        "/v1/masterdata/{entity}/{key:path}/history",
        entity="crosswalk",
        key="~1~1api.test/subject/a~0b",
    )
    assert asked == {"entity": "crosswalk", "key": ["//api.test", "subject", "a~b"]}


def test_a_moment_without_form_in_utc_is_refused() -> None:
    """The year 1 east of Greenwich, and the year 9999 west of it."""
    for moment in (b"0001-01-01T00:00:00%2B14:00", b"9999-12-31T23:59:59-14:00"):
        with pytest.raises(InvalidInput):
            _asked("GET", "/v1/masterdata/{entity}", b"at=" + moment, entity="customers")


def test_a_file_can_be_the_body() -> None:
    """CSV with its name in the query, YAML with one of ours."""
    asked = _asked(
        "POST",
        "/v1/masterdata/imports",
        b"name=customers.csv&dry_run=true",
        b"id,name\n",
        "text/csv",
    )
    assert asked == {
        "files": [{"name": "customers.csv", "text": "id,name\n"}],
        "dry_run": "true",
    }
    with pytest.raises(InvalidInput, match="name"):
        _asked("POST", "/v1/masterdata/imports", b"", b"id\n", "text/csv")
    with pytest.raises(InvalidInput, match="UTF-8"):
        _asked("POST", "/v1/masterdata/imports", b"", b"\xff", "application/yaml")


def test_records_as_json_become_a_file() -> None:
    """What a YAML file would say can be said in JSON, numbers digit by digit."""
    body = b'{"records": {"customers": [{"id": "a", "name": "A \xc3\xbc", "n": 1.10}]}}'
    asked = _asked("POST", "/v1/masterdata/imports", body=body)
    [file] = asked["files"]  # type: ignore[misc, attr-defined]
    assert json.loads(file["text"]) == {"customers": [{"id": "a", "name": "A ü", "n": "1.1"}]}
