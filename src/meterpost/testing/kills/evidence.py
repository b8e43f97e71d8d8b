"""Recorded runs: one line per session, added up over sessions of the same code."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import meterpost
from meterpost.testing.kills.plan import POINTS, STAGES
from meterpost.testing.kills.run import Session

_PACKAGE = Path(meterpost.__file__).parent
_SUMMED = ("kills", "events", "postings", "lost", "duplicated", "amount_differences")
#: Files of the package that are code or say what code does.
_SUFFIXES = frozenset({".py", ".sql", ".yaml"})


def code_digest() -> str:
    """Changes with any source file of the package: lines with the same digest add up."""
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*")):
        if path.suffix in _SUFFIXES and path.is_file():
            digest.update(f"{path.relative_to(_PACKAGE)}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def commit() -> str:
    """The commit that the package was taken from, ``+dirty`` where its files differ from it."""
    head = _git("rev-parse", "HEAD")
    if head is None:
        return "unknown"
    return head if not _git("status", "--porcelain", "--", str(_PACKAGE)) else f"{head}+dirty"


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(_PACKAGE), *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def line(session: Session, *, run_seed: int, code: str) -> dict[str, Any]:
    """A session as it is recorded; ``run_seed`` is the run's it belongs to."""
    verdict = session.verdict
    points = Counter(kill.point for kill in session.kills)
    stages = Counter(kill.stage for kill in session.kills)
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "commit": commit(),
        "code": code,
        "run_seed": run_seed,
        "seed": session.seed,
        "kills": len(session.kills),
        "stages": {stage: stages[stage] for stage in STAGES},
        "points": {point: points[point] for stage in STAGES for point in POINTS[stage]},
        "events": verdict.events,
        "postings": verdict.postings,
        "lost": verdict.lost,
        "duplicated": verdict.duplicated,
        "amount_differences": verdict.amount_differences,
        "unexplained": str(verdict.unexplained),
        "findings": list(verdict.findings),
        "seconds": round(session.seconds, 1),
    }


def append(path: Path, recorded: Mapping[str, Any]) -> None:
    """Add one line; a reader sees whole lines only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(recorded) + "\n")


def read(path: Path, *, code: str | None = None) -> list[dict[str, Any]]:
    """The lines of a file, of one state of the code or of all; none where there is no file."""
    if not path.exists():
        return []
    lines = [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines() if text]
    return [each for each in lines if code in (None, each["code"])]


def total(lines: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The sum of lines: kills, per stage and point, and what went wrong.

    ``unexplained`` counts the sessions whose ledgers did not balance.
    """
    lines = list(lines)
    summed: dict[str, Any] = dict.fromkeys(_SUMMED, 0)
    stages, points = Counter[str](), Counter[str]()
    seconds, unexplained = 0.0, 0
    for each in lines:
        for name in _SUMMED:
            summed[name] += each[name]
        stages.update(each["stages"])
        points.update(each["points"])
        seconds += each["seconds"]
        unexplained += each["unexplained"] != "0"
    return {
        **summed,
        "unexplained": unexplained,
        "stages": {stage: stages[stage] for stage in STAGES},
        "points": {point: points[point] for stage in STAGES for point in POINTS[stage]},
        "seconds": round(seconds, 1),
        "findings": [finding for each in lines for finding in each["findings"]],
    }


def missed(points: Mapping[str, int]) -> Sequence[str]:
    """The crash points that no kill has hit."""
    return [point for stage in STAGES for point in POINTS[stage] if not points[point]]
