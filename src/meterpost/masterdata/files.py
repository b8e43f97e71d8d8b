"""Master-data files: YAML with several entities, CSV with one, every record with its line."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from io import StringIO
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from meterpost.core.problem import Problem
from meterpost.masterdata.fields import nearest_hint
from meterpost.masterdata.model import MODELS
from meterpost.masterdata.record import Mapped, Record, record_of

#: Larger files are refused before they are read: YAML is read whole, with a place per value.
YAML_BYTES_MAX = 20_000_000
CSV_BYTES_MAX = 200_000_000
#: Values in one file, aliases counted wherever they are used.
VALUES_MAX = 2_000_000
DEPTH_MAX = 10
CSV_FIELD_MAX = 100_000

_TAG = "tag:yaml.org,2002:"


def read_files(paths: Iterable[Path], problems: list[Problem]) -> list[Record]:
    """The records of all files in order; what cannot be read is a problem with its line."""
    records: list[Record] = []
    for path in paths:
        limit = CSV_BYTES_MAX if path.suffix == ".csv" else YAML_BYTES_MAX
        try:
            size = path.stat().st_size
            if size > limit:
                sentence = f"the file has {size:,} bytes; {limit:,} are allowed."
                problems.append(Problem("too-large", sentence, str(path), "Split it."))
                continue
            data = path.read_bytes()
        except OSError as exc:
            problems.append(Problem("unreadable", f"{exc.strerror or exc}.", str(path)))
            continue
        records.extend(parse_file(str(path), data, problems))
    return records


def parse_file(name: str, data: bytes, problems: list[Problem]) -> list[Record]:
    """The records in a file's bytes; ``name`` tells the format and is where problems point."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = data[: exc.start].count(b"\n") + 1
        problems.append(
            Problem("not-utf-8", "the text is not UTF-8.", f"{name}:{line}", "Save it as UTF-8.")
        )
        return []
    nul = text.find("\0")
    if nul >= 0:
        where = f"{name}:{text.count(chr(10), 0, nul) + 1}"
        problems.append(Problem("bad-character", "a NUL byte is not text.", where))
        return []
    suffix = Path(name).suffix.lower()
    if suffix == ".csv":
        return list(_csv_records(name, text, problems))
    if suffix in {".yaml", ".yml"}:
        return list(_yaml_records(name, text, problems))
    problems.append(
        Problem("unknown-format", "is neither .yaml nor .csv.", name, "Name it after its format.")
    )
    return []


# YAML ---------------------------------------------------------------------------------------------


def _yaml_records(name: str, text: str, problems: list[Problem]) -> Iterator[Record]:
    try:
        root = YAML(typ="safe", pure=True).compose(StringIO(text))
    except MarkedYAMLError as exc:
        line = exc.problem_mark.line + 1 if exc.problem_mark else 1
        problems.append(Problem("bad-yaml", f"{exc.problem}.", f"{name}:{line}"))
        return
    except (YAMLError, RecursionError) as exc:
        problems.append(Problem("bad-yaml", f"{str(exc).splitlines()[0]:.200}.", name))
        return
    if root is None:
        return
    plain = _Plain(name, problems).value(root, 0)
    if not isinstance(plain, Mapped):
        hint = f"Begin with one of: {', '.join(MODELS)}."
        problems.append(Problem("wrong-type", "the file is not a mapping.", f"{name}:1", hint))
        return
    zone = plain.get("zone")
    for entity, listed in plain.items():
        where = plain.places[entity]
        if entity == "zone":
            if not isinstance(listed, str):
                problems.append(Problem("wrong-type", "zone must be text.", where))
        elif entity not in MODELS:
            hint = nearest_hint(entity, (*MODELS, "zone"))
            problems.append(Problem("unknown-key", f"{entity} is no kind of record.", where, hint))
        elif not isinstance(listed, list):
            problems.append(Problem("wrong-type", f"{entity} must be a list of records.", where))
        else:
            for index, item in enumerate(listed):
                if isinstance(item, Mapping):
                    yield record_of(entity, item, where, zone if isinstance(zone, str) else None)
                else:
                    sentence = f"record {index + 1} of {entity} is not a mapping of fields."
                    problems.append(Problem("wrong-type", sentence, where))


