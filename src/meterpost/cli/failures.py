"""Failures as one sentence on standard error, and as an exit code that scripts can act on."""

from __future__ import annotations

import sys

from meterpost.core.errors import (
    Conflict,
    InvalidInput,
    MeterpostError,
    NeedsPerson,
    NotFound,
    OutcomeUnknown,
    Transient,
)

#: Problems printed; `--json` output and the API list all of them.
_PROBLEMS_SHOWN = 50

#: What a script can do next differs by class; 1 is everything else, 130 an interruption.
EXIT_CODES: tuple[tuple[type[MeterpostError], int, str], ...] = (
    (InvalidInput, 2, "the command or its input has to be changed"),
    (NotFound, 3, "what was named does not exist"),
    (Conflict, 4, "its state forbids it, or it exists already"),
    (NeedsPerson, 5, "not allowed, not authenticated, or a person has to act"),
    (Transient, 6, "nothing happened; try again later"),
    (OutcomeUnknown, 7, "it may have happened: look before repeating"),
)
OTHER, INTERRUPTED = 1, 130


def exit_code(error: BaseException) -> int:
    """The code of a failure's class."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    for class_, code, _ in EXIT_CODES:
        if isinstance(error, class_):
            return code
    return OTHER


def tell(error: BaseException) -> None:
    """Say on standard error what happened and what helps."""
    match error:
        case InvalidInput():
            _line(f"Error: {error.sentence}")
            for problem in error.problems[:_PROBLEMS_SHOWN]:
                _line(f"  {problem}")
            if len(error.problems) > _PROBLEMS_SHOWN:
                _line(f"  … and {len(error.problems) - _PROBLEMS_SHOWN} more.")
            if error.hint:
                _line(f"Hint: {error.hint}")
        case MeterpostError():
            _line(f"Error: {error.sentence}")
            if error.hint:
                _line(f"Hint: {error.hint}")
        case KeyboardInterrupt():
            _line("Interrupted. What was stored before stays stored; run the command again.")
        case _:
            # The first line only: a database's error goes on with the statement and its values.
            first = (str(error).splitlines() or [""])[0][:300]
            _line(f"Error: meterpost failed unexpectedly: {type(error).__name__}: {first}")
            _line("Hint: Run it again with --debug to see where, and report that.")


def _line(text: str) -> None:
    sys.stderr.write(text + "\n")
