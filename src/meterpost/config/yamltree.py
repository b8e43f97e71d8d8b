"""YAML text as a tree that remembers its lines.

YAML 1.2, core schema, read from the parser's events: numbers become int or Decimal from their
source text (never a binary fraction), ``yes`` and dates stay text, tags other than ``!!str`` and
duplicate keys are refused, and size, depth, aliases and digits are bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml import events as ev
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from meterpost.core.problem import Problem

BYTES_MAX = 512 * 1024
DEPTH_MAX = 40
#: Counted with every alias written out, so that nested aliases cannot multiply.
NODES_MAX = 60_000
DIGITS_MAX = 40

_STRING_TAG = "tag:yaml.org,2002:str"
_NULL = {"", "~", "null", "Null", "NULL"}
_TRUTH = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?[0-9]+")
_OTHER_BASE = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FRACTION = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,9})?")

Key = str | int


@dataclass(slots=True)
class Node:
    """A value and the line it stands on. ``value`` holds Nodes inside mappings and lists."""

    value: Any
    line: int
    size: int = 1
    key_lines: dict[str, int] = field(default_factory=dict)

    def plain(self) -> Any:
        """The value in Python's own types: dict, list, str, int, Decimal, bool, None."""
        match self.value:
            case dict() as entries:
                return {key: node.plain() for key, node in entries.items()}
            case list() as items:
                return [node.plain() for node in items]
            case scalar:
                return scalar

    def at(self, path: tuple[Key, ...]) -> tuple[tuple[Key, ...], int]:
        """As far along the path as the tree goes, and that place's line."""
        node, line = self, self.line
        for depth, step in enumerate(path):
            children = node.value
            if isinstance(children, dict) and isinstance(step, str) and step in children:
                line = node.key_lines[step]
            elif not (isinstance(children, list) and isinstance(step, int)) or not (
                0 <= step < len(children)
            ):
                return path[:depth], line
            else:
                line = children[step].line
            node = children[step]
        return path, line


class _Refused(Exception):
    def __init__(self, code: str, sentence: str, line: int, hint: str = "") -> None:
        super().__init__(sentence)
        self.code, self.sentence, self.line, self.hint = code, sentence, line, hint


def parse_yaml(data: bytes, label: str) -> tuple[Node | None, list[Problem]]:
    """The document's tree (None for an unusable or empty one) and what is wrong with it.

    ``label`` is how problems name the file.
    """
    if len(data) > BYTES_MAX:
        return None, [
            Problem(
                "too-large",
                f"The file has {len(data):,} bytes; at most {BYTES_MAX:,} are read.",
                label,
                "Split it: every .yaml file of the folder is read.",
            )
        ]
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        return None, [
            Problem("not-utf8", "This is not UTF-8 text.", f"{label}:{line}", "Save it as UTF-8.")
        ]
    builder = _Builder(label)
    try:
        root = builder.document(iter(YAML(typ="safe", pure=True).parse(text)))
    except _Refused as refused:
        place = f"{label}:{refused.line}"
        return None, [
            *builder.problems,
            Problem(refused.code, refused.sentence, place, refused.hint),
        ]
    except MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        place = label if mark is None else f"{label}:{mark.line + 1}"
        return None, [
            *builder.problems,
            Problem(
                "yaml",
                f"This is not YAML: {exc.problem or exc.context}.",
                place,
                "Indentation, colons and quotes are the usual suspects; text that holds "
                "`: ` or ` #` needs quotes.",
            ),
        ]
    except (YAMLError, ValueError) as exc:
        first = str(exc).strip().splitlines()[0]
        return None, [*builder.problems, Problem("yaml", f"This is not YAML: {first}.", label)]
    return root, builder.problems


