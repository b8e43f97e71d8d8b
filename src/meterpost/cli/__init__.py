"""The command line: parse, call, present.

One file per group of commands. Not here: what a command does, which stands in the operations and
rooms; state of any kind.
"""

from __future__ import annotations


def main() -> None:
    """Run the command line; the process ends with its exit code."""
    from meterpost.cli.app import app

    app()
