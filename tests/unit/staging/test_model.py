"""The state table: what it allows, and that the documentation prints it."""

from __future__ import annotations

from pathlib import Path

import pytest

from meterpost.core.errors import Conflict
from meterpost.core.ids import TransactionId
from meterpost.staging.model import (
    ENDED,
    OPEN,
    SETTLED,
    TRANSITIONS,
    State,
    require_transition,
)
from meterpost.storage.tables.staging import OPEN_STATES

DOCS = Path(__file__).parents[3] / "docs" / "staging.md"


def test_every_state_has_its_row_and_one_kind() -> None:
    """The table is complete, and open, settled and ended states part the states."""
    assert set(TRANSITIONS) == set(State)
    assert set(State) == OPEN | SETTLED | ENDED
    assert len(OPEN) + len(SETTLED) + len(ENDED) == len(State)


def test_the_index_of_open_states_knows_the_same() -> None:
    """The database's one-open-revision index and the code agree on what open is."""
    assert set(OPEN_STATES) == {state.value for state in OPEN}


def test_what_is_on_its_way_cannot_be_superseded_or_withdrawn() -> None:
    """Sending and doubt must end in what the ERP says."""
    for state in (State.SENDING, State.IN_DOUBT):
        assert not set(TRANSITIONS[state]) & ENDED


@pytest.mark.parametrize("from_state", State)
@pytest.mark.parametrize("to_state", State)
def test_steps_outside_the_table_are_refused(from_state: State, to_state: State) -> None:
    """A step passes exactly when the table lists it; else the answer names what is allowed."""
    if to_state in TRANSITIONS[from_state]:
        require_transition(from_state, to_state, TransactionId(1))
    else:
        with pytest.raises(Conflict, match=f"is {from_state} and cannot become {to_state}"):
            require_transition(from_state, to_state, TransactionId(1))


def test_the_documentation_prints_the_table() -> None:
    """docs/staging.md shows the table as it is."""
    rows = [f"| {state} | {', '.join(targets) or '–'} |" for state, targets in TRANSITIONS.items()]
    text = DOCS.read_text("utf-8")
    printed = text.split("<!-- states -->")[1].split("<!-- /states -->")[0].strip().splitlines()
    assert printed[2:] == rows