class _Builder:
    def __init__(self, label: str) -> None:
        self.problems: list[Problem] = []
        self._label = label
        self._anchors: dict[str, Node] = {}
        self._open: set[str] = set()

    def document(self, events: Iterator[Any]) -> Node | None:
        root: Node | None = None
        seen = False
        for event in events:
            if isinstance(event, ev.DocumentStartEvent):
                if seen:
                    raise _Refused(
                        "many-documents",
                        "A second YAML document starts here.",
                        _line(event),
                        "One document per file; remove the `---`.",
                    )
                seen = True
                root = self._node(next(events), events, 0)
        return None if root is None or root.value is None else root

    def _node(self, event: Any, events: Iterator[Any], depth: int) -> Node:
        line = _line(event)
        if depth > DEPTH_MAX:
            raise _Refused("too-deep", f"Values are nested deeper than {DEPTH_MAX}.", line)
        if isinstance(event, ev.AliasEvent):
            return self._alias(event.anchor, line)
        if event.tag is not None and not (
            isinstance(event, ev.ScalarEvent) and event.tag == _STRING_TAG
        ):
            raise _Refused(
                "tag", f"The tag {event.tag} is not allowed.", line, "Write a plain value."
            )
        anchor = event.anchor
        if anchor is not None:
            self._open.add(anchor)
        if isinstance(event, ev.ScalarEvent):
            node = Node(self._scalar(event, line), line)
        elif isinstance(event, ev.SequenceStartEvent):
            node = self._sequence(events, line, depth)
        else:
            node = self._mapping(events, line, depth)
        if node.size > NODES_MAX:
            raise _Refused("too-large", f"The file holds more than {NODES_MAX:,} values.", line)
        if anchor is not None:
            self._open.discard(anchor)
            self._anchors[anchor] = node
        return node

    def _alias(self, anchor: str, line: int) -> Node:
        if anchor in self._open:
            raise _Refused("alias", f"*{anchor} stands inside what it stands for.", line)
        if anchor not in self._anchors:
            raise _Refused("alias", f"*{anchor} is used before &{anchor} is given.", line)
        named = self._anchors[anchor]
        return Node(named.value, line, named.size, named.key_lines)

    def _sequence(self, events: Iterator[Any], line: int, depth: int) -> Node:
        items: list[Node] = []
        node = Node(items, line)
        for event in events:
            if isinstance(event, ev.SequenceEndEvent):
                break
            items.append(self._node(event, events, depth + 1))
            self._grow(node, items[-1])
        return node

    def _mapping(self, events: Iterator[Any], line: int, depth: int) -> Node:
        entries: dict[str, Node] = {}
        node = Node(entries, line)
        for event in events:
            if isinstance(event, ev.MappingEndEvent):
                break
            key, key_line = self._key(event), _line(event)
            child = self._node(next(events), events, depth + 1)
            self._grow(node, child)
            if key in entries:
                self.problems.append(
                    Problem(
                        "duplicate-key",
                        f"`{key}` is given twice, first on line {node.key_lines[key]}.",
                        f"{self._label}:{key_line}",
                        "Keep one of them.",
                    )
                )
                continue
            entries[key] = child
            node.key_lines[key] = key_line
        return node

    def _key(self, event: Any) -> str:
        if not isinstance(event, ev.ScalarEvent):
            raise _Refused("key", "A key has to be a word.", _line(event))
        if event.value == "<<" and event.style is None:
            raise _Refused(
                "merge", "`<<` does not merge in YAML 1.2.", _line(event), "Write the keys out."
            )
        return str(event.value)

    def _grow(self, node: Node, child: Node) -> None:
        node.size += child.size
        if node.size > NODES_MAX:
            raise _Refused(
                "too-large",
                f"The file holds more than {NODES_MAX:,} values, aliases written out.",
                child.line,
            )

    def _scalar(self, event: Any, line: int) -> object:
        text = str(event.value)
        if event.style is not None or event.tag == _STRING_TAG:
            return text
        if text in _NULL:
            return None
        if text in _TRUTH:
            return _TRUTH[text]
        if _OTHER_BASE.fullmatch(text) and len(text) <= DIGITS_MAX:
            return int(text, 0)
        if not _FRACTION.fullmatch(text):
            return text
        number = Decimal(text) if len(text) <= DIGITS_MAX else None
        if number is None or abs(number.adjusted()) > DIGITS_MAX:
            self.problems.append(
                Problem(
                    "number",
                    f"{text[:50]} has more than {DIGITS_MAX} digits.",
                    f"{self._label}:{line}",
                    "Put it in quotes if it is text.",
                )
            )
            return None
        return int(text) if _INTEGER.fullmatch(text) else number


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1
