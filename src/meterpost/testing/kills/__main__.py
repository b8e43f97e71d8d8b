"""Kill meterpost's processes while they work, and tell what was lost or doubled.

python -m meterpost.testing.kills --kills 30 --seed 7
python -m meterpost.testing.kills --kills 150 --seed 7 --record docs/evidence/kills.jsonl
python -m meterpost.testing.kills --total docs/evidence/kills.jsonl
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from meterpost.testing.kills import evidence
from meterpost.testing.kills.run import run_session

#: More kills than this are several sessions, each with a new installation and a line of its own.
SESSION_KILLS = 30


def run(
    kills: int, seed: int, record: Path | None = None, *, session_kills: int = SESSION_KILLS
) -> dict[str, Any]:
    """The sum over all sessions of a run, those recorded earlier by the same code included.

    A run that was broken off goes on after its last recorded session.
    Raises: RuntimeError where the code changed during a session that is to be recorded, for
    then nobody knows what ran.
    """
    code = evidence.code_digest()
    lines = [] if record is None else evidence.read(record, code=code)
    lines = [each for each in lines if each["run_seed"] == seed]
    while (left := kills - sum(each["kills"] for each in lines)) > 0:
        session_seed = seed * 1_000 + len(lines)
        with tempfile.TemporaryDirectory(prefix="meterpost-kills-") as folder:
            session = run_session(Path(folder), min(left, session_kills), session_seed, _say)
        if record is not None and evidence.code_digest() != code:
            raise RuntimeError("The code changed during the session; it proves nothing.")
        lines.append(evidence.line(session, run_seed=seed, code=code))
        if record is not None:
            evidence.append(record, lines[-1])
        _say("\n".join(session.verdict.findings))
    return evidence.total(lines)


def summary(total: Mapping[str, Any]) -> Sequence[str]:
    """Hits per crash point, and the line that says it all."""
    width = max(map(len, total["points"]))
    names = ("kills", "postings", "lost", "duplicated", "amount_differences", "unexplained")
    return [
        *(f"{point:{width}} {hits}" for point, hits in total["points"].items()),
        " ".join(f"{name}={total[name]}" for name in names),
    ]


def clean(total: Mapping[str, Any]) -> bool:
    """Nothing lost, nothing twice, every amount right, everything explained."""
    return not any(
        total[name] for name in ("lost", "duplicated", "amount_differences", "unexplained")
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """0 where nothing was lost or doubled, else 1."""
    parser = argparse.ArgumentParser(
        prog="python -m meterpost.testing.kills",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--kills", type=int, default=18, help="how many, over all stages")
    parser.add_argument("--seed", type=int, default=1, help="decides order, moments and usage")
    parser.add_argument("--record", type=Path, help="append each session to this file, and go on")
    parser.add_argument(
        "--total", type=Path, metavar="FILE", help="only add up what this code has recorded there"
    )
    given = parser.parse_args(arguments)
    # Ended from outside it still stops what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if given.total is not None:
        total = evidence.total(evidence.read(given.total, code=evidence.code_digest()))
    else:
        total = run(given.kills, given.seed, given.record)
    sys.stdout.write("\n".join(summary(total)) + "\n")
    return 0 if clean(total) else 1


def _say(text: str) -> None:
    if text:
        sys.stdout.write(f"{time.strftime('%H:%M:%S')} {text}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
