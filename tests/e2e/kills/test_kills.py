"""SIGKILL at every crash point of every stage: nothing is lost, nothing is posted twice."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from meterpost.core.crashpoints import CRASHPOINTS
from meterpost.testing.kills import evidence
from meterpost.testing.kills.__main__ import clean, run
from meterpost.testing.kills.plan import POINTS, STAGES

pytestmark = [pytest.mark.integration, pytest.mark.e2e]

_ALL = sum(len(POINTS[stage]) for stage in STAGES)


def test_every_crash_point_is_visited() -> None:
    """A crash point that is added to the registry is killed at, or this fails."""
    assert {point for stage in STAGES for point in POINTS[stage]} - {
        f"postmaster.{stage}" for stage in STAGES
    } == set(CRASHPOINTS)


@pytest.mark.timeout(900)
def test_a_kill_at_each_crash_point_loses_and_doubles_nothing() -> None:
    """Six kills each in ingest, close and posting, one per point and one of the postmaster."""
    total = run(_ALL, seed=1)
    assert clean(total), total["findings"]
    assert total["stages"] == dict.fromkeys(STAGES, 6)
    assert evidence.missed(total["points"]) == []
    assert total["postings"] > 0


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_fifty_kills_in_each_stage_lose_and_double_nothing(tmp_path: Path) -> None:
    """Fifty each in ingest, close and posting; with METERPOST_EVIDENCE=1 recorded in
    docs/evidence, where a run that was broken off goes on.
    """
    record = tmp_path / "kills.jsonl"
    if os.environ.get("METERPOST_EVIDENCE") == "1":
        record = Path(__file__).parents[3] / "docs" / "evidence" / "kills.jsonl"
    total = run(150, seed=50, record=record)
    assert clean(total), total["findings"]
    assert min(total["stages"].values()) >= 50
    assert evidence.missed(total["points"]) == []
