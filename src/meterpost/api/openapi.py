"""The OpenAPI 3.1 document: made from the table of routes and the operations' dataclasses."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from meterpost import __version__
from meterpost.access.model import Scope
from meterpost.api.asking import UPLOADS, kinds_of
from meterpost.api.openapi_events import EVENT_SCHEMAS, EVENTS_POST
from meterpost.api.problems import MEDIA_TYPE, TYPE_PREFIX
from meterpost.api.routes import ROUTES, Route
from meterpost.operations.registry import Operation, find_operation

Json = dict[str, Any]

_REF = "#/components/schemas/{model}"
_TAGS = {
    "Status": "Where everything stands.",
    "Events": "Usage as it comes in; what was refused.",
    "Usage": "Quantities of meters.",
    "Master data": "Customers, contracts, prices, and whose id is whose.",
    "Closes": "Calculations of an accounting period.",
    "Transactions": "What should exist in the ERP: review, approval, decisions.",
    "Exceptions": "What cannot go on, and what moves it.",
    "Posting": "Into the ERP, once.",
    "Proof": "The way back: reconcile, trace, prove, balance.",
    "Audit": "Who decided what, sealed.",
    "People": "Users, roles, API keys.",
    "Configuration": "Files in force.",
}
_STATUS_OF = {
    "400": "Arguments or body cannot be used; `problems` names each.",
    "401": "No API key, or one that is not valid.",
    "403": "The key lacks the scope that the problem names.",
    "404": "The thing named does not exist.",
    "409": "The state of the thing forbids it, or a person has to act first.",
    "413": "The body is too large.",
    "415": "The body's media type is not taken.",
    "422": "Cannot be done as configured; or the Idempotency-Key stands for another request.",
    "429": "Too many requests wait; see Retry-After.",
    "431": "Path, query or headers are too long.",
    "500": "A defect; the log has the details under the correlation id.",
    "503": "Database or engine are away; nothing was done; see Retry-After.",
    "504": "The engine did not answer: it may have happened. Look before repeating.",
}


def openapi_document() -> Json:
    """The whole document, ``POST /v1/events`` included."""
    schemas: Json = {**_SHARED, **EVENT_SCHEMAS}
    paths: Json = {}
    for route in ROUTES:
        operation = find_operation(route.operation)
        item = paths.setdefault(re.sub(r":path\}", "}", route.path), {})
        item[route.method.lower()] = _operation(route, operation, schemas)
    paths["/v1/events"]["post"] = EVENTS_POST
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "meterpost",
            "version": __version__,
            "summary": "Product usage into governed ERP transactions.",
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"ApiKey": []}],
        "tags": [{"name": name, "description": about} for name, about in _TAGS.items()],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "responses": {f"Problem{status}": _problem(status) for status in _STATUS_OF},
            "headers": _HEADERS,
            "parameters": _PARAMETERS,
            "securitySchemes": {
                "ApiKey": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "mp_<id>.<secret>",
                    "description": "An API key. Each call names the scope it takes: "
                    + ", ".join(f"`{scope}`" for scope in Scope)
                    + ".",
                }
            },
        },
    }


def _operation(route: Route, operation: Operation, schemas: Json) -> Json:
    asked = route.shape.asked if route.shape else operation.arguments
    schema = _schema_of(asked, schemas)
    in_path = re.findall(r"\{(\w+)(?::path)?\}", route.path)
    properties: Json = schema.get("properties", {})
    required = set(schema.get("required", ()))
    parameters: list[Json] = [
        {"name": name, "in": "path", "required": True, **_described(properties[name])}
        for name in in_path
    ]
    if not route.body:
        kinds = kinds_of(asked)
        parameters += [
            _query_parameter(name, each, kinds[name], required=name in required)
            for name, each in properties.items()
            if name not in in_path
        ]
    parameters.append({"$ref": "#/components/parameters/CorrelationId"})
    creates = operation.creates
    if creates:
        parameters.append({"$ref": "#/components/parameters/IdempotencyKey"})
    statuses = ["400", "401", "403", "404", "409", "429", "431", "500", "503"]
    if route.body:
        statuses += ["413", "415"]
    statuses += ["422"] + (["504"] if operation.needs_events else [])
    answer: Json = {
        "description": "A page." if route.lists else "Done.",
        "headers": {"X-Correlation-ID": {"$ref": "#/components/headers/CorrelationId"}},
        "content": {
            "application/json": {
                "schema": {
                    "$ref": _REF.format(model="Page" if route.lists else "Result"),
                }
            }
        },
    }
    if "cursor" in properties:
        answer["headers"]["Link"] = {"$ref": "#/components/headers/Link"}
    if creates:
        answer["headers"]["Idempotent-Replayed"] = {"$ref": "#/components/headers/Replayed"}
    about = [inspect.cleandoc(text) for text in (asked.__doc__, operation.function.__doc__) if text]
    found: Json = {
        "operationId": _operation_id(route),
        "tags": [route.tag],
        "summary": operation.summary,
        "description": "\n\n".join([*about, f"Takes the scope `{operation.scope}`."]),
        "security": [{"ApiKey": [str(operation.scope)]}],
        "x-meterpost-operation": operation.name,
        "parameters": parameters,
        "responses": {
            str(route.status): answer,
            **{
                status: {"$ref": f"#/components/responses/Problem{status}"}
                for status in sorted(statuses)
            },
        },
    }
    if route.body:
        found["requestBody"] = _request_body(route, schema, in_path)
    return found


def _request_body(route: Route, schema: Json, in_path: list[str]) -> Json:
    properties = {
        name: each for name, each in schema.get("properties", {}).items() if name not in in_path
    }
    required = [name for name in schema.get("required", ()) if name not in in_path]
    if route.uploads:
        # Either form: files, or the records themselves.
        properties["records"] = {
            "type": "object",
            "description": "Records by entity, as in a YAML file, in place of files.",
        }
        required = []
    body: Json = {"type": "object", "properties": properties, "additionalProperties": False}
    if required:
        body["required"] = required
    media: Json = {"schema": body}
    if route.example is not None:
        media["example"] = dict(route.example)
    content: Json = {"application/json": media}
    if route.uploads:
        for media_type in UPLOADS:
            content[media_type] = {
                "schema": {
                    "type": "string",
                    "description": "A file, named by the query's `name`; `dry_run` beside it.",
                }
            }
    return {"required": bool(required) or route.uploads, "content": content}


def _query_parameter(name: str, schema: Json, kind: str, *, required: bool) -> Json:
    parameter: Json = {"name": name, "in": "query", "required": required, **_described(schema)}
    if kind == "list":
        parameter |= {"style": "form", "explode": True}
    if kind == "mapping":
        parameter["schema"] = {"type": "array", "items": {"type": "string", "pattern": "^[^:]+:"}}
        parameter |= {
            "style": "form",
            "explode": True,
            "description": "Pairs `name:value`, one parameter each.",
        }
    return parameter


def _described(schema: Json) -> Json:
    """A property as a parameter: without the null that a missing one stands for."""
    schema = dict(schema)
    choices = schema.get("anyOf")
    if choices is not None:
        kept = [dict(each) for each in choices if each.get("type") != "null"]
        if len(kept) == 1:
            del schema["anyOf"]
            schema = {**kept[0], **schema}
    if schema.get("default", 0) is None:
        del schema["default"]
    about = schema.pop("description", None)
    return {"schema": schema} if about is None else {"description": about, "schema": schema}


def _schema_of(asked: type, schemas: Json) -> Json:
    """The schema of a dataclass; what it refers to goes to the shared schemas."""
    schema = TypeAdapter(asked).json_schema(ref_template=_REF)
    for name, each in schema.pop("$defs", {}).items():
        if schemas.setdefault(name, each) != each:
            raise ValueError(f"two schemas are called {name}")
    return schema


def _operation_id(route: Route) -> str:
    """``tx.approve`` at a path with an id is ``tx_approve_one``."""
    name = route.operation.replace(".", "_")
    return f"{name}_one" if route.shape is not None and route.shape.one else name


def _problem(status: str) -> Json:
    headers: Json = {"X-Correlation-ID": {"$ref": "#/components/headers/CorrelationId"}}
    if status in ("429", "503"):
        headers["Retry-After"] = {"$ref": "#/components/headers/RetryAfter"}
    if status in ("401", "403"):
        headers["WWW-Authenticate"] = {"$ref": "#/components/headers/Authenticate"}
    return {
        "description": _STATUS_OF[status],
        "headers": headers,
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }


_TEXT: Json = {"type": "string"}
_SHARED: Mapping[str, Json] = {
    "Result": {"type": "object", "description": "Exact numbers are strings, moments are UTC."},
    "Page": {
        "type": "object",
        "required": ["items", "next"],
        "properties": {
            "items": {"type": "array", "items": {"type": "object"}},
            "next": {
                "type": ["string", "null"],
                "description": "The cursor of the next page; null on the last.",
            },
        },
    },
    "Problem": {
        "type": "object",
        "description": "RFC 9457.",
        "required": ["type", "title", "status", "detail", "correlation_id"],
        "properties": {
            "type": {"type": "string", "pattern": f"^{TYPE_PREFIX}"},
            "title": _TEXT,
            "status": {"type": "integer"},
            "detail": _TEXT,
            "hint": {"type": ["string", "null"], "description": "What helps."},
            "correlation_id": _TEXT,
            "scope": {"type": "string", "description": "With 403: the scope that is missing."},
            "problems": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["code", "sentence", "where"],
                    "properties": {
                        "code": _TEXT,
                        "sentence": _TEXT,
                        "where": _TEXT,
                        "hint": {"type": ["string", "null"]},
                    },
                },
            },
            "problems_total": {"type": "integer"},
        },
        "example": {
            "type": f"{TYPE_PREFIX}not-found",
            "title": "Not found",
            "status": 404,
            "detail": "There is no transaction 17.",
            "hint": None,
            "correlation_id": "run-7",
        },
    },
}
_HEADERS: Json = {
    "CorrelationId": {"description": "Names the request in logs and facts.", "schema": _TEXT},
    "Link": {"description": 'The next page: `<…>; rel="next"`.', "schema": _TEXT},
    "RetryAfter": {"description": "Seconds.", "schema": {"type": "integer"}},
    "Authenticate": {"description": "Bearer, and the scope it takes.", "schema": _TEXT},
    "Replayed": {"description": "`true` on an answer given before.", "schema": _TEXT},
}
_PARAMETERS: Json = {
    "CorrelationId": {
        "name": "X-Correlation-ID",
        "in": "header",
        "required": False,
        "description": "Yours for this request; one is made otherwise.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,128}$"},
    },
    "IdempotencyKey": {
        "name": "Idempotency-Key",
        "in": "header",
        "required": False,
        "description": "The same key with the same request gives the first answer again; with "
        "another request 422; while the first is being carried out 409.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255},
    },
}
_ABOUT = """\
Every call takes `Authorization: Bearer mp_<id>.<secret>` and a scope. Failures are
problem+json. Lists are `{items, next}`: ask again with `cursor=<next>`, or follow the `Link`
header. Exact numbers (quantities, prices, amounts) are strings.
"""