class _Plain:
    """Values of YAML nodes: text as written, whole numbers, and mappings that know their lines."""

    def __init__(self, name: str, problems: list[Problem]) -> None:
        self._name = name
        self._problems = problems
        self._left = VALUES_MAX

    def value(self, node: Node, depth: int) -> object:
        self._left -= 1
        if self._left == 0 or depth > DEPTH_MAX:
            self._complain(node, "too-large", "the file nests or repeats too much.")
        if self._left <= 0 or depth > DEPTH_MAX:
            return None
        if isinstance(node, MappingNode):
            return self._mapping(node, depth)
        if isinstance(node, SequenceNode):
            return [self.value(item, depth + 1) for item in node.value]
        assert isinstance(node, ScalarNode)
        return self._scalar(node)

    def _mapping(self, node: MappingNode, depth: int) -> Mapped:
        mapped = Mapped(self._place(node))
        for key_node, value_node in node.value:
            key = str(key_node.value) if isinstance(key_node, ScalarNode) else "?"
            if key in mapped:
                self._complain(key_node, "double-key", f"{key:.60} is written twice.")
            mapped[key] = self.value(value_node, depth + 1)
            mapped.places[key] = self._place(key_node)
        return mapped

    def _scalar(self, node: ScalarNode) -> object:
        text = str(node.value)
        match str(node.tag).removeprefix(_TAG):
            case "null":
                return None
            case "bool":
                return text.lower() == "true"
            case "int" if len(text) <= 40 and text.lstrip("-").isdecimal():
                # 0047 is a name, not 47.
                return int(text) if str(int(text)) == text else text
            case "float":
                try:
                    return float(text)
                except ValueError:  # .nan, .inf, 1_000.5
                    return text
            case "str" | "timestamp" | "int":
                return text
            case tag:
                self._complain(node, "unknown-tag", f"the tag {tag[:60]} means nothing here.")
                return None

    def _place(self, node: Node) -> str:
        return f"{self._name}:{node.start_mark.line + 1}"

    def _complain(self, node: Node, code: str, sentence: str) -> None:
        self._problems.append(Problem(code, sentence, self._place(node)))


# CSV ----------------------------------------------------------------------------------------------


def _csv_records(name: str, text: str, problems: list[Problem]) -> Iterator[Record]:
    reader = csv.reader(StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, [])
        entity = _entity_of(name, header)
        if entity is None:
            problems.append(
                Problem(
                    "unknown-entity",
                    "neither the file's name nor a column `entity` says what the rows are.",
                    f"{name}:1",
                    f"Name the file {' or '.join(f'{known}.csv' for known in list(MODELS)[:2])}…",
                )
            )
            return
        if len(set(header)) != len(header):
            problems.append(Problem("double-key", "two columns have one name.", f"{name}:1"))
            return
        start = reader.line_num + 1
        for row in reader:
            where, start = f"{name}:{start}", reader.line_num + 1
            if any(row):
                record = _csv_record(entity, header, row, where, problems)
                if record is not None:
                    yield record
    except csv.Error as exc:
        problems.append(Problem("bad-csv", f"{exc}.", f"{name}:{reader.line_num}"))


def _entity_of(name: str, header: Sequence[str]) -> str | None:
    if "entity" in header:
        return ""
    stem = Path(name).stem
    return stem if stem in MODELS else None


def _csv_record(
    entity: str, header: Sequence[str], row: Sequence[str], where: str, problems: list[Problem]
) -> Record | None:
    if len(row) != len(header):
        sentence = f"the row has {len(row)} fields, the header {len(header)}."
        problems.append(Problem("bad-csv", sentence, where, "Quote fields with commas."))
        return None
    values: dict[str, object] = {
        name: value for name, value in zip(header, row, strict=True) if value != ""
    }
    entity = str(values.pop("entity", entity))
    if entity not in MODELS:
        hint = nearest_hint(entity, MODELS)
        problems.append(
            Problem("unknown-entity", f"{entity:.60} is no kind of record.", where, hint)
        )
        return None
    tiers = values.get("tiers")
    if entity == "prices" and isinstance(tiers, str):
        try:
            values["tiers"] = json.loads(tiers, parse_float=Decimal)
        except (ValueError, RecursionError):
            problems.append(
                Problem(
                    "bad-tiers",
                    "tiers is not JSON.",
                    where,
                    'Write [{"up_to": "1000", "unit_price": "0.01"}, {"unit_price": "0.005"}].',
                )
            )
            return None
    return Record(entity, values, where)
