"""Programs within reach of the user that runs them."""

from __future__ import annotations

import os
import shutil
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from meterpost.storage.embedded import EmbeddedPostgres, binaries
from meterpost.storage.embedded.account import Account, server_account
from meterpost.storage.embedded.binaries import Binaries, binaries_for, wheel_binaries

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root's folders are closed to the server"),
]


@pytest.fixture
def closed_wheel(
    closed_workspace: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> Binaries:
    """The wheel inside a folder only root can enter; copies go to ``workspace``."""
    package = wheel_binaries(18).directory.parent.parent
    site = closed_workspace / "site-packages"
    kept_out = shutil.ignore_patterns("include", "*.a")
    shutil.copytree(
        package / "pginstall18", site / package.name / "pginstall18", symlinks=True, ignore=kept_out
    )
    shutil.copytree(package.parent / f"{package.name}.libs", site / f"{package.name}.libs")
    closed = Binaries(18, site / package.name / "pginstall18" / "bin")
    monkeypatch.setattr(binaries, "wheel_binaries", lambda _version: closed)
    monkeypatch.setattr(binaries, "shared_root", lambda _account: workspace)
    return closed


def test_a_closed_checkout_runs_from_one_copy(closed_wheel: Binaries, workspace: Path) -> None:
    """Starts at the same moment share one whole copy that only root can change."""
    account = server_account(workspace / "pg", None)
    assert not account.can_enter(closed_wheel.directory)

    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(lambda _n: binaries_for(account, 18), range(4)))

    assert len(found) == 1
    copies = list((workspace / "postgresql").iterdir())
    assert len(copies) == 1, "nothing half-built is left"
    for path in copies[0].rglob("*"):
        assert path.stat().st_uid == 0
        assert not stat.S_IMODE(path.stat().st_mode) & 0o022
    with (
        EmbeddedPostgres(workspace / "pg") as server,
        psycopg.connect(server.dsn()) as connection,
    ):
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_binaries_in_reach_are_used_in_place() -> None:
    """Nothing is copied where nothing stands in the way."""
    own = Account("root", os.geteuid(), os.getegid())
    assert binaries_for(own, 18) == wheel_binaries(18)
