"""The API's reference as one page of plain HTML: no script, nothing from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;
color:#1c2430}
h2{margin-top:2.5rem;border-bottom:1px solid #ccd3dd}h3{margin:1.8rem 0 .3rem}
code,pre{font:14px/1.45 ui-monospace,monospace;background:#f3f5f8;border-radius:4px}
code{padding:.1em .3em}pre{padding:.7rem;overflow:auto}
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.25rem .6rem .25rem 0;
vertical-align:top;border-bottom:1px solid #e4e8ee}
.m{display:inline-block;min-width:4.2rem;font-weight:700}.s{color:#5a6675}
"""


def docs_page(document: Mapping[str, Any]) -> str:
    """The page for an OpenAPI document of ours."""
    info = document["info"]
    by_tag: dict[str, list[tuple[str, str, Mapping[str, Any]]]] = {}
    for path, item in document["paths"].items():
        for method, operation in item.items():
            by_tag.setdefault(operation["tags"][0], []).append((method.upper(), path, operation))
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width,initial-scale=1'>",
        f"<title>{escape(info['title'])} API</title><style>{_STYLE}</style>",
        f"<h1>{escape(info['title'])} API {escape(info['version'])}</h1>",
        f"<p>{_text(info['description'])}</p>",
        "<p>The same for machines: <a href=/v1/openapi.json>/v1/openapi.json</a></p>",
    ]
    for tag in document["tags"]:
        parts.append(f"<h2>{escape(tag['name'])}</h2><p>{_text(tag['description'])}</p>")
        for method, path, operation in by_tag.get(tag["name"], ()):
            parts += _operation(document, method, path, operation)
    return "\n".join(parts)


def _operation(
    document: Mapping[str, Any], method: str, path: str, operation: Mapping[str, Any]
) -> Iterator[str]:
    yield (
        f"<h3 id={escape(operation['operationId'])}><span class=m>{method}</span> "
        f"<code>{escape(path)}</code></h3>"
    )
    yield f"<p><strong>{_text(operation['summary'])}</strong></p>"
    yield "".join(f"<p>{_text(each)}</p>" for each in operation["description"].split("\n\n"))
    rows = [_resolved(document, each) for each in operation["parameters"]]
    shown = [
        f"<tr><td><code>{escape(each['name'])}</code><td class=s>{each['in']}"
        f"{', required' if each['required'] else ''}<td>{_text(each.get('description', ''))} "
        f"<span class=s>{_kind(document, each['schema'])}</span>"
        for each in rows
    ]
    body = operation.get("requestBody", {}).get("content", {})
    fields = body.get("application/json", {}).get("schema", {})
    shown += [
        f"<tr><td><code>{escape(name)}</code><td class=s>body"
        f"{', required' if name in fields.get('required', ()) else ''}"
        f"<td>{_text(each.get('description', ''))} "
        f"<span class=s>{_kind(document, each)}</span>"
        for name, each in fields.get("properties", {}).items()
    ]
    if shown:
        yield f"<table>{''.join(shown)}</table>"
    for media_type, media in body.items():
        if media.get("example"):
            example = json.dumps(media["example"], indent=1, ensure_ascii=False)
            yield f"<p class=s>{escape(media_type)}</p><pre>{escape(example)}</pre>"
    yield f"<p class=s>Answers: {', '.join(operation['responses'])}</p>"


def _resolved(document: Mapping[str, Any], thing: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = thing.get("$ref")
    if reference is None:
        return thing
    found: Any = document
    for step in reference.removeprefix("#/").split("/"):
        found = found[step]
    assert isinstance(found, dict)
    return found


def _kind(document: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    schema = _resolved(document, schema)
    if "enum" in schema:
        return escape(" | ".join(map(str, schema["enum"])))
    if "anyOf" in schema:
        kinds = [_kind(document, each) for each in schema["anyOf"] if each.get("type") != "null"]
        return " or ".join(kinds)
    if schema.get("type") == "array":
        return f"list of {_kind(document, schema.get('items', {}))}"
    return escape(str(schema.get("format") or schema.get("type") or ""))


def _text(text: str) -> str:
    """Text with `code` in backticks (single or double) shown as code."""
    parts = escape(text).replace("``", "`").split("`")
    return "".join(f"<code>{part}</code>" if n % 2 else part for n, part in enumerate(parts))
