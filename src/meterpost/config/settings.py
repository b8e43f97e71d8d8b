"""The installation's settings: `meterpost.yaml`, then the environment, then the command line."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import BeforeValidator, Field

from meterpost.config.explain import keys_of, spelled
from meterpost.config.yamlfile import Located, convert, read_tree
from meterpost.config.yamltree import Key, Node
from meterpost.core.errors import InvalidInput
from meterpost.core.problem import Problem
from meterpost.ingest.model import Limits
from meterpost.posting.config import SecretReference

SETTINGS_FILE = "meterpost.yaml"
ENVIRONMENT_PREFIX = "METERPOST_"
_SEPARATOR = "__"

#: Variables of ours that are no settings.
_OTHER_VARIABLES = {"METERPOST_WORKSPACE", "METERPOST_CRASHPOINT", "METERPOST_TEST_POSTGRES_URL"}

_Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,39}$")]
_Memory = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,5}(MB|GB|MiB|GiB)$")]
_Port = Annotated[int, Field(ge=1, le=65535)]
_Days = Annotated[int, Field(ge=1, le=36_500)]


@dataclass(frozen=True, slots=True)
class DatabaseSettings:
    """Which PostgreSQL: the embedded server, or the one at the URL behind a secret reference."""

    url: SecretReference | None = None
    pool_size: Annotated[int, Field(ge=1, le=200)] = 5

    @property
    def embedded(self) -> bool:
        """Whether meterpost runs the server itself."""
        return self.url is None


@dataclass(frozen=True, slots=True)
class EdgeSettings:
    """Where the HTTP API listens, and how much it takes in."""

    host: Annotated[str, Field(min_length=1, max_length=253)] = "127.0.0.1"
    port: _Port = 8420
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What the engine's DuckDB may use."""

    memory_limit: _Memory = "512MB"
    threads: Annotated[int, Field(ge=1, le=256)] = 2


@dataclass(frozen=True, slots=True)
class LoggingSettings:
    """How much is logged, and in which form."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "console"] = "json"


@dataclass(frozen=True, slots=True)
class RetentionSettings:
    """How long things are kept at least."""

    events_days: _Days = 400
    journal_days: _Days = 7
    idempotency_hours: Annotated[int, Field(ge=1, le=24 * 90)] = 24


def _embedded(value: object) -> object:
    if isinstance(value, str):
        if value != "embedded":
            raise ValueError(
                f"{value!r} is not `embedded`; a server is given by `url: {{file: …}}`"
            )
        return {}
    return value


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything `meterpost.yaml` says (docs/configuration.md).

    ``installation`` and ``environment`` go into every posting key: documents of two
    installations or environments cannot be taken for each other.
    """

    installation: _Name
    environment: _Name
    database: Annotated[DatabaseSettings, BeforeValidator(_embedded)] = field(
        default_factory=DatabaseSettings
    )
    edge: EdgeSettings = field(default_factory=EdgeSettings)
    engine: EngineSettings = field(default_factory=EngineSettings)
    logging: LoggingSettings = field(default_factory=LoggingSettings)
    retention: RetentionSettings = field(default_factory=RetentionSettings)


def read_settings(
    root: Path,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, str] | None = None,
) -> Settings:
    """The settings of a workspace; ``overrides`` are the command line's ``section.key`` values.

    Raises: InvalidInput with every problem, naming file and line, variable or option.
    """
    found = locate_settings(root, environ, overrides)
    if isinstance(found, Located):
        return found.value
    raise InvalidInput(f"The settings of {root} cannot be used:", found)


def locate_settings(
    root: Path,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, str] | None = None,
) -> Located[Settings] | list[Problem]:
    """The settings with the place each was set, or what is wrong."""
    node, problems = read_tree(root / SETTINGS_FILE, SETTINGS_FILE)
    if node is None or problems:
        return problems
    if not isinstance(node.value, dict):
        return convert(node, Settings, SETTINGS_FILE)
    places: dict[tuple[Key, ...], str] = {}
    for path, text, place in (
        *_from_environment(os.environ if environ is None else environ),
        *_from_command_line(overrides or {}),
    ):
        problem = _set(node, path, text, place, places)
        if problem is not None:
            problems.append(problem)
    located = convert(node, Settings, SETTINGS_FILE, places, _sought())
    if isinstance(located, Located):
        return problems or located
    return problems + located


def setting_names(type_: Any = Settings, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every setting as ``section.key`` with its default (`MISSING` where it is required)."""
    hints = get_type_hints(type_)
    for each in fields(type_):
        path = (*prefix, each.name)
        if is_dataclass(hints[each.name]) and hints[each.name] is not SecretReference:
            yield from setting_names(hints[each.name], path)
        else:
            yield ".".join(path), each.default


def variable_of(path: tuple[Key, ...]) -> str:
    """The environment variable of a setting.

    >>> variable_of(("edge", "port"))
    'METERPOST_EDGE__PORT'
    """
    return ENVIRONMENT_PREFIX + _SEPARATOR.join(str(step).upper() for step in path)


def _sought() -> dict[tuple[Key, ...], str]:
    return {
        (name,): f"`{name}:` in {SETTINGS_FILE}, the environment variable {variable_of((name,))}, "
        f"the command line's `--set {name}=…`"
        for name, default in setting_names()
        if default is MISSING
    }


def _from_environment(
    environ: Mapping[str, str],
) -> Iterator[tuple[tuple[str, ...], str, str]]:
    top = keys_of(Settings)
    for name in sorted(environ):
        if not name.startswith(ENVIRONMENT_PREFIX) or name in _OTHER_VARIABLES:
            continue
        path = tuple(name.removeprefix(ENVIRONMENT_PREFIX).lower().split(_SEPARATOR))
        # Other programs' variables may begin like ours; two underscores, or a name that is
        # exactly a setting's, say that one of ours is meant.
        if len(path) > 1 or path[0] in top:
            yield path, environ[name], f"environment variable {name}"


def _from_command_line(
    overrides: Mapping[str, str],
) -> Iterator[tuple[tuple[str, ...], str, str]]:
    for name, text in overrides.items():
        yield tuple(name.split(".")), text, f"command line, {name}"


_NAME = re.compile(r"[a-z][a-z0-9_]*")


def _set(
    node: Node,
    path: tuple[str, ...],
    text: str,
    place: str,
    places: dict[tuple[Key, ...], str],
) -> Problem | None:
    """Write an override into the tree; a section that is not there yet is made."""
    if not all(_NAME.fullmatch(step) for step in path):
        return Problem("unknown-key", f"{spelled(path)!r} names no setting.", place)
    for step in path[:-1]:
        entries = node.value
        inner = entries.get(step)
        if inner is None or not isinstance(inner.value, dict):
            inner = Node({}, node.line)
        # A copy, so that an aliased section is not changed in two places.
        inner = Node(dict(inner.value), inner.line, inner.size, dict(inner.key_lines))
        entries[step] = inner
        node.key_lines.setdefault(step, inner.line)
        node = inner
    node.value[path[-1]] = Node(text, node.line)
    node.key_lines[path[-1]] = node.line
    places[path] = place
    return None
