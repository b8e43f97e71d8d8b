"""The command line's tree of commands."""

from __future__ import annotations

import typer

from meterpost.cli import up

app = typer.Typer(
    name="meterpost",
    help="Turns product usage into governed ERP transactions.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
up.register(app)
