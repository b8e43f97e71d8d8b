"""The OpenAPI document against its own rules and against the table of operations."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
from fastapi.openapi.models import OpenAPI

from meterpost.api.asking import arguments_of
from meterpost.api.docs_page import docs_page
from meterpost.api.openapi import openapi_document
from meterpost.api.routes import NOT_ROUTED, ROUTES, Route
from meterpost.operations.registry import find_operation, operations


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    # Through JSON, as clients get it.
    found: dict[str, Any] = json.loads(json.dumps(openapi_document()))
    return found


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield path, method, operation


def _references(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for each in node.values():
            yield from _references(each)
    elif isinstance(node, list):
        for each in node:
            yield from _references(each)


def test_the_document_has_the_shape_of_openapi_3_1(document: dict[str, Any]) -> None:
    """Every object of it is one that OpenAPI 3.1 knows."""
    assert OpenAPI.model_validate(document).openapi == "3.1.0"


def test_every_schema_is_json_schema(document: dict[str, Any]) -> None:
    """Shared schemas and those of parameters and bodies are JSON Schema 2020-12."""
    schemas = [*document["components"]["schemas"].values()]
    for _, _, operation in _operations(document):
        schemas += [each["schema"] for each in operation["parameters"] if "schema" in each]
        content = operation.get("requestBody", {}).get("content", {})
        schemas += [media["schema"] for media in content.values()]
    for schema in schemas:
        jsonschema_rs.meta.validate(
            {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
        )


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    """No `$ref` dangles."""
    for reference in set(_references(document)):
        found: Any = document
        for step in reference.removeprefix("#/").split("/"):
            assert step in found, reference
            found = found[step]


def test_variables_of_a_path_are_its_path_parameters(document: dict[str, Any]) -> None:
    """What stands in braces is declared, and nothing else; operation ids are unique."""
    ids = []
    for path, _, operation in _operations(document):
        ids.append(operation["operationId"])
        declared = {each["name"] for each in operation["parameters"] if each.get("in") == "path"}
        assert declared == set(re.findall(r"\{(\w+)\}", path)), path
    assert len(ids) == len(set(ids))


def test_every_operation_has_a_route_or_a_reason_against(document: dict[str, Any]) -> None:
    """An operation that is added without either fails here; so does a stale reason."""
    routed = {route.operation for route in ROUTES}
    assert {operation.name for operation in operations()} == routed | NOT_ROUTED.keys()
    assert not routed & NOT_ROUTED.keys()
    assert all(find_operation(name).local for name in NOT_ROUTED)
    listed = {each.get("x-meterpost-operation") for _, _, each in _operations(document)}
    assert routed <= listed


def test_no_operation_on_local_files_has_a_route() -> None:
    """Whoever reaches the API cannot make the server read or write files of its machine."""
    assert not [route for route in ROUTES if find_operation(route.operation).local]


def test_each_call_names_its_scope(document: dict[str, Any]) -> None:
    """The security requirement carries the scope that the operation takes."""
    for path, method, operation in _operations(document):
        [requirement] = operation["security"]
        assert len(requirement["ApiKey"]) == 1, (path, method)


def test_events_are_described_in_all_modes(document: dict[str, Any]) -> None:
    """Structured, batch, lines and binary; 202 is an answer; the key's scope is named."""
    post = document["paths"]["/v1/events"]["post"]
    assert set(post["requestBody"]["content"]) == {
        "application/cloudevents+json",
        "application/cloudevents-batch+json",
        "application/x-ndjson",
        "*/*",
    }
    assert {"202", "400", "401", "403", "413", "415", "422", "429", "503"} <= set(post["responses"])
    assert "get" in document["paths"]["/v1/events"]


def test_creating_calls_offer_an_idempotency_key(document: dict[str, Any]) -> None:
    """Exactly those whose operation creates."""
    for path, method, operation in _operations(document):
        name = operation.get("x-meterpost-operation")
        offered = {"$ref": "#/components/parameters/IdempotencyKey"} in operation["parameters"]
        assert offered == (name is not None and find_operation(name).creates), (path, method)


@pytest.mark.parametrize(
    "route",
    [route for route in ROUTES if route.example is not None],
    ids=lambda route: f"{route.method} {route.path}",
)
def test_examples_can_be_sent(route: Route) -> None:
    """Each example is taken as the body of its route."""
    path = dict.fromkeys(re.findall(r"\{(\w+)", route.path), "1")
    body = json.dumps(route.example).encode()
    arguments_of(route, find_operation(route.operation), path, b"", "application/json", body)


def test_routes_with_a_body_and_fields_have_an_example() -> None:
    """Who reads the reference sees what to send."""
    missing = [
        route.path
        for route in ROUTES
        if route.body and route.example is None and route.operation != "users.deactivate"
    ]
    assert not missing


def test_the_reference_page_needs_nothing_from_elsewhere(document: dict[str, Any]) -> None:
    """No script, no address of another host; every path is on it."""
    page = docs_page(document)
    assert "<script" not in page
    assert "//cdn" not in page
    assert "src=" not in page
    for path in document["paths"]:
        assert path in page
