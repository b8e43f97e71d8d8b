"""The configuration: check the files, see what they would change, make them the ones in force."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from meterpost.access.model import Scope
from meterpost.audit.model import AuditEntry
from meterpost.config import Workspace, check, open_workspace
from meterpost.connectors import registry as connectors
from meterpost.core.errors import Conflict
from meterpost.operations.registry import Context, operation
from meterpost.storage.postgres.listing import applied_configuration


@dataclass(frozen=True)
class CheckConfiguration:
    """The workspace's files as they are now."""


@operation(
    "config.check",
    scope=Scope.USAGE_READ,
    summary="Everything that is wrong with the workspace's files, with file and line.",
)
def check_configuration(context: Context, asked: CheckConfiguration) -> object:
    """Nothing is changed, nothing outside is asked."""
    problems = check(context.app.workspace.root, connectors=connectors.connector_names())
    return {"ok": not problems, "problems": problems}


@dataclass(frozen=True)
class PlanConfiguration:
    """The workspace's files as they are now."""


@operation(
    "config.plan",
    scope=Scope.USAGE_READ,
    summary="What applying the workspace's files would change.",
)
def plan_configuration(context: Context, asked: PlanConfiguration) -> object:
    """Compared with what was applied last; before the first time, everything is new."""
    return _plan(context, _files(context))


@dataclass(frozen=True)
class ApplyConfiguration:
    """``digest``: apply only if the files still are those that were planned."""

    digest: str | None = None


@operation(
    "config.apply",
    scope=Scope.MASTERDATA_WRITE,
    summary="Make the workspace's meters and workflows the ones in force.",
    needs_events=True,
)
def apply_configuration(context: Context, asked: ApplyConfiguration) -> object:
    """The configuration is stored with the actor's name: nobody approves money that was made
    with what they themselves brought in. Stored events are measured for new meters.
    """
    app = context.app
    workspace = _files(context)
    plan = _plan(context, workspace)
    snapshot = workspace.snapshot()
    if asked.digest is not None and asked.digest != snapshot.digest:
        raise Conflict("The files have changed since they were planned.", hint="Plan again.")
    sentences = app.metering.apply(workspace.meters)
    now = app.clock.now()
    with app.closes.begin() as store:
        store.remember_config(snapshot.digest, snapshot.plain(), context.principal.user, now)
        store.record_audit(
            AuditEntry(
                now,
                context.principal.user,
                "config.applied",
                "config",
                snapshot.digest,
                {"changes": plan["changes"]},
                context.correlation_id,
            ),
        )
    app.workspace = workspace
    return {**plan, "applied": True, "meters": sentences}


def _files(context: Context) -> Workspace:
    return open_workspace(context.app.workspace.root, connectors=connectors.connector_names())


def _plan(context: Context, workspace: Workspace) -> dict[str, Any]:
    snapshot = workspace.snapshot()
    with context.app.database.begin() as connection:
        applied = applied_configuration(connection)
    before: Mapping[str, Any] = applied["content"] if applied else {}
    changes = list(_changes(before, snapshot.plain()))
    return {
        "digest": snapshot.digest,
        "applied_digest": applied["digest"] if applied else None,
        "applied_by": applied["actor"] if applied else None,
        "applied_at": applied["at"] if applied else None,
        "changes": changes,
    }


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[dict[str, object]]:
    for kind, key in (("meters", "id"), ("workflows", "name")):
        old = _by(before.get(kind, ()), key)
        new = _by(after.get(kind, ()), key)
        for name in sorted({*old, *new}):
            was, now = old.get(name), new.get(name)
            if was == now:
                continue
            what = "added" if was is None else "removed" if now is None else "changed"
            fields = {
                field: {"old": (was or {}).get(field), "new": (now or {}).get(field)}
                for field in sorted({*(was or {}), *(now or {})})
                if (was or {}).get(field) != (now or {}).get(field)
            }
            yield {
                "kind": kind.removesuffix("s"),
                "name": name,
                "change": what,
                "fields": fields if what == "changed" else {},
            }


def _by(items: Sequence[Mapping[str, Any]], key: str) -> dict[str, Mapping[str, Any]]:
    return {str(item[key]): item for item in items}
