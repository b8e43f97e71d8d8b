"""Run directories and processes that end with the test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from meterpost.engine.run_dir import RunDirectory

WAIT_S = 60.0


def until(what: Callable[[], object], why: str) -> None:
    """Return once it is true; fail after a minute."""
    deadline = time.monotonic() + WAIT_S
    while not what():
        assert time.monotonic() < deadline, why
        time.sleep(0.02)


@pytest.fixture
def eventually() -> Callable[[Callable[[], object], str], None]:
    return until


@pytest.fixture
def run_directory() -> Iterator[RunDirectory]:
    with tempfile.TemporaryDirectory(prefix="mp") as folder:
        directory = RunDirectory(Path(folder) / "run")
        directory.prepare()
        yield directory


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts Python code as a process; what is left at the end is killed with its workers."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        script = tmp_path / f"process{len(started)}.py"
        script.write_text(code)
        process = subprocess.Popen(
            [sys.executable, "-W", "error", str(script), *arguments],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
