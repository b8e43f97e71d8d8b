"""Where everything stands, in a few numbers."""

from __future__ import annotations

from dataclasses import dataclass

from meterpost.access.model import Scope
from meterpost.operations.registry import Context, operation
from meterpost.storage.postgres import listing


@dataclass(frozen=True)
class Status:
    """Nothing to say."""


@operation(
    "status",
    scope=Scope.TRANSACTIONS_READ,
    summary="Events, closes, transactions, exceptions and audit log in numbers.",
)
def status(context: Context, asked: Status) -> object:
    """From PostgreSQL alone; `engine.status` tells how the engine is."""
    app = context.app
    with app.database.begin() as connection:
        figures = listing.figures(connection)
        applied = listing.applied_configuration(connection)
    settings = app.workspace.settings
    digest = app.workspace.digest()
    return {
        "installation": settings.installation,
        "environment": settings.environment,
        "user": context.principal.user,
        "roles": sorted(context.principal.roles),
        "config_digest": digest,
        "config_applied": applied is not None and applied["digest"] == digest,
        "figures": figures,
    }
