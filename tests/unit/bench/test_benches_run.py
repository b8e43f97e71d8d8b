"""Every bench runs through at a tiny size, in a process of its own as `python -m bench` does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    ("module", "arguments", "names"),
    [
        (
            "bench.accept",
            ["--seconds", "1", "--runs", "1"],
            ["accept, batches of 100", "accept, single requests", "accept, single, p50",
             "accept, single, p99"],
        ),
        ("bench.drain", ["--events", "2000", "--runs", "1"], ["drain"]),
        (
            "bench.drain",
            ["--events", "2000", "--runs", "1", "--late"],
            ["drain, 2 % late, 1 % twice"],
        ),
        ("bench.close", ["--contracts", "20"], ["close, first", "close, 1 % late"]),
        ("bench.memory", ["--events", "2000"], ["memory after the drain", "memory, peak"]),
    ],
)  # fmt: skip
def test_a_bench_reports_its_figures(module: str, arguments: list[str], names: list[str]) -> None:
    """The last line is the figures as JSON, each with a median above zero."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert [figure["name"] for figure in figures] == names
    assert all(figure["median"] > 0 for figure in figures)


def test_benches_of_one_part_run_alone() -> None:
    """`python bench/metering_drain.py` needs nothing of the others."""
    done = subprocess.run(
        [sys.executable, "bench/metering_drain.py", "--events", "1000", "--runs", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["events"] == 1000
