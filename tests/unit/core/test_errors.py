"""Failures, ordered by what to do next."""

import pytest

from meterpost.core import errors
from meterpost.core.errors import InvalidInput, MeterpostError, Throttled, Transient
from meterpost.core.problem import Problem


@pytest.mark.parametrize(
    ("error", "parent"),
    [
        (errors.Throttled, errors.Transient),
        (errors.InvalidInput, errors.Permanent),
        (errors.NotFound, errors.Permanent),
        (errors.Conflict, errors.Permanent),
        (errors.NotAllowed, errors.NeedsPerson),
        (errors.NotAuthenticated, errors.NeedsPerson),
        (errors.OutcomeUnknown, errors.MeterpostError),
    ],
)
def test_the_tree_says_what_to_do_next(
    error: type[MeterpostError], parent: type[MeterpostError]
) -> None:
    """Catching the parent catches the more particular failure."""
    assert issubclass(error, parent)
    families = (errors.Transient, errors.Permanent, errors.NeedsPerson, errors.OutcomeUnknown)
    assert sum(issubclass(error, family) for family in families) == 1


def test_every_failure_has_a_word_of_its_own_for_machines() -> None:
    """Codes are the types of problem+json answers, so no two failures share one."""
    tree = [MeterpostError]
    for error in tree:
        tree.extend(error.__subclasses__())
    ours = [error.code for error in tree if error.__module__ == errors.__name__]
    assert len(ours) == len(set(ours)) == 11


def test_a_failure_reads_as_a_sentence_with_what_helps() -> None:
    """The hint follows the sentence, and both can be had apart."""
    error = Throttled("The ERP asks to slow down.", hint="Lower the batch size.", after_s=2.5)
    assert str(error) == "The ERP asks to slow down. Lower the batch size."
    assert (error.sentence, error.hint, error.after_s) == (
        "The ERP asks to slow down.",
        "Lower the batch size.",
        2.5,
    )
    assert Transient("Again.").after_s is None


def test_invalid_input_lists_every_problem_with_its_place() -> None:
    """One problem a line, each with where it is and what helps."""
    problems = [
        Problem("missing", "a price needs an id.", "prices[0].id"),
        Problem("float", "0.1 may have lost digits.", "prices[0].unit_price", "Quote it."),
        Problem("empty", "The file is empty."),
    ]
    assert str(InvalidInput("prices.yaml cannot be used.", problems)).splitlines() == [
        "prices.yaml cannot be used.",
        "  prices[0].id: a price needs an id.",
        "  prices[0].unit_price: 0.1 may have lost digits. Quote it.",
        "  The file is empty.",
    ]
