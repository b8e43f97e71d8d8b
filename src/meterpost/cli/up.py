"""`meterpost up`, `meterpost status`, and the processes that `up` supervises."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import psycopg
import typer
from rich.console import Console
from rich.table import Table

from meterpost.cli.command import DEBUG, WORKSPACE, help_of
from meterpost.cli.failures import exit_code, tell
from meterpost.config import Workspace, find_workspace, open_workspace, resolve_secret
from meterpost.config.settings import variable_of
from meterpost.core.crashpoints import ENVIRONMENT_VARIABLE as CRASHPOINT
from meterpost.core.errors import InvalidInput, MeterpostError, NeedsPerson, Transient
from meterpost.engine.edge import EdgeAddress, require_free
from meterpost.engine.process import STOP_WITHIN_S
from meterpost.engine.run_dir import RunDirectory
from meterpost.engine.status import installation_status
from meterpost.storage.embedded import EmbeddedPostgres, require_durable
from meterpost.storage.postgres.database import Database
from meterpost.supervise import (
    ChildSpec,
    ProcessChild,
    ServerChild,
    Supervised,
    Supervisor,
    WorkspaceLock,
    http_probe,
    ready_file,
)

#: The engine may have to replay a large log of its store before it is ready.
_ENGINE_READY_WITHIN_S = 300.0
_OUTPUT_BYTES_MAX = 5_000_000

Say = Callable[[str], None]


def up(
    root: Path,
    *,
    migrate: bool = False,
    overrides: Mapping[str, str] | None = None,
    crash_once: Mapping[str, str] | None = None,
    say: Say = print,
) -> int:
    """The exit code, after all processes have stopped: 0 when asked to.

    Runs the embedded PostgreSQL (unless the workspace names a server), the engine and the edge.
    The embedded database is migrated before the others start; a server given by URL only with
    ``migrate``. ``crash_once`` (tests): child → crash point, for the child's first run only.

    Raises: InvalidInput for a workspace that does not pass `check`; NeedsPerson for a server
    that may lose data or lacks a migration; Conflict where `up` runs already, or something else
    listens at the edge's address.
    """
    workspace = open_workspace(root, overrides=overrides)
    settings, places = workspace.settings, workspace.places
    run_directory = RunDirectory(places.sockets)
    run_directory.prepare()
    places.logs.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Who runs here already is a better answer than whose port is taken.
    with WorkspaceLock(run_directory.supervisor_lock):
        pass
    address = EdgeAddress(settings.edge.host, settings.edge.port)
    require_free(address)
    children: list[Supervised] = []
    if settings.database.embedded:
        children.append(ServerChild("postgres", _MigratedPostgres(places.postgres, say)))
    else:
        _prepare_server(workspace, migrate, say)
    environment = _environment(overrides or {})
    crashes = crash_once or {}
    children += [
        _child(
            workspace,
            "engine",
            environment,
            crashes.get("engine"),
            ready=ready_file(run_directory.engine_ready),
            clears=(run_directory.engine_ready,),
            ready_within_s=_ENGINE_READY_WITHIN_S,
            grace_s=STOP_WITHIN_S + 15.0,
        ),
        _child(
            workspace,
            "edge",
            environment,
            crashes.get("edge"),
            ready=http_probe(f"{address.url}/healthz"),
            ready_within_s=60.0,
            grace_s=30.0,
        ),
    ]
    told = False

    def on_event(line: str) -> None:
        nonlocal told
        say(line)
        if line.startswith("edge is ready") and not told:
            told = True
            say(where_what_runs(workspace, address, run_directory))

    supervisor = Supervisor(
        children,
        lock=run_directory.supervisor_lock,
        state=run_directory.supervisor_state,
        on_event=on_event,
    )
    return supervisor.run()


def where_what_runs(workspace: Workspace, address: EdgeAddress, run: RunDirectory) -> str:
    """A short table for people: addresses, sockets, logs."""
    places = workspace.places
    table = Table(box=None, pad_edge=False)
    for heading in ("process", "where", "log"):
        table.add_column(heading, overflow="fold")
    if workspace.settings.database.embedded:
        table.add_row("postgres", str(places.postgres), f"{places.postgres}.log")
    else:
        table.add_row("postgres", str(workspace.settings.database.url), "the server's own")
    table.add_row("engine", str(run.socket() or "not started yet"), str(places.logs / "engine.log"))
    table.add_row("edge", f"{address.url}/v1/events", str(places.logs / "edge.log"))
    console = Console(width=200, color_system=None)
    with console.capture() as captured:
        console.print(table)
    text = "\n".join(line.rstrip() for line in captured.get().splitlines())
    return f"{text}\nStop with Ctrl-C or SIGTERM; the same command goes on where it was."


class _MigratedPostgres(EmbeddedPostgres):
    """The embedded server, ready once its schema is this version's."""

    def __init__(self, data_dir: Path, say: Say) -> None:
        super().__init__(data_dir, on_progress=say)
        self._say = say

    def start(self) -> str:
        """The URL of the application's database, with the schema of this version."""
        dsn = super().start()
        database = Database(dsn, pool_size=1, application="meterpost-up")
        try:
            steps = database.migrate()
        finally:
            database.dispose()
        if steps:
            self._say(f"The database's schema is now at {steps[-1]}")
        return dsn


def _prepare_server(workspace: Workspace, migrate: bool, say: Say) -> None:
    """Check a server given by URL: durable, and migrated."""
    reference = workspace.settings.database.url
    assert reference is not None
    database = Database(
        resolve_secret(reference, workspace.root).reveal(), application="meterpost-up"
    )
    try:
        with database.raw_connection() as raw:
            require_durable(raw)
        if migrate:
            steps = database.migrate()
            if steps:
                say(f"The database's schema is now at {steps[-1]}")
        elif not database.schema_is_current():
            raise NeedsPerson(
                "The database's schema is not this version's.",
                hint="Make a backup, then run `meterpost db migrate`, or `meterpost up --migrate`.",
            )
    except psycopg.OperationalError as exc:
        raise Transient(f"The database failed: {' '.join(str(exc).split())}.") from exc
    finally:
        database.dispose()


