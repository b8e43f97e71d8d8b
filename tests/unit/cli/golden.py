"""Rewrites the golden help texts: ``python tests/unit/cli/golden.py``."""

from __future__ import annotations

import os
from pathlib import Path

from typer.testing import CliRunner

from meterpost.cli.app import app

os.environ["COLUMNS"] = "100"
FOLDER = Path(__file__).parent / "golden"
for name, command in {
    "tx_approve": ["tx", "approve"],
    "ingest": ["ingest"],
    "meterpost": [],
}.items():
    said = CliRunner().invoke(app, [*command, "--help"], prog_name="meterpost")
    (FOLDER / f"{name}.txt").write_text(said.stdout, encoding="utf-8")
