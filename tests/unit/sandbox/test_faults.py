from datetime import UTC, datetime, timedelta

import pytest

from meterpost_sandbox.answers import Refused
from meterpost_sandbox.faults import Faults

SPEC = {"commit_then_drop": {"probability": 0.3}, "status_429": {"probability": 0.3}}


def endings(seed, spec, n=200, kind="write"):
    faults = Faults(seed, spec)
    return [faults.fate(kind).ending for _ in range(n)]


def test_the_same_seed_hits_the_same_requests():
    """A rehearsal can be repeated; another seed is another rehearsal."""
    assert endings(7, SPEC) == endings(7, SPEC)
    assert endings(7, SPEC) != endings(8, SPEC)


def test_setting_faults_again_starts_the_draws_anew():
    """PUT makes the server forget how many requests it has seen."""
    faults = Faults(7, SPEC)
    first = [faults.fate("write").ending for _ in range(50)]
    faults.set(SPEC)
    assert [faults.fate("write").ending for _ in range(50)] == first


def test_the_draws_of_one_fault_do_not_depend_on_the_others():
    """Adding a fault later in the order leaves the hits of an earlier one as they were."""
    alone = endings(7, {"commit_then_drop": {"probability": 0.3}})
    both = endings(7, SPEC)
    assert [e == "commit_then_drop" for e in alone] == [e == "commit_then_drop" for e in both]


def test_probabilities_are_met_roughly():
    """A third means about a third, so that tests with few requests see faults at all."""
    hits = sum(
        ending is not None for ending in endings(1, {"status_500": {"probability": 0.3}}, 5000)
    )
    assert 1350 < hits < 1650


def test_next_is_used_up_only_by_requests_it_struck():
    """Reads do not use up a fault for writes, nor does a request that another fault ended."""
    faults = Faults(1, {"commit_then_drop": {"next": 1}, "status_500": {"next": 1}})
    assert faults.fate("read").ending is None
    got = [faults.fate("write").ending for _ in range(3)]
    assert got == ["commit_then_drop", "status_500", None]


def test_partial_drop_waits_for_a_batch_that_can_be_cut():
    """Single creates and atomic batches are never committed by half."""
    faults = Faults(1, {"partial_then_drop": {"next": 1}})
    assert faults.fate("write").ending is None
    assert faults.fate("write", divisible=True).ending == "partial_then_drop"


def test_stalls_and_delays_come_on_top():
    """One request can be slow, hidden and dropped; a refused one is not hidden."""
    faults = Faults(
        1,
        {
            "commit_then_drop": {"next": 1},
            "status_500": {"next": 1},
            "stall_s": 2,
            "delayed_visibility_s": 4,
        },
    )
    first, second = faults.fate("write"), faults.fate("write")
    assert first.struck() == ("commit_then_drop", "stall_s", "delayed_visibility_s")
    assert (first.stall_before_s, first.hidden_s) == (2, 4)
    assert second.struck() == ("status_500", "stall_s")


def test_an_outage_ends_by_itself():
    """`outage_until` holds up to its moment, `down` until it is taken back."""
    now = datetime(2026, 11, 1, tzinfo=UTC)
    faults = Faults(1, {"outage_until": "2026-11-01T00:01:00Z"})
    assert faults.out(now) == "outage_until"
    assert faults.out(now + timedelta(minutes=1)) is None
    faults.set({"down": True})
    assert faults.out(now) == "down"


def test_references_are_rejected_by_list_and_expression():
    """Both forms work together."""
    faults = Faults(1, {"reject_reference": {"references": ["U1"], "regex": "^BAD"}})
    assert [faults.rejects(r) for r in ("U1", "U2", "BAD-7", "NOTBAD")] == [
        True,
        False,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"meteor": {}}, "meteor"),
        ({"status_500": {"probability": 2}}, "status_500.probability"),
        ({"status_500": {"probability": float("nan")}}, "status_500.probability"),
        ({"status_500": {"next": 10**400}}, "status_500.next"),
        ({"status_500": {"next": 1.5}}, "status_500.next"),
        ({"status_500": {"next": 1, "probability": 0.5}}, "status_500.next"),
        ({"commit_then_drop": {"on": "reads"}}, "commit_then_drop.on"),
        ({"stall_s": {}}, "stall_s.seconds"),
        ({"reject_reference": {"regex": "("}}, "reject_reference.regex"),
        ({"reject_reference": [1]}, "reject_reference.references"),
        ({"outage_until": "tomorrow"}, "outage_until"),
        ([], None),
    ],
)
def test_faults_that_make_no_sense_are_refused(spec, field):
    """The refusal names the field, and the faults in force stay."""
    faults = Faults(1, {"down": True})
    with pytest.raises(Refused) as refused:
        faults.set(spec)
    assert refused.value.where == field
    assert faults.as_json() == {"down": True}
