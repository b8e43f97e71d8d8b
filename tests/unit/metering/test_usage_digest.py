"""Digests add up."""

from __future__ import annotations

import pytest

from meterpost.metering.usage_digest import EMPTY, combine, fingerprint_of, render


def test_the_digest_of_a_whole_is_the_combination_of_its_parts():
    """Order does not matter, lanes wrap at 2⁶⁴, and nothing added is nothing changed."""
    one, two = render(2**64 - 1, 5, 1), render(3, 7, 2)
    assert combine([one, two]) == combine([two, EMPTY, one]) == render(2, 12, 3)
    assert combine([]) == EMPTY
    with pytest.raises(ValueError, match="not a usage digest"):
        combine(["12"])


def test_the_fingerprint_depends_on_every_part_of_an_event():
    """Another source, id, type, subject, time or data is another event."""
    parts = ["s", "i", "t", "c", 5, "{}"]
    seen = {fingerprint_of(*parts)}
    for n, other in enumerate(["x", "x", "x", "x", None, None]):
        changed = parts.copy()
        changed[n] = other
        seen.add(fingerprint_of(*changed))
    assert len(seen) == 7
