"""The one place that wires rooms, stores and connectors together.

`Application` is opened over a workspace and a database; parts are made when first asked for.
Only the engine (or a command that finds none running) opens the event store.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import cached_property

from meterpost.access.service import AccessService
from meterpost.audit.checkpoints import CheckpointFile
from meterpost.audit.service import Sealer
from meterpost.config.secret import resolve_secret
from meterpost.config.snapshot import Snapshot, from_snapshot
from meterpost.config.workspace import Places, Workspace
from meterpost.connectors import registry
from meterpost.core.clock import Clock, SystemClock
from meterpost.core.errors import Conflict, InvalidInput, NotFound
from meterpost.core.ids import CloseId, Ids, PriceId, RandomIds, TargetId
from meterpost.ingest.checks import Checks
from meterpost.ingest.personal import PersonalKeys
from meterpost.ingest.service import Intake
from meterpost.masterdata import service as masterdata
from meterpost.masterdata.snapshot import MasterdataSnapshot
from meterpost.metering.expressions import field_names, fields_read
from meterpost.metering.model import Meter
from meterpost.metering.ports import EventStore
from meterpost.metering.service import Metering
from meterpost.posting.config import ConnectionConfig, require_same_environment
from meterpost.posting.connector import ErpConnector
from meterpost.posting.model import Precision
from meterpost.posting.service import Poster
from meterpost.rating.model import Price
from meterpost.reconcile.ledgers import Ledgers, RecomputedRow
from meterpost.reconcile.proof import Prover
from meterpost.reconcile.service import Reconciler
from meterpost.reconcile.tracer import Tracer
from meterpost.staging.review import Review
from meterpost.staging.service import Staging
from meterpost.storage.duckdb.store import DuckDbEventStore
from meterpost.storage.embedded import EmbeddedPostgres
from meterpost.storage.postgres.access import PostgresAccessStore
from meterpost.storage.postgres.audit import PostgresAuditStore
from meterpost.storage.postgres.closes import PostgresCloses
from meterpost.storage.postgres.database import Database
from meterpost.storage.postgres.journal import PostgresJournal
from meterpost.storage.postgres.journal_writer import JournalWriter
from meterpost.storage.postgres.ledgers import PostgresLedgers
from meterpost.storage.postgres.masterdata import PostgresMasterdata
from meterpost.storage.postgres.posting import PostgresPostingStores
from meterpost.storage.postgres.reconcile import PostgresReconcile
from meterpost.storage.postgres.relay import PostgresRelay
from meterpost.storage.postgres.staging import PostgresStaging
from meterpost.storage.postgres.tokens import PostgresTokenVault
from meterpost.storage.postgres.trace import PostgresTraces
from meterpost.workflows.close import Closing, ClosingParts, Configuration
from meterpost.workflows.model import Workflow

_KEY_BYTES = 32


class Application:
    """Everything meterpost can do, over one workspace and one database."""

    def __init__(
        self,
        workspace: Workspace,
        dsn: str,
        *,
        clock: Clock | None = None,
        ids: Ids | None = None,
        name: str = "meterpost",
    ) -> None:
        self.workspace = workspace
        self.clock = clock or SystemClock()
        self.ids = ids or RandomIds()
        self.database = Database(
            dsn, pool_size=workspace.settings.database.pool_size, application=name
        )
        self._events: DuckDbEventStore | None = None
        self._connectors: dict[str, ErpConnector] = {}
        # Posters and closes ask for connectors from threads of their own.
        self._opening = threading.Lock()

    def close(self) -> None:
        """Let go of files and connections."""
        for connector in self._connectors.values():
            connector.close()
        self._connectors.clear()
        if self._events is not None:
            self._events.close()
            self._events = None
        self.database.dispose()

    @property
    def places(self) -> Places:
        """Where the workspace keeps what."""
        return self.workspace.places

    # Ingest

    @cached_property
    def vault(self) -> PostgresTokenVault:
        """Random tokens in place of personal values."""
        return PostgresTokenVault(self.database, PersonalKeys(self._personal_secret()))

    def _personal_secret(self) -> bytes:
        """The key of personal values: made once, kept beside the data (0600), in every backup."""
        path = self.places.state / "personal.key"
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            with open(path, "xb", opener=_private) as file:
                file.write(secrets.token_bytes(_KEY_BYTES))
        except FileExistsError:
            pass
        return path.read_bytes()

    def checks(self) -> Checks:
        """The checks of events at the door, by this configuration."""
        metered: dict[str, set[str]] = {}
        for meter in self.workspace.meters:
            fields = metered.setdefault(meter.event_type, set())
            fields.update(field_names(fields_read(meter)))
        return Checks(
            self.workspace.events,
            {type_: tuple(sorted(fields)) for type_, fields in metered.items()},
            limits=self.workspace.settings.edge.limits,
        )

    def journal_writer(self) -> JournalWriter:
        """A writer that is not started yet."""
        return JournalWriter(self.database, ids=self.ids)

    def intake(self, writer: JournalWriter) -> Intake:
        """The way in for events, over a writer."""
        return Intake(self.checks(), writer, self.vault)

    @cached_property
    def journal(self) -> PostgresJournal:
        """Accepted events in order."""
        return PostgresJournal(self.database)

    # Metering

    @property
    def events(self) -> DuckDbEventStore:
        """The event store, opened on first use by this process alone.

        Raises: Conflict naming the process that has it open.
        """
        if self._events is None:
            self.places.state.mkdir(mode=0o700, parents=True, exist_ok=True)
            engine = self.workspace.settings.engine
            self._events = DuckDbEventStore(
                self.places.state,
                memory_limit_mb=_megabytes(engine.memory_limit),
                threads=engine.threads,
            )
            self._bind(self._events)
            self._events.apply_meters(self.workspace.meters)
        return self._events

    def _bind(self, store: EventStore) -> None:
        if store.position() is None:
            end = self.journal.end()
            store.bind(end.incarnation)

    @property
    def metering(self) -> Metering:
        """Draining and relaying."""
        relay = PostgresRelay(self.database, self.clock)
        return Metering(self.journal, self.events, relay)

    # Master data

    @contextmanager
    def masterdata_store(self) -> Iterator[PostgresMasterdata]:
        """Master data in one transaction."""
        with self.database.begin() as connection:
            yield PostgresMasterdata(connection)

    def masterdata_snapshot(self, rev: int | None = None) -> MasterdataSnapshot:
        """Master data as known at a revision (None: now)."""
        with self.database.snapshot() as connection:
            return masterdata.snapshot(PostgresMasterdata(connection), rev)

    # Closes, staging

    @cached_property
    def staging(self) -> Staging:
        """Proposals into staged transactions."""
        return Staging(PostgresStaging(self.database), self.clock)

    @cached_property
    def review(self) -> Review:
        """Decisions by people."""
        return Review(PostgresStaging(self.database), self.clock)

    @cached_property
    def closes(self) -> PostgresCloses:
        """Closes and usage records."""
        return PostgresCloses(self.database)

    @property
    def closing(self) -> Closing:
        """Closing periods; opens the event store."""
        settings = self.workspace.settings
        return Closing(
            ClosingParts(
                stores=self.closes,
                events=self.events,
                staging=self.staging,
                clock=self.clock,
                installation=settings.installation,
                environment=settings.environment,
                drain=self._drain,
                snapshot=self.masterdata_snapshot,
                configuration=stored_configuration,
                precision=lambda target: self.precision(TargetId(target)),
            )
        )

    def _drain(self, on_progress: Callable[[str, int, int | None], None]) -> None:
        self.metering.drain(lambda report: on_progress("events", report.accepted, None))

    def configuration(self, workflow: str) -> Configuration:
        """The present configuration of a workflow.

        Raises: NotFound naming the workflows there are.
        """
        return _configuration(self.workspace.snapshot(), self.workflow(workflow))

    def workflow(self, name: str) -> Workflow:
        """A workflow of the workspace.

        Raises: NotFound.
        """
        for workflow in self.workspace.workflows:
            if workflow.name == name:
                return workflow
        known = ", ".join(workflow.name for workflow in self.workspace.workflows) or "none"
        raise NotFound(f"There is no workflow {name!r}.", hint=f"Configured: {known}.")

    # Posting

    def connection(self, name: str) -> ConnectionConfig:
        """A configured connection of this environment.

        Raises: NotFound, NotAllowed.
        """
        for connection in self.workspace.connections:
            if connection.name == name:
                require_same_environment(connection, self.workspace.settings.environment)
                return connection
        known = ", ".join(each.name for each in self.workspace.connections) or "none"
        raise NotFound(f"There is no connection {name!r}.", hint=f"Configured: {known}.")

    def connector(self, name: str) -> ErpConnector:
        """The opened connector of a connection, made once per process."""
        with self._opening:
            if name not in self._connectors:
                config = self.connection(name)
                values = {
                    key: resolve_secret(reference, self.workspace.root).reveal()
                    for key, reference in config.secrets.items()
                }
                self._connectors[name] = registry.open_erp(config, values)
            return self._connectors[name]

    def precision(self, target: TargetId) -> Precision:
        """What the target's fields keep."""
        return self.connector(target).capabilities.precision

    def poster(self, connection: str, *, number: int = 0) -> Poster:
        """A poster for one connection; ``number`` tells posters of one process apart."""
        return Poster(
            self.connection(connection),
            self.connector(connection),
            PostgresPostingStores(self.database),
            self.clock,
            poster=f"{socket.gethostname()}:{os.getpid()}:{connection}:{number}",
        )

    # People and proof

    @cached_property
    def access(self) -> AccessService:
        """Users, roles, keys."""
        return AccessService(PostgresAccessStore(self.database))

    @cached_property
    def audit_store(self) -> PostgresAuditStore:
        """Audit entries and their seals."""
        return PostgresAuditStore(self.database)

    @cached_property
    def checkpoints(self) -> CheckpointFile:
        """The file of checkpoints that auditors keep a copy of."""
        return CheckpointFile(self.places.checkpoints)

    @cached_property
    def sealer(self) -> Sealer:
        """Seals audit entries."""
        return Sealer(self.audit_store, self.checkpoints)

    # Reconcile

    @cached_property
    def reconciler(self) -> Reconciler:
        """Receipts against what the ERPs hold."""
        return Reconciler(PostgresReconcile(self.database), self.clock)

    @property
    def tracer(self) -> Tracer:
        """The chain of any reference; opens the event store."""
        return Tracer(PostgresTraces(self.database), self.events, self._meters_of_close, self.vault)

    @property
    def prover(self) -> Prover:
        """Runs closes and lines again; opens the event store."""
        return Prover(
            PostgresTraces(self.database), self.events, self._meters_of_close, _Prices(self)
        )

    @property
    def ledgers(self) -> Ledgers:
        """The four ledgers; opens the event store."""
        return Ledgers(
            PostgresLedgers(self.database),
            self.events,
            self._meters_of_close,
            self._recompute,
            self.workspace.meters,
        )

    def _recompute(self, close: CloseId) -> Iterator[RecomputedRow]:
        for draft in self.closing.recompute(close):
            meter, line, source, subject, start = draft.key
            yield RecomputedRow(meter, line, source, subject, start, draft.quantity)

    def _meters_of_close(self, config_digest: str) -> Mapping[str, Meter]:
        with self.closes.begin() as store:
            content = store.config(config_digest)
        return {meter.id: meter for meter in from_snapshot(content).meters}


