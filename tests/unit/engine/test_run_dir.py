"""Where processes of one workspace find each other."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from meterpost.core.errors import NeedsPerson
from meterpost.engine.peer import Peer
from meterpost.engine.run_dir import SOCKET_PATH_BYTES_MAX, RunDirectory


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short private folder in place of the machine's temporary one."""
    with tempfile.TemporaryDirectory(prefix="mp") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield Path(folder)


def test_a_short_workspace_has_its_socket_inside(short: Path) -> None:
    """Where the path fits, the socket stands in the workspace, and clients read where."""
    run = RunDirectory(short / "run")
    run.prepare()
    assert run.socket() is None
    assert run.new_socket() == run.path.resolve() / "engine.sock"
    assert run.socket() == run.path.resolve() / "engine.sock"


def test_a_long_workspace_has_its_socket_elsewhere_and_says_where(
    tmp_path: Path, short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path of 300 bytes gets a short private place; a client in another environment finds it."""
    run = RunDirectory(tmp_path / ("long" * 30) / ("path" * 30) / "run")
    run.prepare()
    path = run.new_socket()
    assert path.is_relative_to(short)
    assert len(os.fsencode(path)) <= SOCKET_PATH_BYTES_MAX
    assert path.parent.stat().st_mode & 0o777 == 0o700
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert RunDirectory(run.path).socket() == path


def test_two_long_workspaces_have_two_sockets(tmp_path: Path, short: Path) -> None:
    """The short place is derived from the whole path."""
    paths = set()
    for name in ("a" * 120, "b" * 120):
        run = RunDirectory(tmp_path / name / "run")
        run.prepare()
        paths.add(run.new_socket())
    assert len(paths) == 2


def test_a_run_directory_others_can_change_is_refused(tmp_path: Path) -> None:
    """A directory that somebody prepared for us is not trusted."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run").chmod(0o777)
    with pytest.raises(NeedsPerson, match="can be changed by other users"):
        RunDirectory(tmp_path / "run").prepare()


def test_only_the_own_user_and_root_are_trusted() -> None:
    """Another user at the other end of the socket is refused, on either side."""
    assert Peer(1, 1000).trusted_by(1000)
    assert Peer(1, 0).trusted_by(1000)
    assert not Peer(1, 1001).trusted_by(1000)
    assert not Peer(1, 1000).trusted_by(0)
