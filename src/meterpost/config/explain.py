"""Pydantic's errors as sentences: which key, what is wrong, what would be right."""

from __future__ import annotations

import types
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from decimal import Decimal
from difflib import get_close_matches
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import ValidationError

from meterpost.config.yamltree import Key, Node

_KEY_ERRORS = {"unexpected_keyword_argument", "extra_forbidden"}
_MAPPING_ERRORS = {"dataclass_type", "dataclass_exact_type", "dict_type", "mapping_type"}
_LIST_ERRORS = {"tuple_type", "list_type"}
_SHOWN_MAX = 60


@dataclass(frozen=True, slots=True)
class Complaint:
    """One error, its place being a path of keys and list indexes from the tree's root."""

    path: tuple[Key, ...]
    code: str
    sentence: str
    hint: str = ""


def explain(error: ValidationError, type_: Any, node: Node) -> list[Complaint]:
    """Every error of a validation, once and by line, in the words of whoever wrote the file."""
    found: dict[tuple[tuple[Key, ...], str], Complaint] = {}
    for details in _nearest_variants(error.errors(include_url=False), node):
        complaint = _complaint(details, type_, node)
        found.setdefault((complaint.path, complaint.sentence), complaint)
    return sorted(found.values(), key=lambda complaint: node.at(complaint.path)[1])


def _nearest_variants(errors: Sequence[Any], node: Node) -> list[Any]:
    """Where a value fits none of several shapes, only the errors of the nearest shape."""
    plain: list[Any] = []
    variants: dict[tuple[Key, ...], dict[Key, list[Any]]] = defaultdict(dict)
    for details in errors:
        fork = _fork(details, node)
        if fork is None:
            plain.append(details)
        else:
            loc = details["loc"]
            variants[loc[:fork]].setdefault(loc[fork], []).append(details)
    for shapes in variants.values():
        nearest: list[Any] = min(shapes.values(), key=_distance)
        plain += nearest
    return plain


def _distance(errors: list[Any]) -> tuple[int, int]:
    return sum(each["type"] in _KEY_ERRORS for each in errors), len(errors)


def _fork(details: Any, node: Node) -> int | None:
    """Index of the first part of the location that is a shape's name instead of a key."""
    loc = details["loc"]
    deepest = len(node.at(loc)[0])
    if deepest >= len(loc) or (deepest == len(loc) - 1 and details["type"] == "missing"):
        return None
    return deepest


def _path(details: Any, node: Node) -> tuple[Key, ...]:
    loc: list[Key] = list(details["loc"])
    last = loc.pop() if details["type"] == "missing" else None
    path: tuple[Key, ...] = ()
    for step in loc:
        if node.at((*path, step))[0] == (*path, step):
            path = (*path, step)
    return path if last is None else (*path, last)


def _complaint(details: Any, type_: Any, node: Node) -> Complaint:
    kind, value = details["type"], details["input"]
    path = _path(details, node)
    name = spelled(path)
    if kind in _KEY_ERRORS:
        known = keys_of(_type_at(type_, path[:-1]))
        return Complaint(
            path, "unknown-key", f"`{name}` is not a key here.", _nearest(str(path[-1]), known)
        )
    if kind == "missing":
        return Complaint(path, "missing", f"`{name}` is missing.")
    if kind in {"enum", "literal_error"}:
        allowed = allowed_values(_type_at(type_, path)) or [str(details["ctx"]["expected"])]
        return Complaint(
            path,
            "not-allowed",
            f"`{name}` is {_shown(value)}, which is none of: {', '.join(allowed)}.",
            _nearest(str(value), allowed, "", ""),
        )
    if kind == "string_type":
        scalar = isinstance(value, bool | int | Decimal)
        hint = f'If it is meant as text, write it in quotes: "{value}".' if scalar else ""
        return Complaint(path, "not-text", f"`{name}` must be text, not {_shown(value)}.", hint)
    if kind in _MAPPING_ERRORS:
        keys = keys_of(_type_at(type_, path))
        hint = f"Its keys are: {', '.join(keys)}." if keys else ""
        subject = f"`{name}`" if path else "This"
        return Complaint(
            path, "not-mapping", f"{subject} must be `key: value` lines, not {_shown(value)}.", hint
        )
    if kind in _LIST_ERRORS:
        return Complaint(
            path,
            "not-list",
            f"`{name}` must be a list, not {_shown(value)}.",
            "Write one `- item` per line, or [item, item].",
        )
    if kind in {"value_error", "assertion_error"}:
        sentence = str(details["ctx"]["error"]).rstrip(".")
        return Complaint(path, "invalid", f"`{name}`: {sentence}." if path else f"{sentence}.")
    if kind == "string_pattern_mismatch":
        form = details["ctx"]["pattern"]
        return Complaint(path, "invalid", f"`{name}` is {_shown(value)}, not of the form {form}.")
    message = str(details["msg"]).replace("Input should be", "must be").rstrip(".")
    return Complaint(path, "invalid", f"`{name}` is {_shown(value)}: {message}.")


def spelled(path: tuple[Key, ...]) -> str:
    """The path as people write it: ``approval.role``, ``meters[2]``.

    >>> spelled(("meters", 2, "id"))
    'meters[2].id'
    """
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def keys_of(type_: Any) -> list[str]:
    """The keys a mapping of that type may have; none where any key is allowed."""
    names = [
        each.name
        for variant in _variants(type_)
        if is_dataclass(variant)
        for each in fields(variant)
    ]
    return list(dict.fromkeys(names))


def allowed_values(type_: Any) -> list[str]:
    """The words an enum or literal type admits."""
    words: list[str] = []
    for variant in _variants(type_):
        if isinstance(variant, type) and issubclass(variant, Enum):
            words += [str(member.value) for member in variant]
        elif get_origin(variant) is Literal:
            words += [str(word) for word in get_args(variant)]
    return words


def _variants(type_: Any) -> list[Any]:
    origin = get_origin(type_)
    if origin is Annotated:
        return _variants(get_args(type_)[0])
    if origin in {Union, types.UnionType}:
        return [variant for part in get_args(type_) for variant in _variants(part)]
    return [type_]


def _type_at(type_: Any, path: tuple[Key, ...]) -> Any:
    """The declared type at a path; None where the declaration does not say."""
    for step in path:
        type_ = next(
            (inner for v in _variants(type_) if (inner := _inner(v, step)) is not None), None
        )
        if type_ is None:
            return None
    return type_


def _inner(type_: Any, step: Key) -> Any:
    if is_dataclass(type_) and isinstance(type_, type):
        return get_type_hints(type_, include_extras=True).get(str(step))
    arguments = get_args(type_)
    origin = get_origin(type_)
    if not arguments or not isinstance(origin, type):
        return None
    if issubclass(origin, Mapping):
        return arguments[1]
    return arguments[0] if issubclass(origin, Sequence) else None


def _nearest(
    word: str, known: Sequence[str], otherwise: str = "Known keys: ", end: str = "."
) -> str:
    close = get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"Did you mean `{close[0]}`?"
    return f"{otherwise}{', '.join(known)}{end}" if otherwise and known else ""


def _shown(value: object) -> str:
    match value:
        case None:
            return "empty"
        case Mapping():
            return "a mapping"
        case str():
            return repr(value if len(value) <= _SHOWN_MAX else value[: _SHOWN_MAX - 1] + "…")
        case Sequence():
            return "a list"
        case bool():
            return str(value).lower()
        case _:
            return str(value)[:_SHOWN_MAX]
