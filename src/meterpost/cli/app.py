"""The command line's tree of commands."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from meterpost.cli import data, erp, masterdata, money, people, proof, setup, up
from meterpost.cli.command import command, group
from meterpost.cli.session import Session
from meterpost.core.errors import InvalidInput
from meterpost.observe.logging import configure_logging

app = typer.Typer(
    name="meterpost",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(version("meterpost"))
        raise typer.Exit


@app.callback()
def meterpost(
    asked: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", is_eager=True, callback=_version),
    ] = False,
) -> None:
    """Turns product usage into governed ERP transactions.

    A session from usage to money: init, check, apply, masterdata import, ingest, close run,
    exceptions list, tx approve, post run, reconcile, trace, balance. Every command has --help
    with an example, and --json for programs.
    """
    # Libraries' log lines would stand between a command's own words.
    configure_logging("cli", level="error")


setup.register(app)
up.register(app)
data.register(app)
masterdata.register(app)
money.register(app)
erp.register(app)
proof.register(app)
people.register(app)

_sandbox = group(app, "sandbox", "The sandbox ERP that ships with meterpost.")


def _sandbox_serve(session: Session) -> None:
    """Point to `meterpost-sandbox`, a program of its own: an independent witness."""
    raise InvalidInput(
        "The sandbox ERP is a program of its own.",
        hint="Start it with: meterpost-sandbox serve --ledger erp.sqlite --token-file "
        "secrets/erp-token",
    )


command(_sandbox, "serve", example="meterpost-sandbox serve --ledger erp.sqlite")(_sandbox_serve)
