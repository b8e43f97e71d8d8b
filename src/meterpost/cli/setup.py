"""A workspace and its configuration: init, check, plan, apply, db."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from meterpost.access.model import Role, scopes_of
from meterpost.bootstrap import database_of, open_application
from meterpost.cli import show
from meterpost.cli.command import command, group
from meterpost.cli.keys import save_token
from meterpost.cli.session import Session
from meterpost.config import check, init_workspace, open_workspace, resolve_secret
from meterpost.config.settings import SETTINGS_FILE
from meterpost.connectors.registry import connector_names
from meterpost.core.canonical import to_plain
from meterpost.core.errors import Conflict, InvalidInput, NotFound
from meterpost.posting.config import SecretReference
from meterpost.storage.embedded import EmbeddedPostgres, upgrade
from meterpost.storage.postgres.database import Database

#: Everything but the approval of money, which somebody else gives (four eyes).
_FIRST_ROLES = (Role.ENGINEER, Role.OPERATOR, Role.REVIEWER, Role.AUDITOR)
_FIRST_ROLE_NAMES = ", ".join(_FIRST_ROLES)


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    command(app, "init", example="meterpost init billing --installation acme --user ada")(init)
    command(app, "check", example="meterpost check")(check_)
    command(app, "plan", example="meterpost plan")(plan)
    command(app, "apply", example="meterpost apply --as ed")(apply)
    db = group(app, "db", "The PostgreSQL database of a workspace.")
    command(db, "migrate", example="meterpost db migrate")(migrate)
    command(db, "upgrade", example="meterpost db upgrade")(upgrade_)
    command(db, "url", example='psql "$(meterpost db url)"')(url)


def init(
    session: Session,
    folder: Annotated[Path, typer.Argument(help="The new workspace's folder.")] = Path(),
    installation: Annotated[
        str, typer.Option(help="Its name, part of every posting key.")
    ] = "meterpost",
    environment: Annotated[
        str, typer.Option(help="sandbox, staging, production, …: keys and connections differ.")
    ] = "sandbox",
    user: Annotated[str, typer.Option(help="The first administrator's id.")] = "admin",
    role: Annotated[
        list[Role] | None,
        typer.Option(help=f"Their further roles (default: {_FIRST_ROLE_NAMES})."),
    ] = None,
    existing: Annotated[
        bool,
        typer.Option("--existing", help="Write no files: set up the workspace that is there."),
    ] = False,
    database_env: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Use the PostgreSQL whose URL this environment variable holds."
        ),
    ] = None,
) -> None:
    """Write a workspace, set up its database, and make the first administrator with a key.

    The workspace is a folder of YAML files that you keep in Git: events, meters, workflows,
    connections and file mappings. The key goes to secrets/keys/USER and is not shown again.
    """
    root = folder.resolve()
    if existing:
        if not (root / SETTINGS_FILE).is_file():
            raise NotFound(f"{root} is no workspace: it has no {SETTINGS_FILE}.")
    else:
        if database_env is not None:
            # Before anything is written: a folder half made would refuse the second try.
            resolve_secret(SecretReference(env=database_env), root)
        init_workspace(root, installation, environment)
        if database_env is not None:
            _use_database(root / SETTINGS_FILE, database_env)
    roles = tuple(role) if role is not None else _FIRST_ROLES
    with open_application(
        open_workspace(root), name="meterpost-init", migrate=False, on_progress=session.bars.note
    ) as application:
        application.database.migrate()
        now = application.clock.now()
        first = application.access.first_administrator(user, user, now, roles)
        principal = application.access.person(first.id)
        made = application.access.create_key(principal, first.id, scopes_of(first.roles), now)
        path = save_token(root, user, made.token)
        application.sealer.seal(now)
    settings = application.workspace.settings
    result = {
        "workspace": str(root),
        "installation": settings.installation,
        "environment": settings.environment,
        "user": first.id,
        "roles": sorted(first.roles),
        "key": made.key.id,
        "key_file": str(path),
    }
    session.show(result, _ready)


def _use_database(settings: Path, variable: str) -> None:
    text = settings.read_text(encoding="utf-8")
    url = f"database:\n  url: {{env: {variable}}}"
    settings.write_text(text.replace("database: embedded", url, 1), encoding="utf-8")


def _ready(result: Mapping[str, Any]) -> None:
    show.say(f"The workspace {result['workspace']} is ready.")
    show.pairs(
        [
            ("administrator", f"{result['user']} ({', '.join(result['roles'])})"),
            ("API key", result["key_file"]),
        ]
    )
    show.say()
    show.say(f"What to do next, in {result['workspace']}:")
    for line in (
        "1. Describe your events, meters and contracts: events/, meters/, masterdata/.",
        "2. meterpost check                       what is wrong, with file and line",
        "3. meterpost apply                       make meters and workflows the ones in force",
        "4. meterpost masterdata import masterdata/*.yaml",
        "5. meterpost up                          run it; or meterpost ingest FILE --mapping NAME",
        "6. meterpost users create NAME --role approver --key",
        "                                         somebody else approves what you close",
        "7. meterpost close run 2026-10           usage, amounts, transactions to review",
    ):
        show.say(f"  {line}")


def check_(session: Session) -> None:
    """Check the workspace's files: everything that is wrong, with file, line and what helps.

    Nothing is changed, no database is needed. Ends with 2 where something is wrong.
    """
    problems = check(session.root, connectors=connector_names())
    session.exit_code = InvalidInputCode if problems else 0
    session.show({"ok": not problems, "problems": to_plain(problems)}, _problems)


#: What a script sees where the files are wrong: the code of invalid input.
InvalidInputCode = 2


def _problems(result: Mapping[str, Any]) -> None:
    for problem in result["problems"]:
        place = f"{problem['where']}: " if problem["where"] else ""
        show.say(f"{place}{problem['sentence']} {problem['hint']}".rstrip())
    n = len(result["problems"])
    show.say("Everything is in order." if result["ok"] else f"{n} problem{'s' * (n != 1)}.")


def plan(session: Session) -> None:
    """Show what `apply` would change: meters and workflows added, changed and removed."""
    session.show(session.call("config.plan"), _plan)


def apply(
    session: Session,
    digest: Annotated[
        str | None, typer.Option(help="Only if the files are those with this digest (see plan).")
    ] = None,
) -> None:
    """Make the workspace's meters and workflows the ones in force, in your name.

    Nobody approves money that was made with a configuration they brought in themselves. Stored
    events are measured for new meters.
    """
    session.show(session.call("config.apply", digest=digest), _plan)


def _plan(result: Mapping[str, Any]) -> None:
    for change in result["changes"]:
        show.say(f"{change['change']:<8} {change['kind']} {change['name']}")
        for field, values in change["fields"].items():
            show.say(f"         {field}: {values['old']} → {values['new']}")
    if not result["changes"]:
        show.say("Nothing differs from what was applied.")
    word = "Applied" if result.get("applied") else "Would apply"
    show.say(f"{word} configuration {result['digest'][:12]}.")


def migrate(session: Session) -> None:
    """Bring the database's schema to this version. Make a backup first."""
    with database_of(session.workspace, session.bars.note) as dsn:
        database = Database(dsn, pool_size=1, application="meterpost-migrate")
        try:
            steps = list(database.migrate())
        finally:
            database.dispose()
    session.show(
        {"steps": steps},
        lambda result: show.say(
            f"Migrated: {', '.join(result['steps'])}."
            if result["steps"]
            else "The schema is this version's already."
        ),
    )