class _Prices:
    """`reconcile.proof.PriceBook`: prices as known at a revision, read once per revision."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._snapshots: dict[int, MasterdataSnapshot] = {}

    def price(self, price_id: PriceId, at: datetime, rev: int) -> Price | None:
        """The price in force at a moment as known at a revision."""
        if rev not in self._snapshots:
            self._snapshots[rev] = self._application.masterdata_snapshot(rev)
        return self._snapshots[rev].price(price_id, at)


def stored_configuration(
    digest: str, content: Mapping[str, object], workflow: str
) -> Configuration:
    """A configuration as a close stored it.

    Raises: Conflict when its content does not have its digest any more.
    """
    snapshot = from_snapshot(content)
    if snapshot.digest != digest:
        raise Conflict(f"The stored configuration {digest} has been altered.")
    for each in snapshot.workflows:
        if each.name == workflow:
            return _configuration(snapshot, each)
    raise NotFound(f"The stored configuration {digest} has no workflow {workflow!r}.")


def _configuration(snapshot: Snapshot, workflow: Workflow) -> Configuration:
    return Configuration(
        digest=snapshot.digest,
        content=snapshot.plain(),
        meters={meter.id: meter for meter in snapshot.meters},
        workflow=workflow,
    )


@contextmanager
def database_of(
    workspace: Workspace, on_progress: Callable[[str], None] | None = None
) -> Iterator[str]:
    """The URL of the workspace's database; an embedded server is started for the time where
    none is running, and left alone where one is.
    """
    url = workspace.settings.database.url
    if url is not None:
        yield resolve_secret(url, workspace.root).reveal()
        return
    with EmbeddedPostgres(workspace.places.postgres, on_progress=on_progress) as server:
        yield server.dsn()


@contextmanager
def open_application(
    workspace: Workspace,
    *,
    name: str = "meterpost",
    migrate: bool = True,
    on_progress: Callable[[str], None] | None = None,
) -> Iterator[Application]:
    """The application over the workspace's own database, closed on leaving."""
    with database_of(workspace, on_progress) as dsn:
        application = Application(workspace, dsn, name=name)
        try:
            if migrate and workspace.settings.database.embedded:
                application.database.migrate()
            yield application
        finally:
            application.close()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _megabytes(text: str) -> int:
    """``512MB`` or ``2GB`` as megabytes."""
    number = int(text.rstrip("MGiB"))
    if text.endswith(("GB", "GiB")):
        return number * 1024
    if text.endswith(("MB", "MiB")):
        return number
    raise InvalidInput(f"{text!r} is not a size such as 512MB.")
