"""docs/rating.md is true: its examples are run."""

import doctest
from pathlib import Path

DOCS = Path(__file__).parents[3] / "docs" / "rating.md"


def test_every_example_in_the_documentation_gives_what_it_says() -> None:
    """A reader can paste the examples and see the same."""
    results = doctest.testfile(str(DOCS), module_relative=False, encoding="utf-8")
    assert results.attempted >= 20
    assert results.failed == 0
