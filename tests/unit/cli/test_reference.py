"""The page about the command line, held against the commands."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from meterpost.cli.app import app
from meterpost.cli.reference import MARKER, commands, reference

PAGE = Path(__file__).parents[3] / "docs" / "cli.md"
COMMANDS = [(words, found) for words, found in commands()]


def test_the_reference_is_current() -> None:
    """docs/cli.md says of every command what its help says: rewrite it after a change."""
    _, _, written = PAGE.read_text(encoding="utf-8").partition(MARKER)
    assert written.strip() == reference().strip(), (
        "run: python -m meterpost.cli.reference docs/cli.md"
    )


@pytest.mark.parametrize(("words", "found"), COMMANDS, ids=[" ".join(w) for w, _ in COMMANDS])
def test_every_command_is_documented(words: tuple[str, ...], found: object) -> None:
    """It has a section, a first sentence, and an example."""
    assert f"### {' '.join(words)}\n" in PAGE.read_text(encoding="utf-8")
    help_ = getattr(found, "help", None) or ""
    assert help_.split("\n")[0].strip()
    assert "Example:\n  " in help_
    assert "meterpost" in help_.partition("Example:")[2]


@pytest.mark.parametrize(("words", "found"), COMMANDS, ids=[" ".join(w) for w, _ in COMMANDS])
def test_every_command_can_answer_programs(words: tuple[str, ...], found: object) -> None:
    """`--json` and `--workspace` are there on each."""
    options = {option for each in found.params for option in each.opts}  # type: ignore[attr-defined]
    assert "--workspace" in options
    if words[1] != "up":
        assert "--json" in options


def test_every_operation_has_a_command() -> None:
    """Nothing that can be asked for over HTTP is missing on the command line."""
    from meterpost.operations.registry import operations

    sources = "\n".join(
        path.read_text(encoding="utf-8")
        for path in (PAGE.parents[1] / "src" / "meterpost" / "cli").glob("*.py")
    )
    asked = {each.name for each in operations() if f'"{each.name}"' in sources}
    #: `check` works without a database, `masterdata import` takes files.
    elsewhere = {"config.check", "masterdata.import"}
    assert {each.name for each in operations()} - asked == elsewhere


@pytest.mark.parametrize(
    ("command", "golden"),
    [(("tx", "approve"), "tx_approve.txt"), (("ingest",), "ingest.txt"), ((), "meterpost.txt")],
    ids=["tx approve", "ingest", "meterpost"],
)
def test_help_reads_as_agreed(
    command: tuple[str, ...], golden: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Golden texts: a change of wording is reviewed. Rewrite with tests/unit/cli/golden.py."""
    monkeypatch.setenv("COLUMNS", "100")
    result = CliRunner().invoke(app, [*command, "--help"], prog_name="meterpost")
    assert result.exit_code == 0
    assert result.stdout == (Path(__file__).parent / "golden" / golden).read_text(encoding="utf-8")
