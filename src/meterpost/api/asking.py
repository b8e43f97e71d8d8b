"""What a request asks: arguments from its path, query and body, within limits."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from decimal import Decimal
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints
from urllib.parse import parse_qsl

from pydantic import TypeAdapter, ValidationError

from meterpost.api.problems import WrongMediaType
from meterpost.api.routes import Route
from meterpost.core.canonical import to_plain
from meterpost.core.clock import require_utc
from meterpost.core.errors import InvalidInput
from meterpost.core.problem import Problem
from meterpost.operations.registry import Operation

QUERY_FIELDS_MAX = 200
#: The suffix that tells the format of an uploaded file, by its media type.
UPLOADS: Mapping[str, str] = {
    "text/csv": ".csv",
    "application/yaml": ".yaml",
    "application/x-yaml": ".yaml",
    "text/yaml": ".yaml",
}
_DIGITS_MAX = 40


def arguments_of(
    route: Route,
    operation: Operation,
    path: Mapping[str, str],
    query_string: bytes,
    media_type: str,
    body: bytes,
) -> Mapping[str, object]:
    """The operation's arguments in JSON's own types, checked.

    Raises: InvalidInput naming each argument that does not fit; WrongMediaType.
    """
    asked = route.shape.asked if route.shape else operation.arguments
    query = _pairs(query_string)
    given: dict[str, object]
    if not route.body:
        given = _from_query(query, asked)
    elif route.uploads and media_type in UPLOADS:
        given = _upload(query, media_type, body)
    elif query:
        names = ", ".join(sorted({name[:100] for name, _ in query}))
        raise InvalidInput(f"The query has {names}; here arguments come in the JSON body.")
    else:
        given = _from_json(media_type, body)
        if route.uploads:
            given = _with_records(given)
    twice = sorted(given.keys() & path.keys())
    if twice:
        raise InvalidInput(f"{', '.join(twice)} stands in the path and is not given again.")
    given |= path
    for where, text in _texts(given, ""):
        if "\0" in text or not _encodes(text):
            raise InvalidInput(
                "The request has text that cannot be stored.",
                [Problem("bad-character", "NUL and half surrogate pairs are no text.", where)],
            )
    if route.shape is not None:
        given = dict(route.shape.to_arguments(_shaped(route.shape.asked, given)))
    _require_storable(operation.parse(given), "")
    plain = to_plain(given)
    assert isinstance(plain, dict)
    return plain


def _pairs(query_string: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(
            query_string.decode("ascii"), keep_blank_values=True, max_num_fields=QUERY_FIELDS_MAX
        )
    except UnicodeDecodeError as exc:
        raise InvalidInput("The query is not ASCII.", hint="Percent-encode it as UTF-8.") from exc
    except ValueError as exc:
        raise InvalidInput(f"The query has more than {QUERY_FIELDS_MAX} fields.") from exc


def _from_query(query: Iterable[tuple[str, str]], asked: type) -> dict[str, object]:
    """Lists by repetition, mappings as ``name:value`` by repetition, everything else once."""
    kinds = kinds_of(asked)
    given: dict[str, Any] = {}
    problems: list[Problem] = []
    for name, text in query:
        kind = kinds.get(name)
        if kind == "list":
            given.setdefault(name, []).append(text)
        elif kind == "mapping":
            key, colon, value = text.partition(":")
            if not colon:
                problems.append(Problem("bad-pair", "Write name:value.", name))
            given.setdefault(name, {})[key] = value
        elif name in given:
            problems.append(Problem("given-twice", "It is given twice.", name))
        else:
            given[name] = text
    if problems:
        raise InvalidInput("The query cannot be read.", problems)
    return given


@cache
def kinds_of(asked: type) -> Mapping[str, str]:
    """``list``, ``mapping`` or ``plain`` for each field of a dataclass of arguments."""
    hints = get_type_hints(asked, include_extras=True)
    return {name: _kind(hint) for name, hint in hints.items()}


def _kind(hint: object) -> str:
    origin = get_origin(hint)
    if origin is Annotated:
        return _kind(get_args(hint)[0])
    if origin in (Union, UnionType):
        kinds = {_kind(each) for each in get_args(hint) if each is not NoneType}
        return kinds.pop() if len(kinds) == 1 else "plain"
    if origin in (tuple, list):
        return "list"
    return "mapping" if isinstance(origin, type) and issubclass(origin, Mapping) else "plain"


def _from_json(media_type: str, body: bytes) -> dict[str, object]:
    if not body.strip():
        return {}
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise WrongMediaType(
            f"The body is {media_type[:80] or 'of no stated kind'}.", hint="Send application/json."
        )
    try:
        found = json.loads(
            body.decode("utf-8"),
            parse_float=_decimal,
            parse_int=_int,
            parse_constant=_no_constant,
        )
    except (ValueError, RecursionError) as exc:
        where = f" at line {exc.lineno}" if isinstance(exc, json.JSONDecodeError) else ""
        raise InvalidInput(f"The body is not JSON in UTF-8{where}.") from exc
    if not isinstance(found, dict):
        raise InvalidInput("The body is not a JSON object.")
    return found


def _decimal(text: str) -> Decimal:
    if len(text) > _DIGITS_MAX:
        raise ValueError("a number of that length is none of ours")
    value = Decimal(text)
    if abs(value.adjusted()) > _DIGITS_MAX:  # 1e999999 would be written out to a megabyte
        raise ValueError("a number of that size is none of ours")
    return value


def _int(text: str) -> int:
    if len(text) > _DIGITS_MAX:
        raise ValueError("a number of that length is none of ours")
    return int(text)


def _no_constant(text: str) -> object:
    raise ValueError(f"{text} is no JSON")


def _upload(query: list[tuple[str, str]], media_type: str, body: bytes) -> dict[str, object]:
    """One file: its text is the body, its name and ``dry_run`` stand in the query."""
    said = dict(query)
    suffix = UPLOADS[media_type]
    name = said.pop("name", "upload.yaml" if suffix == ".yaml" else "")
    dry_run = said.pop("dry_run", "false")
    if said:
        raise InvalidInput(
            f"The query has {', '.join(sorted(said))[:200]}; it takes name, dry_run."
        )
    if not name:
        raise InvalidInput("A CSV file needs its name.", hint="Add ?name=customers.csv.")
    if not name.lower().endswith((suffix, ".yml" if suffix == ".yaml" else suffix)):
        raise InvalidInput(f"{name[:100]} is not the name of a {suffix} file.")
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise InvalidInput(f"The file is not UTF-8 at byte {exc.start}.") from exc
    return {"files": [{"name": name, "text": text}], "dry_run": dry_run}


def _with_records(given: dict[str, object]) -> dict[str, object]:
    """``records``, an object as in a YAML file, becomes one: JSON is YAML."""
    if "records" not in given:
        return given
    if "files" in given:
        raise InvalidInput("Give either files or records.")
    rest = {name: value for name, value in given.items() if name != "records"}
    text = json.dumps(to_plain(given["records"]), ensure_ascii=False, indent=1)
    return {**rest, "files": [{"name": "records.yaml", "text": text}]}


def _shaped(asked: type, given: Mapping[str, object]) -> object:
    try:
        return _adapter(asked).validate_python(dict(given), extra="forbid")
    except ValidationError as exc:
        problems = [
            Problem(
                error["type"].replace("_", "-"),
                error["msg"] + ".",
                ".".join(str(part) for part in error["loc"]),
            )
            for error in exc.errors(include_url=False, include_input=False)
        ]
        raise InvalidInput("The arguments do not fit.", problems) from exc


@cache
def _adapter(asked: type) -> TypeAdapter[object]:
    return TypeAdapter(asked)


def _texts(value: object, where: str) -> Iterator[tuple[str, str]]:
    match value:
        case str():
            yield where, value
        case Mapping():
            for name, each in value.items():
                yield where, name
                yield from _texts(each, f"{where}.{name}" if where else name)
        case list():
            for index, each in enumerate(value):
                yield from _texts(each, f"{where}.{index}")


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _require_storable(value: object, where: str) -> None:
    """Nothing, where every moment has a UTC form. Raises: InvalidInput."""
    if isinstance(value, datetime):
        try:
            require_utc(value)
        except ValueError as exc:
            raise InvalidInput(
                "The arguments do not fit.", [Problem("bad-moment", f"{exc}.", where)]
            ) from exc
    elif is_dataclass(value) and not isinstance(value, type):
        for each in fields(value):
            _require_storable(getattr(value, each.name), each.name)
    elif isinstance(value, tuple):
        for item in value:
            _require_storable(item, where)