class _CrashingOnce(ProcessChild):
    """A child whose first run has a crash point; those after it are ordinary."""

    def __init__(self, spec: ChildSpec, ordinary: ChildSpec) -> None:
        super().__init__(spec)
        self._ordinary = ordinary

    def launch(self) -> None:
        """Start it; from the second time on without the crash point."""
        super().launch()
        self._spec = self._ordinary


def _child(
    workspace: Workspace,
    name: str,
    environment: Mapping[str, str],
    crashpoint: str | None,
    **how: Any,
) -> ProcessChild:
    """A process of ours; what it prints before its logging is set up goes to NAME.out."""
    logs = workspace.places.logs
    output = logs / f"{name}.out"
    if output.exists() and output.stat().st_size > _OUTPUT_BYTES_MAX:
        output.replace(logs / f"{name}.out.1")
    argv = [sys.executable, "-m", "meterpost", name, "--workspace", str(workspace.root)]
    argv += ["--log-file", str(logs / f"{name}.log")]
    spec = ChildSpec(name, argv, env=environment, log=output, **how)
    if crashpoint is None:
        return ProcessChild(spec)
    crashing = {**environment, CRASHPOINT: crashpoint}
    return _CrashingOnce(ChildSpec(name, argv, env=crashing, log=output, **how), spec)


def _environment(overrides: Mapping[str, str]) -> dict[str, str]:
    """Ours, with the command line's settings as variables, for the children read them again."""
    environment = {key: value for key, value in os.environ.items() if key != CRASHPOINT}
    for name, value in overrides.items():
        environment[variable_of(tuple(name.split(".")))] = value
    return environment


# -- commands ---------------------------------------------------------------------------------

_LogFileOption = Annotated[
    Path | None, typer.Option(help="Write the log there instead of standard error.")
]


_UP_EXAMPLE = """
meterpost up
meterpost up --migrate --set edge.port=9000
"""
_STATUS_EXAMPLE = """
meterpost status
meterpost status --json
"""


def register(app: typer.Typer) -> None:
    """Add the commands of this file to the command line."""
    app.command("up", help=help_of(up_command, _UP_EXAMPLE))(up_command)
    app.command("status", help=help_of(status_command, _STATUS_EXAMPLE))(status_command)
    app.command("engine", hidden=True)(engine_command)
    app.command("edge", hidden=True)(edge_command)


def up_command(
    workspace: WORKSPACE = None,
    migrate: Annotated[
        bool, typer.Option(help="Migrate a database given by URL before starting.")
    ] = False,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="A setting for this run: edge.port=9000.")
    ] = None,
    crash: Annotated[
        list[str] | None,
        typer.Option(hidden=True, help="Tests: CHILD=POINT kills the child's first run there."),
    ] = None,
    debug: DEBUG = False,
) -> None:
    """Run PostgreSQL, the engine and the edge until Ctrl-C or SIGTERM.

    Start it again and it goes on where it was. Logs are in .meterpost/log of the workspace.
    """
    with _failing_clearly(debug=debug):
        code = up(
            find_workspace(workspace),
            migrate=migrate,
            overrides=_pairs("--set", set_ or ()),
            crash_once=_pairs("--crash", crash or ()),
            say=lambda line: typer.echo(line),
        )
    raise typer.Exit(code)


def status_command(
    workspace: WORKSPACE = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    debug: DEBUG = False,
) -> None:
    """Show which processes run, what the engine does, and how far it is behind.

    Ends with 0 when everything is ready, else with 1.
    """
    with _failing_clearly(debug=debug):
        opened = open_workspace(find_workspace(workspace))
        edge = opened.settings.edge
        status = installation_status(
            RunDirectory(opened.places.sockets), EdgeAddress(edge.host, edge.port).url
        )
    if as_json:
        typer.echo(json.dumps(status.to_plain(), indent=1))
    else:
        Console().print(status.table())
        for reason in status.reasons:
            typer.echo(f"- {reason}")
    raise typer.Exit(0 if status.ready else 1)


def engine_command(workspace: WORKSPACE = None, log_file: _LogFileOption = None) -> None:
    """Run the engine alone (`meterpost up` does this)."""
    from meterpost.engine.wiring import engine_process

    with _failing_clearly((MeterpostError,)):
        engine_process(find_workspace(workspace), log_file=log_file)


def edge_command(workspace: WORKSPACE = None, log_file: _LogFileOption = None) -> None:
    """Run the edge alone (`meterpost up` does this)."""
    from meterpost.api.app import http_api
    from meterpost.engine.wiring import edge_process

    with _failing_clearly((MeterpostError,)):
        edge_process(find_workspace(workspace), http_api, log_file=log_file)


@contextmanager
def _failing_clearly(
    kinds: tuple[type[BaseException], ...] = (Exception, KeyboardInterrupt), *, debug: bool = False
) -> Iterator[None]:
    """A failure is a sentence on standard error and the exit code of its class.

    ``kinds``: only those; of anything else the traceback goes to whoever keeps our output.
    """
    try:
        yield
    except kinds as exc:
        if debug:
            traceback.print_exc()
        tell(exc)
        raise typer.Exit(exit_code(exc)) from exc


def _pairs(option: str, texts: list[str] | tuple[()]) -> dict[str, str]:
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise InvalidInput(f"{option} {text!r} is not of the form NAME=VALUE.")
        pairs[name] = value
    return pairs
