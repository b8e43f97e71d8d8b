"""``POST /v1/events`` in the OpenAPI document, written by hand: no dataclass says it."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

_EVENT: Json = {
    "specversion": "1.0",
    "id": "req-1",
    "source": "//api.example",
    "type": "api.request",
    "subject": "alpha",
    "time": "2026-10-03T10:00:00Z",
    "data": {"tokens": 1200},
}

EVENT_SCHEMAS: Json = {
    "CloudEvent": {
        "type": "object",
        "description": "CloudEvents 1.0. Extension attributes are kept.",
        "required": ["specversion", "id", "source", "type"],
        "properties": {
            "specversion": {"const": "1.0"},
            "id": {"type": "string", "minLength": 1, "maxLength": 255},
            "source": {"type": "string", "minLength": 1, "maxLength": 1024},
            "type": {"type": "string", "minLength": 1, "maxLength": 255},
            "subject": {"type": "string", "minLength": 1, "maxLength": 1024},
            "time": {"type": "string", "format": "date-time"},
            "datacontenttype": {"type": "string"},
            "data": {},
            "data_base64": {"type": "string"},
        },
        "additionalProperties": True,
    },
    "EventsAccepted": {
        "type": "object",
        "required": ["accepted", "rejected", "rejected_total", "correlation_id"],
        "properties": {
            "accepted": {"type": "integer", "description": "Stored durably."},
            "rejected": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["index", "field", "code", "reason"],
                    "properties": {
                        "index": {"type": "integer", "description": "From 0."},
                        "field": {"type": "string"},
                        "code": {"type": "string"},
                        "reason": {"type": "string"},
                    },
                },
            },
            "rejected_total": {"type": "integer"},
            "correlation_id": {"type": "string"},
        },
    },
}

_REF: Json = {"$ref": "#/components/schemas/CloudEvent"}
_BINARY_HEADERS = {
    "ce-specversion": "`1.0`, in binary mode.",
    "ce-id": "The event's id, in binary mode; percent-encoded like all of them.",
    "ce-source": "In binary mode.",
    "ce-type": "In binary mode.",
    "ce-subject": "In binary mode.",
    "ce-time": "In binary mode.",
}


def _header(name: str, about: str) -> Json:
    schema = {"type": "string"}
    return {"name": name, "in": "header", "required": False, "description": about, "schema": schema}


def _problem(status: int) -> Json:
    return {"$ref": f"#/components/responses/Problem{status}"}


EVENTS_POST: Json = {
    "operationId": "events_post",
    "tags": ["Events"],
    "summary": "Accept usage events: one, a batch, lines, or one in binary mode.",
    "description": "202 says that the accepted events are on disk. Refused ones are kept in "
    "quarantine and named with index, field and reason. Sending again is always safe: events "
    "count once by (source, id).\n\nTakes the scope `events:write`.",
    "security": [{"ApiKey": ["events:write"]}],
    "parameters": [
        {"$ref": "#/components/parameters/CorrelationId"},
        _header("traceparent", "W3C trace context, stored with the events."),
        _header("Content-Encoding", "`gzip`, or none."),
        *(_header(name, about) for name, about in _BINARY_HEADERS.items()),
    ],
    "requestBody": {
        "required": True,
        "content": {
            "application/cloudevents+json": {"schema": _REF, "example": _EVENT},
            "application/cloudevents-batch+json": {
                "schema": {"type": "array", "items": _REF},
                "example": [_EVENT],
            },
            "application/x-ndjson": {
                "schema": {"type": "string", "description": "One CloudEvent a line."}
            },
            "*/*": {
                "schema": {},
                "example": {"tokens": 1200},
            },
        },
    },
    "responses": {
        "202": {
            "description": "At least one event was accepted, or the batch was empty.",
            "headers": {"X-Correlation-ID": {"$ref": "#/components/headers/CorrelationId"}},
            "content": {
                "application/json": {
                    "schema": {"$ref": "#/components/schemas/EventsAccepted"},
                    "example": {
                        "accepted": 1,
                        "rejected": [],
                        "rejected_total": 0,
                        "correlation_id": "run-7",
                    },
                }
            },
        },
        "422": {
            "description": "Every event was refused; all are in quarantine.",
            "content": {
                "application/problem+json": {
                    "schema": {
                        "allOf": [
                            {"$ref": "#/components/schemas/Problem"},
                            {"$ref": "#/components/schemas/EventsAccepted"},
                        ]
                    }
                }
            },
        },
        **{str(status): _problem(status) for status in (400, 401, 403, 413, 415, 429, 500, 503)},
        "507": {
            "description": "The database's disk is full; nothing was stored.",
            "content": {
                "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
            },
        },
    },
}
