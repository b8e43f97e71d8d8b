"""Which process dies where: the crash points by stage of work, and a seeded order of kills."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Literal

Stage = Literal["ingest", "close", "posting"]
Victim = Literal["edge", "engine", "postgres"]

STAGES: tuple[Stage, ...] = ("ingest", "close", "posting")

#: Crash points by the stage whose work reaches them. ``postmaster.STAGE`` is no line of code:
#: the server is killed from outside while a transaction (or call) of the stage is open.
POINTS: Mapping[Stage, tuple[str, ...]] = {
    "ingest": (
        "edge.journal.before_commit",
        "edge.journal.after_commit",
        "engine.drain.before_commit",
        "engine.drain.after_commit",
        "engine.relay.before_forget",
        "postmaster.ingest",
    ),
    "close": (
        "close.frame.after_commit",
        "close.records.before_commit",
        "close.records.after_commit",
        "close.batch.before_commit",
        "close.staged.after_commit",
        "postmaster.close",
    ),
    "posting": (
        "posting.reserve.after_commit",
        "posting.send.before",
        "posting.send.after",
        "posting.record.before_commit",
        "posting.record.after_commit",
        "postmaster.posting",
    ),
}

#: Up to which time of reaching a point the process lives on.
_NTH_MAX: Mapping[Stage, int] = {"ingest": 3, "close": 1, "posting": 12}


@dataclass(frozen=True, slots=True)
class Kill:
    """One SIGKILL: at the ``nth`` time its victim reaches the point."""

    stage: Stage
    point: str
    nth: int = 1

    @property
    def victim(self) -> Victim:
        """The process that dies."""
        if self.point.startswith("postmaster."):
            return "postgres"
        return "edge" if self.point.startswith("edge.") else "engine"

    @property
    def armed(self) -> str:
        """As the process is told by its environment."""
        return f"{self.point}:{self.nth}"


def kills(total: int, source: random.Random) -> Sequence[Kill]:
    """That many kills, equally over the stages and over each stage's points, stage by stage."""
    planned: list[Kill] = []
    for number, stage in enumerate(STAGES):
        count = total // len(STAGES) + (number < total % len(STAGES))
        points = list(islice(cycle(source.sample(POINTS[stage], len(POINTS[stage]))), count))
        source.shuffle(points)
        planned += [Kill(stage, point, source.randint(1, _NTH_MAX[stage])) for point in points]
    return planned
