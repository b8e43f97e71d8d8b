"""The audit log: read it, verify it, take it away."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from meterpost.access.model import Scope
from meterpost.audit.export import export
from meterpost.audit.service import verify
from meterpost.core.errors import Conflict, NotFound
from meterpost.operations.arguments import Cursor, Limit, Name, number_after, page
from meterpost.operations.registry import Context, operation
from meterpost.storage.postgres import listing


@dataclass(frozen=True)
class ListAudit:
    """Filters are combined: ``action`` such as ``transaction.approved``."""

    action: Name | None = None
    actor: Name | None = None
    object_kind: Name | None = None
    object_id: Name | None = None
    cursor: Cursor | None = None
    limit: Limit = 100


@operation("audit.list", scope=Scope.AUDIT_READ, summary="Who decided what, newest first.")
def list_audit(context: Context, asked: ListAudit) -> object:
    """``seal`` is the seal over an entry; null while it is the unsealed tail."""
    wanted = listing.AuditFilter(asked.action, asked.actor, asked.object_kind, asked.object_id)
    with context.app.database.begin() as connection:
        rows = listing.audit_entries(
            connection, wanted, number_after(asked.cursor), asked.limit + 1
        )
    return page(rows, asked.limit, lambda row: row["sequence"])


@dataclass(frozen=True)
class VerifyAudit:
    """The whole log."""


@operation(
    "audit.verify",
    scope=Scope.AUDIT_READ,
    summary="Whether the audit log is what was sealed, and the checkpoints name the same seals.",
)
def verify_audit(context: Context, asked: VerifyAudit) -> object:
    """``intact`` is false with any problem; keep a copy of the checkpoints elsewhere."""
    app = context.app
    report = verify(app.audit_store, app.checkpoints)
    return {
        "intact": report.intact,
        "entries": report.entries,
        "seals": report.seals,
        "unsealed": report.unsealed,
        "checkpoints": report.checkpoints,
        "problems": report.problems,
    }


@dataclass(frozen=True)
class ExportAudit:
    """``path`` is a new file on this machine."""

    path: Annotated[str, Field(min_length=1, max_length=4_096)]


@operation(
    "audit.export",
    scope=Scope.AUDIT_READ,
    summary="Write the audit log to a file that can be verified without this database.",
    local=True,
)
def export_audit(context: Context, asked: ExportAudit) -> object:
    """Raises Conflict where the file exists."""
    path = Path(asked.path)
    try:
        entries = export(context.app.audit_store, path)
    except FileExistsError as exc:
        raise Conflict(f"{path} exists already.", hint="Choose a new name.") from exc
    except OSError as exc:
        raise NotFound(f"{path} cannot be written: {exc.strerror}.") from exc
    return {"path": str(path), "entries": entries, "bytes": path.stat().st_size}
