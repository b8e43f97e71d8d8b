"""Users and keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from meterpost.access.model import Role, Scope
from meterpost.cli import show
from meterpost.cli.command import command, group
from meterpost.cli.keys import save_token
from meterpost.cli.session import Session
from meterpost.operations.arguments import moment_of

_Id = Annotated[str, typer.Argument(help="A user's id: lower case, such as ada.")]
_ROLES = ", ".join(Role)


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    users = group(app, "users", "People, and programs with a name of their own.")
    command(users, "create", example="meterpost users create ada --role approver --key")(create)
    command(users, "list", example="meterpost users list")(list_)
    command(users, "roles", example="meterpost users roles ada approver auditor")(roles)
    command(users, "deactivate", example="meterpost users deactivate ada")(deactivate)
    keys = group(app, "keys", "API keys: what programs and this command line speak with.")
    command(
        keys,
        "create",
        example="meterpost keys create --scope events:write\n"
        "meterpost keys create --user ada --save",
    )(keys_create)
    command(keys, "list", example="meterpost keys list --everybody")(keys_list)
    command(keys, "revoke", example="meterpost keys revoke 7H3K9QWXYZ")(keys_revoke)


def create(
    session: Session,
    id: _Id,
    role: Annotated[list[Role] | None, typer.Option(help="Repeat it for several.")] = None,
    name: Annotated[str | None, typer.Option(help="Their name, for people.")] = None,
    key: Annotated[
        bool, typer.Option("--key", help="Make a key, too, and keep it in secrets/keys/ID.")
    ] = False,
) -> None:
    """Make a user. Approvals and the audit log name them; roles say what they may do."""
    result = session.call(
        "users.create", id=id, name=name, roles=[each.value for each in role or ()]
    )
    if key:
        made = session.call("keys.create", user=id)
        result["key"] = made["id"]
        result["key_file"] = str(save_token(session.root, id, made["token"]))

    def present(shown: Mapping[str, Any]) -> None:
        show.say(f"{shown['id']}: {', '.join(shown['roles']) or 'no roles'}")
        if "key_file" in shown:
            show.say(f"Their key is in {shown['key_file']}: use it with --as {shown['id']}.")

    session.show(result, present)


def list_(session: Session) -> None:
    """List everybody with their roles."""
    columns = [show.text("id"), show.text("name"), show.text("roles"), show.text("active")]
    session.show(
        session.call("users.list"), lambda shown: show.table(columns, shown["items"], "Nobody.")
    )


def roles(
    session: Session,
    id: _Id,
    role: Annotated[list[Role], typer.Argument(help=f"All they are to have, of: {_ROLES}.")],
) -> None:
    """Replace a user's roles."""
    result = session.call("users.roles", id=id, roles=[each.value for each in role])
    session.show(result, lambda shown: show.say(f"{shown['id']}: {', '.join(shown['roles'])}"))


def deactivate(session: Session, id: _Id) -> None:
    """Keep a user and all their keys out. What they decided stays."""
    result = session.call("users.deactivate", id=id)
    session.show(result, lambda shown: show.say(f"{shown['id']} is not active any more."))


def keys_create(
    session: Session,
    user: Annotated[str | None, typer.Option(help="Whose; without: your own.")] = None,
    scope: Annotated[
        list[Scope] | None, typer.Option(help="Repeat it; without: all the user has.")
    ] = None,
    expires: Annotated[str | None, typer.Option(help="A day, or moment, in UTC.")] = None,
    save: Annotated[
        bool, typer.Option("--save", help="Keep it in secrets/keys/USER instead of showing it.")
    ] = False,
) -> None:
    """Make an API key. Its token is shown once and stored nowhere."""
    result = session.call(
        "keys.create",
        user=user,
        scopes=[each.value for each in scope or ()],
        expires_at=None if expires is None else moment_of(expires, "UTC"),
    )
    if save:
        token = result.pop("token")
        result["key_file"] = str(save_token(session.root, result["user"], token))

    def present(shown: Mapping[str, Any]) -> None:
        show.say(shown.get("token") or f"The key of {shown['user']} is in {shown['key_file']}.")

    session.show(result, present)


def keys_list(
    session: Session,
    user: Annotated[str | None, typer.Option(help="Whose; without: your own.")] = None,
    everybody: Annotated[bool, typer.Option("--everybody", help="All there are.")] = False,
) -> None:
    """List API keys, without their secrets."""
    result = session.call("keys.list", user=user, everybody=everybody)
    columns = [
        show.text("id"),
        show.text("user"),
        show.moment("created", "created_at"),
        show.moment("expires", "expires_at"),
        show.moment("revoked", "revoked_at"),
        show.text("scopes"),
    ]
    session.show(result, lambda shown: show.table(columns, shown["items"], "No keys."))


def keys_revoke(
    session: Session,
    id: Annotated[str, typer.Argument(help="Between `mp_` and the dot of its token.")],
) -> None:
    """Make a key useless, for good."""
    result = session.call("keys.revoke", id=id)
    session.show(result, lambda shown: show.say(f"The key {shown['id']} is useless now."))