def upgrade_(session: Session) -> None:
    """Bring the embedded PostgreSQL's data to the version of the binaries that are installed.

    Stop `meterpost up` first. The old data is kept beside the new until you remove it.
    """
    if not session.workspace.settings.database.embedded:
        raise Conflict("This workspace uses a server of its own: upgrade it as its vendor says.")
    done = upgrade(session.workspace.places.postgres, on_progress=session.bars.note)
    result = {
        "from": done.from_version,
        "to": done.to_version,
        "kept": done.kept and str(done.kept),
    }
    session.show(
        result,
        lambda shown: show.say(
            f"PostgreSQL {shown['to']}"
            + (f"; the old data is in {shown['kept']}." if shown["kept"] else " already.")
        ),
    )


def url(session: Session) -> None:
    """Print the database's URL, with its password: for psql and backups.

    An embedded server has to be running (`meterpost up`).
    """
    workspace = session.workspace
    if not workspace.settings.database.embedded:
        with database_of(workspace) as dsn:
            session.show({"url": dsn}, lambda shown: show.say(shown["url"]))
        return
    with EmbeddedPostgres(workspace.places.postgres) as server:
        # One that was started for this question alone is gone when the answer is read.
        if server.owner:
            raise Conflict(
                "The embedded server is not running.", hint="Start it with `meterpost up`."
            )
        session.show({"url": server.dsn()}, lambda shown: show.say(shown["url"]))


def require_answer(given: bool, question: str) -> None:
    """Nothing, where a person agrees. Raises: InvalidInput where nobody can be asked."""
    if given:
        return
    if not typer.get_text_stream("stdin").isatty():
        raise InvalidInput(f"{question} Nobody is here to answer.", hint="Say so with --yes.")
    if not typer.confirm(question):
        raise Conflict("Nothing was done.")
