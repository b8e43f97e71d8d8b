"""Failures on standard error, and the codes scripts act on."""

from __future__ import annotations

import doctest

import pytest

from meterpost.cli import failures, show
from meterpost.core import errors
from meterpost.core.problem import Problem


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidInput("x"), 2),
        (errors.NotFound("x"), 3),
        (errors.Conflict("x"), 4),
        (errors.NeedsPerson("x"), 5),
        (errors.NotAllowed("x"), 5),
        (errors.NotAuthenticated("x"), 5),
        (errors.Transient("x"), 6),
        (errors.Throttled("x"), 6),
        (errors.OutcomeUnknown("x"), 7),
        (errors.Permanent("x"), 1),
        (ValueError("x"), 1),
        (KeyboardInterrupt(), 130),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_each_class_has_its_code(error: BaseException, code: int) -> None:
    """What to do next can be read from the exit code."""
    assert failures.exit_code(error) == code


def test_problems_are_listed_with_their_places(capsys: pytest.CaptureFixture[str]) -> None:
    """Sentence, problems, hint: each on a line of its own."""
    problems = [Problem("bad", "The price is missing.", "prices.yaml:7", "Write one.")]
    failures.tell(errors.InvalidInput("The file cannot be used.", problems, hint="Correct it."))
    assert capsys.readouterr().err == (
        "Error: The file cannot be used.\n"
        "  prices.yaml:7: The price is missing. Write one.\n"
        "Hint: Correct it.\n"
    )


def test_the_unexpected_shows_no_traceback_and_no_statement(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A database's error goes on with values that may be personal: only its first line is told."""
    failures.tell(RuntimeError("it broke\n[SQL: SELECT 1]\n[parameters: {'name': 'Jane'}]"))
    said = capsys.readouterr().err
    assert "RuntimeError: it broke" in said
    assert "Jane" not in said
    assert "--debug" in said


def test_examples_of_how_numbers_are_written_hold() -> None:
    """Thousands are separated, money has its currency's decimals, moments end in Z."""
    assert doctest.testmod(show).failed == 0
    assert show.amount("1234567.5", "JPY") == "1,234,568"
    assert show.amount("-0.125", "KWD") == "-0.125"
