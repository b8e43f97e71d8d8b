"""What operations need of a connection beside its poster."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Sequence

from meterpost.core.errors import NotFound
from meterpost.operations.registry import Context
from meterpost.posting.context import Context as PostingContext
from meterpost.posting.decisions import PostingDecisions
from meterpost.posting.service import Poster
from meterpost.storage.postgres.posting import PostgresPostingStores


def connection_names(context: Context, asked: str | None) -> Sequence[str]:
    """The one asked for, or all of this environment. Raises: NotFound."""
    app = context.app
    if asked is not None:
        return [app.connection(asked).name]
    environment = app.workspace.settings.environment
    names = [each.name for each in app.workspace.connections if each.environment == environment]
    if not names:
        raise NotFound(
            f"No connection is configured for the environment {environment}.",
            hint="Write one into connections/.",
        )
    return names


def decisions(context: Context, connection: str) -> PostingDecisions:
    """Decisions by people about one connection's transactions."""
    app = context.app
    return PostingDecisions(
        PostingContext(
            app.connection(connection),
            app.connector(connection),
            PostgresPostingStores(app.database),
            app.clock,
            f"{socket.gethostname()}:{os.getpid()}:{connection}:decisions",
        )
    )


def new_poster(context: Context, connection: str) -> Poster:
    """A poster of its own, beside those that may be running in this process."""
    return context.app.poster(connection, number=1 + secrets.randbelow(1_000_000_000))
