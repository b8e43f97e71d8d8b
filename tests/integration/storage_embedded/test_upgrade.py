"""From PostgreSQL 16 to 18 with every row."""

from __future__ import annotations

import os
from pathlib import Path

import psycopg
import pytest

from meterpost.core.errors import NotFound, Permanent
from meterpost.storage.embedded import EmbeddedPostgres, upgrade

pytestmark = pytest.mark.integration


@pytest.fixture(params=["reachable", "closed"])
def old_cluster(request: pytest.FixtureRequest) -> Path:
    """A cluster of PostgreSQL 16 with rows, also where root had to put the data elsewhere."""
    if request.param == "closed" and os.geteuid() != 0:
        pytest.skip("only root's folders are closed to the server's user")
    name = "workspace" if request.param == "reachable" else "closed_workspace"
    data = request.getfixturevalue(name) / "pg"
    with (
        EmbeddedPostgres(data, version=16) as server,
        psycopg.connect(server.dsn()) as connection,
    ):
        connection.execute("CREATE TABLE kept (n bigint GENERATED ALWAYS AS IDENTITY, t text)")
        connection.execute("INSERT INTO kept (t) SELECT 'ä' || n FROM generate_series(1, 5000) n")
    return data


def test_rows_survive_and_the_old_data_is_kept(old_cluster: Path) -> None:
    """18 refuses the old data and names the command, which brings every row over."""
    with pytest.raises(Permanent, match="meterpost db upgrade"):
        EmbeddedPostgres(old_cluster).start()

    done = upgrade(old_cluster)

    assert (done.from_version, done.to_version) == (16, 18)
    assert done.kept is not None
    assert (done.kept / "PG_VERSION").read_text().strip() == "16"
    with EmbeddedPostgres(old_cluster) as server, psycopg.connect(server.dsn()) as connection:
        assert connection.info.server_version // 10_000 == 18
        assert connection.execute("SELECT count(*), max(n), max(t) FROM kept").fetchone() == (
            5000,
            5000,
            "ä999",
        )
        row = connection.execute("INSERT INTO kept (t) VALUES ('new') RETURNING n").fetchone()
        assert row == (5001,)
    assert upgrade(old_cluster).kept is None, "a second time there is nothing to do"


def test_an_upgrade_killed_between_its_renames_is_finished(workspace: Path) -> None:
    """With the old data aside and the new not yet in place, nothing is started afresh."""
    data = workspace / "pg"
    with EmbeddedPostgres(data) as server, psycopg.connect(server.dsn()) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS n")
    data.rename(workspace / "pg.upgraded")
    (workspace / "pg.upgraded" / "meterpost-verified").touch()
    (workspace / "pg.before-16").mkdir()

    with pytest.raises(Permanent, match="meterpost db upgrade"):
        EmbeddedPostgres(data).start()
    assert upgrade(data).kept == workspace / "pg.before-16"

    with EmbeddedPostgres(data) as server, psycopg.connect(server.dsn()) as connection:
        assert connection.execute("SELECT n FROM kept").fetchone() == (1,)


def test_where_there_is_nothing_nothing_is_made(workspace: Path) -> None:
    """Upgrading an empty place says so."""
    with pytest.raises(NotFound, match="no database"):
        upgrade(workspace / "pg")
    assert not (workspace / "pg").exists()
