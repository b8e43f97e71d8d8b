"""Tables and texts for people: aligned, numbers to the right, colours only on a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from meterpost.core.money import minor_units

_WIDTH_WITHOUT_TERMINAL = 200

_COLOURS = {
    "in_review": "yellow",
    "held": "yellow",
    "deferred": "yellow",
    "in_doubt": "red",
    "rejected": "red",
    "missing": "red",
    "changed": "red",
    "posted": "green",
    "reconciled": "green",
    "equal": "green",
    "approved": "cyan",
}


def console() -> Console:
    """Standard output; without a terminal wide enough that nothing is cut."""
    terminal = sys.stdout.isatty()
    width = None if terminal or os.environ.get("COLUMNS") else _WIDTH_WITHOUT_TERMINAL
    return Console(
        file=sys.stdout, width=width, highlight=False, color_system="auto" if terminal else None
    )


def say(text: str = "") -> None:
    """A line of text, as it is."""
    console().print(Text(text), soft_wrap=True)


@dataclass(frozen=True, slots=True)
class Column:
    """A heading and how a row's cell is written; ``right`` for numbers."""

    heading: str
    cell: Callable[[Mapping[str, Any]], object]
    right: bool = False


def text(heading: str, key: str | None = None) -> Column:
    """A cell as it is; nothing for null."""
    name = key or heading
    return Column(heading, lambda row: "" if row[name] is None else row[name])


def number(heading: str, key: str | None = None) -> Column:
    """A number with separated thousands."""
    name = key or heading
    return Column(heading, lambda row: quantity(row[name]), right=True)


def money(heading: str, key: str | None = None, currency: str = "currency") -> Column:
    """An amount in minor units of the row's currency."""
    name = key or heading
    return Column(heading, lambda row: amount(row[name], row[currency]), right=True)


def moment(heading: str, key: str | None = None) -> Column:
    """A moment in UTC, to the minute."""
    name = key or heading
    return Column(heading, lambda row: when(row[name]))


def table(columns: Sequence[Column], rows: Iterable[Mapping[str, Any]], empty: str) -> None:
    """The rows, or a sentence where there are none."""
    rows = list(rows)
    if not rows:
        say(empty)
        return
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        shown.add_column(
            column.heading, justify="right" if column.right else "left", overflow="fold"
        )
    for row in rows:
        shown.add_row(*(_cell(column.cell(row)) for column in columns))
    console().print(shown)


def pairs(rows: Iterable[tuple[str, object]]) -> None:
    """Names and values, one pair per line; pairs without a value are left out."""
    shown = Table(box=None, pad_edge=False, show_header=False)
    shown.add_column(style="bold")
    shown.add_column(overflow="fold")
    for name, value in rows:
        if value is not None and value != "":
            shown.add_row(Text(name), _cell(value))
    console().print(shown)


def more(page: Mapping[str, Any]) -> None:
    """A word about what did not fit."""
    if page.get("next"):
        say(f"More: --cursor {page['next']}")


def amount(value: object, currency: str) -> str:
    """Money with separated thousands and its currency's decimals.

    >>> amount("1234.5", "EUR")
    '1,234.50'
    """
    return "" if value is None else f"{Decimal(str(value)):,.{minor_units(currency)}f}"


def quantity(value: object) -> str:
    """An exact number with separated thousands.

    >>> quantity("1234567.25")
    '1,234,567.25'
    """
    return "" if value is None else f"{Decimal(str(value)):,f}"


def when(value: object) -> str:
    """A moment in UTC, to the minute.

    >>> when("2026-10-15T12:00:59Z")
    '2026-10-15 12:00Z'
    """
    if value is None:
        return ""
    return f"{datetime.fromisoformat(str(value)):%Y-%m-%d %H:%MZ}"


def counts(values: Mapping[str, Any]) -> str:
    """``3 posted, 1 held``; nothing is left out but zeros.

    >>> counts({"posted": 3, "held": 0})
    '3 posted'
    """
    return ", ".join(f"{quantity(n)} {name}" for name, n in values.items() if n) or "none"


def _cell(value: object) -> Text:
    if isinstance(value, (list, tuple)):
        value = ", ".join(map(str, value))
    words = str(value)
    return Text(words, style=_COLOURS.get(words, ""))
