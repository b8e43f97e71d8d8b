"""When a dead child is started again, and when that is given up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """At most ``restarts_max`` restarts within ``window_s``, each waiting twice as long.

    A child that then runs for a whole window begins with a clean sheet.
    """

    restarts_max: int = 5
    window_s: float = 60.0
    backoff_first_s: float = 0.2
    backoff_max_s: float = 10.0

    def __post_init__(self) -> None:
        if self.restarts_max < 0 or min(self.window_s, self.backoff_first_s) <= 0:
            raise ValueError("a restart policy needs a count of 0 or more and positive times")

    def delay_s(self, restarts_at: Sequence[float], now: float) -> float | None:
        """Seconds to wait before the next restart, or None to give up.

        ``restarts_at`` and ``now`` are seconds of one steady clock.
        """
        recent = sum(1 for moment in restarts_at if now - moment < self.window_s)
        if recent >= self.restarts_max:
            return None
        # The exponent has a bound, for 2.0 ** 2000 is an error and not a long time.
        return float(min(self.backoff_max_s, self.backoff_first_s * 2.0 ** min(recent, 64)))
