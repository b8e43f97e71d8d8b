"""`meterpost up`: everything runs, survives, and goes on where it was."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from meterpost.testing.postgres import embedded_server, fresh_database

pytestmark = pytest.mark.e2e


def test_events_go_through_and_a_restart_goes_on(with_key: Any) -> None:
    """Events are taken, drained and still there after SIGTERM and a new start."""
    up = with_key.up()
    with_key.send(500)
    with_key.until(with_key.drained, "the events are not drained")
    status = with_key.command("status", "--json")
    output, _ = status.communicate(timeout=60)
    assert '"events_behind": 0' in output
    assert '"name": "postgres"' in output
    metrics = with_key.text("/metrics")
    assert 'meterpost_events_received{outcome="accepted"} 500.0' in metrics
    assert "meterpost_engine_up 1" in metrics
    assert "meterpost_engine_drained_sequence 1.0" in metrics
    assert "meterpost_edge_events_behind 0.0" in metrics
    said = with_key.down(up)
    assert f"http://127.0.0.1:{with_key.port}/v1/events" in said
    assert with_key.stored() == 500
    up = with_key.up()
    with_key.send(250)
    with_key.until(with_key.drained, "the events are not drained")
    with_key.down(up)
    assert with_key.stored() == 750


@pytest.mark.timeout(600)
def test_every_process_can_be_killed(with_key: Any) -> None:
    """SIGKILL of engine, edge and postmaster: each comes back, no accepted event is lost or
    counted twice.
    """
    up = with_key.up()
    for child in ("engine", "edge", "postgres"):
        with_key.send(200)
        before = with_key.pid(child)
        with_key.kill(child)
        with_key.send(200)
        with_key.until(
            lambda before=before, child=child: with_key.pid_or_none(child) not in (None, before),
            f"{child} is not started again",
        )
        with_key.until(with_key.drained, f"it does not recover from the end of {child}")
    said = with_key.down(up)
    assert "engine ended (SIGKILL)" in said
    assert with_key.stored() == with_key.sent == 1200


def test_a_killed_supervisor_leaves_nothing_in_the_way(with_key: Any) -> None:
    """Engine and edge die with it, the database is taken over by the next start."""
    up = with_key.up()
    with_key.send(100)
    up.kill()
    up.communicate(timeout=60)
    with_key.until(lambda: with_key.get("/healthz")[0] == 0, "the edge outlives its parent")
    up = with_key.up()
    with_key.until(with_key.drained, "the events are not drained")
    said = with_key.down(up)
    assert "Taking over the PostgreSQL server" in said
    assert with_key.stored() == 100


def test_a_crash_between_the_stores_loses_nothing(with_key: Any) -> None:
    """The engine is killed after its commit and before the relay; the next one goes on."""
    up = with_key.up("--crash", "engine=engine.drain.after_commit")
    first = with_key.pid("engine")
    with_key.send(100)
    with_key.until(
        lambda: with_key.pid_or_none("engine") not in (None, first), "the engine was not killed"
    )
    with_key.until(with_key.drained, "it does not recover")
    with_key.down(up)
    assert with_key.stored() == 100


def test_a_second_up_is_refused_with_the_pid_of_the_first(installation: Any) -> None:
    """Two supervisors never share a workspace; two workspaces never share a port."""
    up = installation.up()
    second = installation.command("up")
    output, _ = second.communicate(timeout=60)
    assert second.returncode == 4
    assert f"(process {up.pid})" in output
    installation.down(up)


def test_a_broken_workspace_is_refused_before_anything_starts(installation: Any) -> None:
    """The sentence names file and line; no process is started and restarted in vain."""
    (installation.root / "meters" / "bad.yaml").write_text("id: x\nunknown_key: 1\n")
    up = installation.command("up")
    output, _ = up.communicate(timeout=60)
    assert up.returncode == 2
    assert "meters/bad.yaml:2" in output
    assert "Traceback" not in output
    assert not (installation.root / ".meterpost" / "pg.log").exists()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    with embedded_server(tmp_path) as admin, fresh_database(admin) as dsn:
        yield dsn


def test_a_server_by_url_is_migrated_only_when_told_to(installation: Any, server: str) -> None:
    """Without the migration `up` names the command that makes it; with it, two processes run."""
    settings = installation.root / "meterpost.yaml"
    settings.write_text(
        settings.read_text().replace(
            "database: embedded", "database:\n  url: {env: TEST_DATABASE_URL}"
        )
    )
    refused = installation.command("up", TEST_DATABASE_URL=server)
    output, _ = refused.communicate(timeout=60)
    assert refused.returncode == 5
    assert "meterpost db migrate" in output
    up = installation.up("--migrate", TEST_DATABASE_URL=server)
    assert server not in Path(installation.root, ".meterpost/run/up.json").read_text()
    os.kill(up.pid, signal.SIGTERM)
    output, _ = up.communicate(timeout=60)
    assert up.returncode == 0, output
    assert "postgres is ready" not in output
    assert "edge is stopped" in output
