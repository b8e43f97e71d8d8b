"""A workspace folder: what is where in it, and everything its files define."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from meterpost.config.settings import SETTINGS_FILE, Settings, locate_settings
from meterpost.config.snapshot import Snapshot
from meterpost.config.yamlfile import Located, convert, read_tree
from meterpost.config.yamltree import Node
from meterpost.core.errors import NotFound
from meterpost.core.problem import Problem
from meterpost.ingest.model import EventType, FileMapping
from meterpost.metering.model import Meter
from meterpost.posting.config import ConnectionConfig
from meterpost.workflows.model import Workflow

T = TypeVar("T")

WORKSPACE_VARIABLE = "METERPOST_WORKSPACE"
FILES_MAX = 2_000


@dataclass(frozen=True, slots=True)
class Places:
    """Where things lie in a workspace. Everything meterpost writes itself is under `state`."""

    root: Path

    @property
    def state(self) -> Path:
        """Data of this installation: never in Git, always in the backup."""
        return self.root / ".meterpost"

    @property
    def postgres(self) -> Path:
        """The embedded PostgreSQL server's cluster."""
        return self.state / "pg"

    @property
    def event_store(self) -> Path:
        """The engine's DuckDB file."""
        return self.state / "events.duckdb"

    @property
    def sockets(self) -> Path:
        """Local sockets between our processes (0700)."""
        return self.state / "run"

    @property
    def logs(self) -> Path:
        """One log file per process."""
        return self.state / "log"

    @property
    def checkpoints(self) -> Path:
        """The audit log's checkpoints; copy this file elsewhere."""
        return self.state / "audit" / "checkpoints.jsonl"

    @property
    def masterdata(self) -> Path:
        """Files that `meterpost masterdata import` reads."""
        return self.root / "masterdata"


@dataclass(frozen=True, slots=True)
class Workspace:
    """A checked workspace."""

    places: Places
    settings: Settings
    events: tuple[EventType, ...]
    meters: tuple[Meter, ...]
    workflows: tuple[Workflow, ...]
    connections: tuple[ConnectionConfig, ...]
    mappings: tuple[FileMapping, ...]

    @property
    def root(self) -> Path:
        """The workspace's folder."""
        return self.places.root

    def snapshot(self) -> Snapshot:
        """What closes depend on, in a form to store."""
        return Snapshot.of(self.meters, self.workflows)

    def digest(self) -> str:
        """Changes exactly when `snapshot` does."""
        return self.snapshot().digest


@dataclass(slots=True)
class WorkspaceFiles:
    """Everything that could be read, with its places, and everything that could not."""

    settings: Located[Settings] | None = None
    events: list[Located[EventType]] = field(default_factory=list)
    meters: list[Located[Meter]] = field(default_factory=list)
    workflows: list[Located[Workflow]] = field(default_factory=list)
    connections: list[Located[ConnectionConfig]] = field(default_factory=list)
    mappings: list[Located[FileMapping]] = field(default_factory=list)
    #: Folders some of whose files could not be read: what they lack may be in those files.
    incomplete: set[str] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)


def find_workspace(
    given: Path | None = None,
    environ: Mapping[str, str] | None = None,
    start: Path | None = None,
) -> Path:
    """The workspace meant: the one given, the environment's, or the nearest above ``start``.

    Raises: NotFound listing every place searched.
    """
    environ = os.environ if environ is None else environ
    named = str(given) if given is not None else environ.get(WORKSPACE_VARIABLE)
    if named:
        root = Path(named).expanduser().resolve()
        if not (root / SETTINGS_FILE).is_file():
            origin = "--workspace" if given is not None else WORKSPACE_VARIABLE
            raise NotFound(
                f"{root} (from {origin}) is no workspace: it has no {SETTINGS_FILE}.",
                hint="`meterpost init` makes one.",
            )
        return root
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / SETTINGS_FILE).is_file():
            return folder
    raise NotFound(
        f"No workspace found. Looked for: the option --workspace, the environment variable "
        f"{WORKSPACE_VARIABLE}, {SETTINGS_FILE} in {start} and the folders above it.",
        hint="`meterpost init` makes one.",
    )


def read_files(
    root: Path,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, str] | None = None,
) -> WorkspaceFiles:
    """All definitions of a workspace; nothing is raised for what is wrong in them."""
    files = WorkspaceFiles()
    settings = locate_settings(root, environ, overrides)
    if isinstance(settings, Located):
        files.settings = settings
    else:
        files.problems += settings
    files.events = _folder(root, "events", EventType, None, files)
    files.meters = _folder(root, "meters", Meter, None, files)
    files.workflows = _folder(root, "workflows", Workflow, "name", files)
    files.connections = _folder(root, "connections", ConnectionConfig, "name", files)
    files.mappings = _folder(root, "mappings", FileMapping, "name", files)
    return files


def _folder(
    root: Path, folder: str, type_: type[T], named_by: str | None, files: WorkspaceFiles
) -> list[Located[T]]:
    """The definitions of a folder's files: one per file, or a list of them.

    A single definition without its ``named_by`` key is called as the file is.
    """
    found: list[Located[T]] = []
    for path in _yaml_files(root / folder, files, folder):
        label = f"{folder}/{path.name}"
        node, problems = read_tree(path, label)
        if node is not None:
            if named_by is not None and isinstance(node.value, dict):
                node.value.setdefault(named_by, Node(path.stem, node.line))
                node.key_lines.setdefault(named_by, node.line)
            for each in node.value if isinstance(node.value, list) else [node]:
                result: Any = convert(each, type_, label)
                if isinstance(result, Located):
                    found.append(result)
                else:
                    problems += result
        if problems:
            files.incomplete.add(folder)
            files.problems += problems
    return found


def _yaml_files(path: Path, files: WorkspaceFiles, folder: str) -> Iterator[Path]:
    if not path.is_dir():
        return
    names = sorted(each for each in path.iterdir() if each.suffix in {".yaml", ".yml"})
    if len(names) > FILES_MAX:
        files.incomplete.add(folder)
        files.problems.append(
            Problem("too-many", f"More than {FILES_MAX} files; the rest is not read.", folder)
        )
    yield from names[:FILES_MAX]
