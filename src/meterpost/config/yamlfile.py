"""Typed values from YAML files: the rooms' own dataclasses, or problems by file and line."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from meterpost.config.explain import Complaint, explain
from meterpost.config.yamltree import BYTES_MAX, Key, Node, parse_yaml
from meterpost.core.errors import InvalidInput
from meterpost.core.problem import Problem

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Located(Generic[T]):
    """A value with the place it was written; ``places`` overrides it for keys set elsewhere."""

    value: T
    label: str
    node: Node
    places: Mapping[tuple[Key, ...], str] = field(default_factory=dict)

    def where(self, *path: Key) -> str:
        """``file:line`` of a part, or of the nearest thing around it that is written down."""
        return place_of(self.label, self.node, self.places, path)


def load(path: Path, type_: type[T]) -> T:
    """The file's content as a value of that type (a dataclass of a room).

    Numbers written in the file reach Decimal fields digit by digit. Raises: InvalidInput with
    every problem of the file, also when it is missing.
    """
    node, problems = read_tree(path, str(path))
    if node is not None and not problems:
        located = convert(node, type_, str(path))
        if isinstance(located, Located):
            return located.value
        problems = located
    raise InvalidInput(f"{path} cannot be used:", problems)


def read_tree(path: Path, label: str) -> tuple[Node | None, list[Problem]]:
    """The file's tree, or what keeps it from being one."""
    try:
        with path.open("rb") as file:
            data = file.read(BYTES_MAX + 1)
    except OSError as exc:
        return None, [Problem("unreadable", f"The file cannot be read: {exc.strerror}.", label)]
    node, problems = parse_yaml(data, label)
    if node is None and not problems:
        problems = [Problem("empty", "The file is empty.", label, "Fill it, or delete it.")]
    return node, problems


def convert(
    node: Node,
    type_: type[T],
    label: str,
    places: Mapping[tuple[Key, ...], str] | None = None,
    sought: Mapping[tuple[Key, ...], str] | None = None,
) -> Located[T] | list[Problem]:
    """The tree as a value of that type, or everything that is wrong with it.

    ``places`` says where keys were set that do not stand in the file; ``sought`` what to say
    about a missing key, where it could have been given.
    """
    places = places or {}
    try:
        value: T = _adapter(cast(Hashable, type_)).validate_python(node.plain(), extra="forbid")
    except ValidationError as exc:
        return [
            Problem(
                complaint.code,
                complaint.sentence + _looked_in(complaint, sought or {}),
                place_of(label, node, places, complaint.path),
                complaint.hint,
            )
            for complaint in explain(exc, type_, node)
        ]
    return Located(value, label, node, places)


def _looked_in(complaint: Complaint, sought: Mapping[tuple[Key, ...], str]) -> str:
    if complaint.code != "missing" or complaint.path not in sought:
        return ""
    return f" Looked in: {sought[complaint.path]}."


def place_of(
    label: str, node: Node, places: Mapping[tuple[Key, ...], str], path: tuple[Key, ...]
) -> str:
    """Where a part was written: the override that set it (or what holds it), or file and line."""
    for end in range(len(path), 0, -1):
        if path[:end] in places:
            return places[path[:end]]
    return f"{label}:{node.at(path)[1]}"


@lru_cache(maxsize=64)
def _adapter(type_: Any) -> TypeAdapter[Any]:
    return TypeAdapter(type_)
