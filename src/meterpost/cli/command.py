"""How a function becomes a command: options that all share, failures told clearly."""

from __future__ import annotations

import inspect
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from meterpost.cli.failures import exit_code, tell
from meterpost.cli.session import Session

WORKSPACE = Annotated[
    Path | None,
    typer.Option(
        "--workspace",
        "-w",
        help="The workspace's folder (else METERPOST_WORKSPACE, or from here up).",
    ),
]
_USER = Annotated[
    str | None,
    typer.Option("--as", metavar="USER", help="Who asks: a user with a key in secrets/keys."),
]
_JSON = Annotated[bool, typer.Option("--json", help="Print the plain result, for programs.")]
DEBUG = Annotated[bool, typer.Option("--debug", help="Show where a failure came from.")]

_SHARED = {"workspace": WORKSPACE, "as_user": _USER, "as_json": _JSON, "debug": DEBUG}
_DEFAULTS: dict[str, object] = {
    "workspace": None,
    "as_user": None,
    "as_json": False,
    "debug": False,
}

Function = Callable[..., None]


def command(
    app: typer.Typer, name: str, *, example: str = "", hidden: bool = False
) -> Callable[[Function], Function]:
    """Register a function of (session, …) under a name; its docstring and the example are the
    help. Failures end the process with the code of their class.
    """

    def register(function: Function) -> Function:
        signature = inspect.signature(function, eval_str=True)
        own = [each for each in signature.parameters.values() if each.name != "session"]

        def run(**arguments: Any) -> None:
            workspace, user = arguments.pop("workspace"), arguments.pop("as_user")
            as_json, debug = arguments.pop("as_json"), arguments.pop("debug")
            raise typer.Exit(
                _run(function, Session(workspace, user, as_json=as_json), arguments, debug)
            )

        shared = [
            inspect.Parameter(
                key, inspect.Parameter.KEYWORD_ONLY, default=_DEFAULTS[key], annotation=annotation
            )
            for key, annotation in _SHARED.items()
        ]
        parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own] + shared
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        run.__name__ = function.__name__
        app.command(name, help=help_of(function, example), hidden=hidden)(run)
        return function

    return register


def group(app: typer.Typer, name: str, help: str) -> typer.Typer:
    """A group of commands."""
    inner = typer.Typer(name=name, help=help, no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(inner)
    return inner


def _run(function: Function, session: Session, arguments: dict[str, Any], debug: bool) -> int:
    try:
        with session:
            function(session, **arguments)
        sys.stdout.flush()
    except typer.Exit as exit_:
        return exit_.exit_code
    except BrokenPipeError:
        # Whoever read us has enough (`| head`); what is left must not fail at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (Exception, KeyboardInterrupt) as exc:  # noqa: BLE001 - the last place that can tell
        if debug:
            traceback.print_exc()
        tell(exc)
        return exit_code(exc)
    return session.exit_code


def help_of(function: Function, example: str) -> str:
    """What --help says: the docstring, then the example."""
    text = inspect.cleandoc(function.__doc__ or "")
    if not example:
        return text
    lines = "\n".join(f"  {line}" for line in example.strip().splitlines())
    # \b keeps the lines of the example as they are.
    return f"{text}\n\n\b\nExample:\n{lines}"
