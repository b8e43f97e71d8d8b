"""docs/audit.md: its program verifies our exports, its table is our roles."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from meterpost.access.model import ROLE_SCOPES, Role
from meterpost.audit.model import AuditEntry, StoredEntry
from meterpost.audit.seal import seal_entries
from meterpost.core.canonical import canonical_json

DOCS = (Path(__file__).parents[3] / "docs" / "audit.md").read_text()


def test_the_documented_program_verifies_an_export(tmp_path: Path) -> None:
    """The program of the page, run as it stands, accepts an export and sees a changed one."""
    program = re.search(r"```python\n(.*?)```", DOCS, re.DOTALL)
    assert program is not None
    names: dict[str, object] = {}
    exec(compile(program.group(1), "docs/audit.md", "exec"), names)
    check = names["check"]
    assert callable(check)
    at = datetime(2026, 10, 1, 8, 0, 0, 250_000, tzinfo=UTC)
    lines: list[object] = [{"format": "meterpost-audit", "version": 1}]
    last = None
    for size in (1, 2, 7):
        entries = [
            StoredEntry(n, AuditEntry(at, "änn", "a", "b", str(n), {"ü": ["1.50", n, None]}))
            for n in range(size)
        ]
        last = seal_entries(entries, last, at)
        lines.append({"seal": last})
        lines += [
            {"place": n, "sequence": e.sequence, "entry": e.entry} for n, e in enumerate(entries)
        ]
    assert last is not None
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"".join(canonical_json(line) + b"\n" for line in lines))
    assert check(path) == last.hash
    path.write_bytes(path.read_bytes().replace(b'"1.50",3', b'"1.51",3'))
    with pytest.raises(AssertionError, match="seal 3"):
        check(path)


def test_the_roles_are_documented() -> None:
    """The page's table of roles is the code's."""
    rows = dict(re.findall(r"^\| ([a-z]+) \| ((?:viewer's, )?`.*`) \|$", DOCS, re.MULTILINE))
    base = " ".join(f"`{scope}`" for scope in sorted(ROLE_SCOPES[Role.VIEWER]))
    expected = {}
    for role, scopes in ROLE_SCOPES.items():
        own = " ".join(f"`{scope}`" for scope in sorted(scopes - ROLE_SCOPES[Role.VIEWER]))
        expected[role.value] = f"viewer's, {own}" if own else base
    assert rows == expected
