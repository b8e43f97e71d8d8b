"""A complaint about data, as a value that can be collected, counted and shown."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, where, and what helps.

    ``code`` is a stable word for machines (``missing-id``), ``sentence`` is for people,
    ``where`` is a field path (``data.tokens``) or ``file:line``.
    """

    code: str
    sentence: str
    where: str = ""
    hint: str = ""

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        return f"{place}{self.sentence}" + (f" {self.hint}" if self.hint else "")
