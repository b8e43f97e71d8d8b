"""The reference of all commands as Markdown, from the commands themselves.

``python -m meterpost.cli.reference docs/cli.md`` rewrites the part of the page after its marker.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer.main

MARKER = "<!-- Everything below is written by: python -m meterpost.cli.reference docs/cli.md -->"


def commands() -> Iterator[tuple[Sequence[str], Any]]:
    """Every command that is shown, with the words that call it; groups are left out."""
    from meterpost.cli.app import app

    yield from _commands(("meterpost",), typer.main.get_command(app))


def _commands(words: Sequence[str], found: Any) -> Iterator[tuple[Sequence[str], Any]]:
    if not hasattr(found, "commands"):
        if not found.hidden:
            yield words, found
        return
    for name, inner in found.commands.items():
        yield from _commands((*words, name), inner)


def reference() -> str:
    """One section per command: its help, then its arguments and options."""
    return "\n".join(_section(words, found) for words, found in commands())


def _section(words: Sequence[str], found: Any) -> str:
    lines = [f"### {' '.join(words)}", ""]
    in_example = False
    for line in (found.help or "").splitlines():
        if line == "\b":
            continue
        if line == "Example:":
            in_example = True
            lines += ["```sh"]
        else:
            lines.append(line.strip() if in_example else line)
    if in_example:
        lines.append("```")
    rows = [_row(each) for each in found.params if not _everywhere(each)]
    if rows:
        lines += ["", "| | |", "|---|---|", *rows]
    return "\n".join([*lines, ""])


def _everywhere(parameter: Any) -> bool:
    """Options that every command has stand in the guide, once."""
    return parameter.name in {"workspace", "as_user", "as_json", "debug", "help"} or bool(
        getattr(parameter, "hidden", False)
    )


def _row(parameter: Any) -> str:
    spelled = ", ".join((*parameter.opts, *parameter.secondary_opts))
    is_argument = parameter.param_type_name == "argument"
    name = f"`{parameter.name.upper()}`" if is_argument else f"`{spelled}`"
    text = (getattr(parameter, "help", None) or "").replace("|", "\\|")
    if is_argument and not parameter.required:
        text += " Can be left out."
    if not is_argument and parameter.required:
        text += " Needed."
    return f"| {name} | {text.strip()} |"


def main(path: Path) -> None:
    """Rewrite the generated part of the page."""
    guide = path.read_text(encoding="utf-8").split(MARKER)[0]
    path.write_text(f"{guide}{MARKER}\n\n{reference()}", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
