"""A starter workspace to break."""

from __future__ import annotations

from pathlib import Path

import pytest

from meterpost.config import init_workspace


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return init_workspace(tmp_path / "ws", "acme", "sandbox").root
