"""The state file."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from meterpost.supervise import ChildState, SupervisorState, read_state


def test_a_state_is_read_as_written(tmp_path: Path) -> None:
    """Writing and reading give the same, moments included."""
    moment = datetime(2026, 10, 1, 12, 30, tzinfo=UTC)
    state = SupervisorState(
        41,
        moment,
        "ready",
        (
            ChildState("postgres", "ready", 42, moment, 1, "SIGKILL"),
            ChildState("edge", "waiting"),
        ),
    )
    path = tmp_path / "up.json"
    assert read_state(path) is None
    state.write(path)
    assert read_state(path) == state
    assert [one.name for one in tmp_path.iterdir()] == ["up.json"]
    assert state.child("edge").phase == "waiting"
    with pytest.raises(KeyError):
        state.child("engine")
