"""What a bench reports: the median of several runs, beside a floor and an aim."""

from __future__ import annotations

import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent

#: A page's figures stand between these lines.
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table.

    ``runs`` are the values measured, ``floor`` those of the plain way over the same rows (none:
    no floor), ``aim`` the value asked for; where ``lower_is_better``, what not to exceed.
    """

    name: str
    unit: str
    runs: Sequence[float]
    floor: Sequence[float] = ()
    aim: float | None = None
    lower_is_better: bool = False
    notes: Mapping[str, object] = field(default_factory=dict)

    @property
    def median(self) -> float:
        """The middle of the runs."""
        return statistics.median(self.runs)

    @property
    def ratio(self) -> float | None:
        """The median as a multiple of the floor's; None without a floor."""
        return self.median / statistics.median(self.floor) if self.floor else None

    @property
    def reached(self) -> bool | None:
        """Whether the aim was reached; None without one."""
        if self.aim is None:
            return None
        return self.median <= self.aim if self.lower_is_better else self.median >= self.aim

    def to_plain(self) -> dict[str, object]:
        """Its fields with median and ratio, for JSON."""
        return {**asdict(self), "median": self.median, "ratio": self.ratio, "reached": self.reached}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Figure:
        """The figure that `to_plain` wrote down."""
        return cls(**{name: plain[name] for name in cls.__dataclass_fields__})


def table(figures: Sequence[Figure]) -> str:
    """The figures as a Markdown table."""
    rows = [("figure", "median", "runs", "floor", "× floor", "aim", "reached")]
    for each in figures:
        ratio, reached = each.ratio, each.reached
        rows.append(
            (
                each.name,
                f"{number(each.median)} {each.unit}",
                f"{number(min(each.runs))} – {number(max(each.runs))}",
                number(statistics.median(each.floor)) if each.floor else "",
                "" if ratio is None else f"{ratio:.2g}",
                "" if each.aim is None else number(each.aim),
                "" if reached is None else ("yes" if reached else "**no**"),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def details(figures: Sequence[Figure]) -> Iterator[str]:
    """A Markdown item per figure that has notes."""
    for figure in figures:
        if figure.notes:
            yield f"- {figure.name}: {_listed(figure.notes)}"


def _listed(notes: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} ({_listed(value)})"
        if isinstance(value, dict)
        else f"{name} {number(value) if isinstance(value, float) else value}"
        for name, value in notes.items()
    )


def with_figures(page: str, text: str) -> str:
    """The page with the text between its two marks.

    Raises: ValueError when it lacks one of them.
    """
    before, _, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"the page needs the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"


def number(value: float) -> str:
    """A value with as many digits as mean something.

    >>> number(224500), number(3.14159), number(0.5)
    ('224,500', '3.14', '0.50')
    """
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.2f}"


def report(figures: Sequence[Figure]) -> None:
    """Print the figures as one JSON line, which `python -m bench` reads."""
    print(json.dumps([figure.to_plain() for figure in figures], default=str), flush=True)


def clean_up_when_terminated() -> None:
    """SIGTERM ends this process as an exception does: servers stop, folders go."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def progress(text: str) -> None:
    """A line on stderr."""
    print(f"  {text}", file=sys.stderr, flush=True)


@contextmanager
def folder() -> Iterator[Path]:
    """An empty folder on the project's own disk, removed afterwards."""
    place = ROOT / ".bench"
    place.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place) as made:
        yield Path(made)


class Phases:
    """How long each phase took: the time of watched functions without those they call."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._clock = clock
        self._inner: list[float] = []

    def watch(self, owner: Any, function: str, phase: str) -> None:
        """Count the time of a module's or class's function to the phase from now on."""
        original = getattr(owner, function)

        @wraps(original)
        def watched(*args: Any, **kwargs: Any) -> Any:
            with self.within(phase):
                return original(*args, **kwargs)

        setattr(owner, function, watched)

    @contextmanager
    def within(self, phase: str) -> Iterator[None]:
        """Count what happens inside to the phase."""
        self._inner.append(0.0)
        begun = self._clock()
        try:
            yield
        finally:
            took = self._clock() - begun
            self.seconds[phase] += took - self._inner.pop()
            if self._inner:
                self._inner[-1] += took

    def taken(self) -> dict[str, float]:
        """The seconds so far, which start again at zero."""
        seconds = {phase: round(value, 3) for phase, value in self.seconds.items()}
        self.seconds.clear()
        return seconds


def pss_mb(pids: Sequence[int]) -> float:
    """Megabytes of memory of these processes, what they share counted once."""
    total = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += next(int(line.split()[1]) for line in text.splitlines() if line[:4] == "Pss:")
    return total * 1024 / 1e6


def peak_rss_mb() -> float:
    """The most memory this process ever had in use."""
    text = Path(f"/proc/{os.getpid()}/status").read_text()
    line = next(line for line in text.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024 / 1e6
