"""What no single file can know: names that point to nothing, doubles, expressions, schemas."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import jsonschema_rs

from meterpost.access.model import Role, Scope, roles_with
from meterpost.config.workspace import Places, Workspace, WorkspaceFiles, read_files
from meterpost.config.yamlfile import Located
from meterpost.config.yamltree import Key
from meterpost.core.errors import InvalidInput
from meterpost.core.period import zone_info
from meterpost.core.problem import Problem
from meterpost.ingest.model import EventType, FileMapping
from meterpost.metering.expressions import meter_problems
from meterpost.metering.model import Meter
from meterpost.workflows.model import Workflow

T = TypeVar("T")

#: What can start a workflow.
TRIGGERS = ("period_close",)


def check(
    root: Path,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, str] | None = None,
    connectors: Collection[str] | None = None,
) -> list[Problem]:
    """Everything that is wrong with a workspace, in the order of its files; empty when nothing.

    ``connectors`` are the names of installed connectors; None leaves them unchecked.
    """
    return _problems(read_files(root, environ, overrides), connectors)


def open_workspace(
    root: Path,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, str] | None = None,
    connectors: Collection[str] | None = None,
) -> Workspace:
    """The workspace, checked whole.

    Raises: InvalidInput with every problem of every file.
    """
    files = read_files(root, environ, overrides)
    problems = _problems(files, connectors)
    if problems or files.settings is None:
        raise InvalidInput(f"The workspace {root} cannot be used:", problems)
    return Workspace(
        Places(root),
        files.settings.value,
        tuple(each.value for each in files.events),
        tuple(each.value for each in files.meters),
        tuple(each.value for each in files.workflows),
        tuple(each.value for each in files.connections),
        tuple(each.value for each in files.mappings),
    )


def _problems(files: WorkspaceFiles, connectors: Collection[str] | None) -> list[Problem]:
    checks = _Checks(files, connectors)
    return [
        *files.problems,
        *checks.doubles(),
        *(problem for each in files.events for problem in _schema_problems(each)),
        *(problem for each in files.meters for problem in checks.meter(each)),
        *checks.connections(),
        *(problem for each in files.workflows for problem in checks.workflow(each)),
        *checks.shared_meters(),
        *(problem for each in files.mappings for problem in checks.mapping(each)),
    ]


class _Checks:
    def __init__(self, files: WorkspaceFiles, connectors: Collection[str] | None) -> None:
        self._files = files
        self._connectors = connectors
        self._types = [each.value.type for each in files.events]
        self._meters = [str(each.value.id) for each in files.meters]
        self._targets = {str(each.value.name): each.value for each in files.connections}

    def doubles(self) -> list[Problem]:
        files = self._files
        return [
            *_doubled(files.events, "type", "event type"),
            *_doubled(files.meters, "id", "meter"),
            *_doubled(files.workflows, "name", "workflow"),
            *_doubled(files.connections, "name", "connection"),
            *_doubled(files.mappings, "name", "mapping"),
        ]

    def meter(self, meter: Located[Meter]) -> list[Problem]:
        found = [
            Problem(
                problem.code,
                f"Meter {meter.value.id}"
                + (f", `{problem.where}`: " if problem.where else ": ")
                + problem.sentence,
                meter.where(*_steps(problem.where)),
                problem.hint,
            )
            for problem in meter_problems(meter.value)
        ]
        return found + self._known_type(meter, "event_type", meter.value.event_type)

    def mapping(self, mapping: Located[FileMapping]) -> list[Problem]:
        found = self._known_type(mapping, "type", mapping.value.type)
        if mapping.value.time.zone is not None:
            try:
                zone_info(mapping.value.time.zone)
            except ValueError as exc:
                found.append(Problem("unknown-zone", f"{exc}.", mapping.where("time", "zone")))
        return found

    def connections(self) -> list[Problem]:
        if self._connectors is None:
            return []
        return [
            Problem(
                "unknown-connector",
                f"There is no connector {each.value.connector!r}.",
                each.where("connector"),
                _suggestion(each.value.connector, sorted(self._connectors), "Installed"),
            )
            for each in self._files.connections
            if each.value.connector not in self._connectors
        ]

    def workflow(self, workflow: Located[Workflow]) -> list[Problem]:
        value = workflow.value
        found = [
            Problem(
                "unknown-meter",
                f"Workflow {value.name} names the meter {str(meter)!r}, which is not defined.",
                workflow.where("meters", n),
                _suggestion(str(meter), self._meters, "Meters"),
            )
            for n, meter in enumerate(value.meters)
            if str(meter) not in self._meters and "meters" not in self._files.incomplete
        ]
        if not value.meters:
            found.append(
                Problem(
                    "missing", f"Workflow {value.name} lists no meter.", workflow.where("meters")
                )
            )
        if value.trigger not in TRIGGERS:
            found.append(
                Problem(
                    "not-allowed",
                    f"Nothing triggers {value.trigger!r}.",
                    workflow.where("trigger"),
                    f"Triggers: {', '.join(TRIGGERS)}.",
                )
            )
        return found + self._target(workflow) + _approval(workflow)

    def shared_meters(self) -> list[Problem]:
        found: list[Problem] = []
        first: dict[tuple[str, str], Located[Workflow]] = {}
        for workflow in self._files.workflows:
            for n, meter in enumerate(workflow.value.meters):
                other = first.setdefault((workflow.value.purpose, str(meter)), workflow)
                if other.value.name != workflow.value.name:
                    found.append(
                        Problem(
                            "claimed-twice",
                            f"Workflows {other.value.name} and {workflow.value.name} both serve "
                            f"the purpose {workflow.value.purpose!r} with the meter {meter}, and "
                            "usage serves a purpose once.",
                            workflow.where("meters", n),
                            "Take the meter out of one, or give it a purpose of its own.",
                        )
                    )
        return found

    def _target(self, workflow: Located[Workflow]) -> list[Problem]:
        name = str(workflow.value.target)
        connection = self._targets.get(name)
        if connection is None:
            if "connections" in self._files.incomplete:
                return []
            return [
                Problem(
                    "unknown-connection",
                    f"Workflow {workflow.value.name} posts to {name!r}, which is no connection.",
                    workflow.where("target"),
                    _suggestion(name, sorted(self._targets), "Connections"),
                )
            ]
        settings = self._files.settings
        if settings is None or connection.environment == settings.value.environment:
            return []
        return [
            Problem(
                "other-environment",
                f"Workflow {workflow.value.name} posts to {name}, a connection of the environment "
                f"{connection.environment!r}; this installation is "
                f"{settings.value.environment!r}.",
                workflow.where("target"),
                "Credentials do not cross environments: use a connection of this one.",
            )
        ]

    def _known_type(self, item: Located[Any], key: str, name: str) -> list[Problem]:
        if name in self._types or "events" in self._files.incomplete:
            return []
        return [
            Problem(
                "unknown-event-type",
                f"The event type {name!r} is not defined in events/.",
                item.where(key),
                _suggestion(name, self._types, "Defined"),
            )
        ]


def _approval(workflow: Located[Workflow]) -> list[Problem]:
    policy = workflow.value.approval
    found = []
    able = roles_with(Scope.TRANSACTIONS_APPROVE)
    if policy.role not in able:
        known = policy.role in list(Role)
        found.append(
            Problem(
                "not-allowed",
                f"The role {policy.role!r} " + ("may not approve." if known else "does not exist."),
                workflow.where("approval", "role"),
                f"Roles that may approve: {', '.join(able)}.",
            )
        )
    for key in ("automatic_up_to", "four_eyes_from"):
        amount = getattr(policy, key)
        if amount is not None and amount < 0:
            found.append(
                Problem(
                    "invalid",
                    f"`approval.{key}` is {amount}; a limit is not negative.",
                    workflow.where("approval", key),
                )
            )
    return found


def _schema_problems(event: Located[EventType]) -> list[Problem]:
    if event.value.schema is None:
        return []
    try:
        jsonschema_rs.validator_for(dict(event.value.schema), retriever=_refuse)
    except (ValueError, TypeError) as exc:
        steps = tuple(getattr(exc, "instance_path", ()))
        sentence = str(getattr(exc, "message", exc)).strip().splitlines()[0].rstrip(".")
        return [
            Problem(
                "schema",
                f"The JSON Schema of {event.value.type} cannot be used: {sentence}.",
                event.where("schema", *steps),
            )
        ]
    return []


def _refuse(uri: str) -> dict[str, Any]:
    raise ValueError(f"{uri} is not part of the schema; references stay inside it")


def _doubled(items: Sequence[Located[Any]], key: str, word: str) -> list[Problem]:
    first: dict[str, Located[Any]] = {}
    found = []
    for item in items:
        name = str(getattr(item.value, key))
        other = first.setdefault(name, item)
        if other is not item:
            found.append(
                Problem(
                    "defined-twice",
                    f"The {word} {name} is defined twice, first at {other.where(key)}.",
                    item.where(key),
                    "Rename or remove one.",
                )
            )
    return found


def _suggestion(word: str, known: Sequence[str], label: str) -> str:
    close = get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"Did you mean {close[0]!r}?"
    shown = ", ".join(known[:10]) + (", …" if len(known) > 10 else "")
    return f"{label}: {shown or 'none'}."


def _steps(where: str) -> tuple[Key, ...]:
    return tuple(where.split(".")) if where else ()
