"""How far the engine is behind, counted step by step."""

from __future__ import annotations

from pathlib import Path

import pytest

from meterpost.core.errors import Transient
from meterpost.engine.backlog import Backlog, EngineState
from meterpost.metering.model import Position


class _Journal:
    """A journal in memory that notes how many rows each question touched."""

    def __init__(self) -> None:
        self.incarnation = "one"
        self.rows: list[int] = []
        self.touched: list[int] = []
        self.down = False

    def end(self) -> Position | None:
        if self.down:
            raise Transient("Down.")
        return Position(self.incarnation, len(self.rows)) if self.rows else None

    def events_between(self, after: int, upto: int) -> int:
        self.touched.append(upto - after)
        return sum(self.rows[after:upto])


@pytest.fixture
def journal() -> _Journal:
    return _Journal()


@pytest.fixture
def backlog(journal: _Journal, tmp_path: Path) -> Backlog:
    return Backlog(journal, tmp_path / "engine.json")


def test_everything_is_behind_before_an_engine_ran(journal: _Journal, backlog: Backlog) -> None:
    """Without a position every accepted event counts, and an unused journal is no backlog."""
    assert backlog.look() == 0
    journal.rows = [10, 20, 30]
    assert backlog.look() == 60
    assert backlog() == 60


def test_each_look_touches_only_what_changed(
    journal: _Journal, backlog: Backlog, tmp_path: Path
) -> None:
    """New rows are added, drained ones taken off, and nothing is counted twice."""
    journal.rows = [10] * 1000
    backlog.look()
    journal.rows += [7, 7]
    EngineState(1, "one", 4).write(tmp_path / "engine.json")
    journal.touched.clear()
    assert backlog.look() == 1000 * 10 + 14 - 40
    assert journal.touched == [2, 4]
    EngineState(1, "one", 1002).write(tmp_path / "engine.json")
    assert backlog.look() == 0


def test_a_journal_of_another_incarnation_is_counted_anew(
    journal: _Journal, backlog: Backlog, tmp_path: Path
) -> None:
    """After a restore the engine's old position says nothing about the new journal."""
    journal.rows = [1] * 5
    EngineState(1, "one", 5).write(tmp_path / "engine.json")
    assert backlog.look() == 0
    journal.incarnation = "two"
    assert backlog.look() == 5


def test_a_position_beyond_the_end_is_no_negative_backlog(
    journal: _Journal, backlog: Backlog, tmp_path: Path
) -> None:
    """An older database under a newer event store counts as nothing behind, not as less."""
    journal.rows = [1] * 5
    EngineState(1, "one", 50).write(tmp_path / "engine.json")
    assert backlog.look() == 0


def test_the_last_count_stands_while_the_database_is_down(
    journal: _Journal, backlog: Backlog
) -> None:
    """Asking needs no database."""
    journal.rows = [3]
    backlog.look()
    journal.down = True
    with pytest.raises(Transient):
        backlog.look()
    assert backlog() == 3
