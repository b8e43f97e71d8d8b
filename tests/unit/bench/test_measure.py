"""Medians, ratios and phases."""

from __future__ import annotations

import json
import os

import pytest


def test_a_figure_is_the_median_beside_the_floors_median() -> None:
    """One slow run of three changes neither the figure nor its ratio."""
    from bench.measure import Figure

    figure = Figure("drain", "events/s", [90.0, 10.0, 100.0], [200.0, 180.0, 5.0], aim=91.0)
    assert figure.median == 90.0
    assert figure.ratio == 0.5
    assert figure.reached is False


def test_an_aim_may_be_a_bound() -> None:
    """Memory at its bound has reached the aim; above it not."""
    from bench.measure import Figure

    assert Figure("memory", "MB", [1500.0], aim=1500.0, lower_is_better=True).reached is True
    assert Figure("memory", "MB", [1501.0], aim=1500.0, lower_is_better=True).reached is False


def test_figures_without_floor_or_aim_claim_nothing() -> None:
    """Neither ratio nor verdict is made up."""
    from bench.measure import Figure, table

    figure = Figure("p99", "ms", [1.0, 3.0])
    assert (figure.median, figure.ratio, figure.reached) == (2.0, None, None)
    assert "| p99    | 2.00 ms |" in table([figure])


def test_a_figure_survives_the_way_between_processes() -> None:
    """What a child prints is what the table shows."""
    from bench.measure import Figure

    figure = Figure("close", "lines/s", [1.0, 2.0], [4.0], 3.0, notes={"lines": 3})
    assert Figure.from_plain(json.loads(json.dumps(figure.to_plain()))) == figure


def test_a_phase_does_not_count_the_phases_inside_it() -> None:
    """The phases add up to the whole."""
    from bench.measure import Phases

    moments = iter([0.0, 1.0, 4.0, 10.0])
    phases = Phases(lambda: next(moments))
    with phases.within("outer"), phases.within("inner"):
        pass
    assert phases.taken() == {"inner": 3.0, "outer": 7.0}
    assert phases.taken() == {}


def test_memory_of_a_process_that_ended_counts_nothing() -> None:
    """Server processes come and go while they are looked at."""
    from bench.measure import pss_mb

    own = pss_mb([os.getpid()])
    assert own > 1
    assert pss_mb([2**22 + 1]) == 0


@pytest.mark.parametrize(
    ("value", "text"), [(224500.4, "224,500"), (3.14159, "3.14"), (-250.0, "-250")]
)
def test_numbers_show_the_digits_that_mean_something(value: float, text: str) -> None:
    """Events a second are whole, milliseconds are not."""
    from bench.measure import number

    assert number(value) == text


def test_a_page_gets_new_figures_and_keeps_the_rest() -> None:
    """Running twice replaces the figures; a page without marks is refused."""
    from bench.measure import BEGIN, END, with_figures

    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    once = with_figures(page, "new")
    assert once == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    assert with_figures(once, "new") == once
    with pytest.raises(ValueError, match="figures"):
        with_figures("nothing", "new")
