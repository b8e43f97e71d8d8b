"""Folders for clusters, and a real server shared by the tests that only ask it something."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from meterpost.storage.embedded.places import Places
from meterpost.testing.postgres import embedded_server


@pytest.fixture
def workspace() -> Iterator[Path]:
    """A folder the server's user can pass through, removed afterwards."""
    root = Path(tempfile.mkdtemp(prefix="meterpost-test-"))
    if os.geteuid() == 0:
        root.chmod(0o711)
    yield root
    _remove(root)


@pytest.fixture
def closed_workspace() -> Iterator[Path]:
    """A folder nobody but its owner can enter, as a checkout of root's often is."""
    root = Path(tempfile.mkdtemp(prefix="meterpost-test-"))
    yield root
    _remove(root)


@pytest.fixture(scope="session")
def admin_dsn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with embedded_server(tmp_path_factory.mktemp("server")) as dsn:
        yield dsn


def _remove(root: Path) -> None:
    for link in root.glob("**/pg"):
        if link.is_symlink():  # a cluster that had to go elsewhere
            shutil.rmtree(Places.of(link).data.parent, ignore_errors=True)
    shutil.rmtree(root)
