"""Tryton's own Python environment, installed once from a lock file with hashes."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from meterpost.core.errors import Permanent, Transient

#: The files that define the environment and its databases, part of the checkout.
TOOLS = Path(__file__).resolve().parents[4] / "tools" / "tryton"

INSTALL_TIMEOUT_S = 900
#: Seconds that one run waits for another that is installing or building the same thing.
LOCK_TIMEOUT_S = 1200


@dataclass(frozen=True, slots=True)
class TrytonInstall:
    """An environment that is ready, and the folder where its databases' dumps are kept."""

    root: Path

    @property
    def venv(self) -> Path:
        """The virtual environment."""
        return self.root / "tryton-venv"

    @property
    def folder(self) -> Path:
        """Configurations, logs and dumps; nobody else can read them."""
        return self.root / "tryton"

    def program(self, name: str) -> str:
        """The path of one of the environment's programs."""
        return str(self.venv / "bin" / name)


def ensure_environment(root: Path) -> TrytonInstall:
    """Tryton's environment under ``root`` (such as ``.erps``), installed where missing or stale.

    Safe to call from several processes at once; takes about 25 seconds the first time.

    Raises: Permanent where the installation fails, with pip's last lines.
    """
    install = TrytonInstall(root.absolute())
    install.root.mkdir(parents=True, exist_ok=True)
    install.folder.mkdir(mode=0o700, exist_ok=True)
    wanted = file_digest([TOOLS / "requirements.lock"])
    with locked(install.folder / "environment.lock"):
        marker = install.venv / "meterpost-lock-digest"
        if marker.exists() and marker.read_text() == wanted:
            return install
        if install.venv.exists():
            shutil.rmtree(install.venv)
        run([sys.executable, "-m", "venv", str(install.venv)], timeout_s=INSTALL_TIMEOUT_S)
        run(
            [
                *(install.program("python"), "-m", "pip", "install", "--quiet"),
                *("--require-hashes", "--requirement", str(TOOLS / "requirements.lock")),
            ],
            timeout_s=INSTALL_TIMEOUT_S,
        )
        marker.write_text(wanted)
    return install


def file_digest(paths: Sequence[Path], *more: str) -> str:
    """A digest of the files' contents and some more words.

    Raises: Permanent naming the file that is missing.
    """
    digest = hashlib.sha256()
    for path in paths:
        try:
            digest.update(path.read_bytes())
        except FileNotFoundError as exc:
            raise Permanent(
                f"{path} is missing; the Tryton fixture works from a checkout of the project only."
            ) from exc
        digest.update(b"\0")
    for word in more:
        digest.update(word.encode() + b"\0")
    return digest.hexdigest()


@contextmanager
def locked(path: Path, timeout_s: float = LOCK_TIMEOUT_S) -> Iterator[None]:
    """Hold a file lock, waiting for another process that has it.

    Raises: Transient where the other does not let go in time.
    """
    deadline = time.monotonic() + timeout_s
    with path.open("w") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Transient(f"Another process has held {path} for {timeout_s} s.") from None
                time.sleep(0.2)
        yield


def run(
    command: Sequence[str], *, timeout_s: float, environment: Mapping[str, str] | None = None
) -> str:
    """What the command printed on standard error.

    Raises: Permanent with its last lines where it fails or takes too long.
    """
    variables = {**os.environ, **(environment or {})}
    variables.pop("PYTHONPATH", None)
    try:
        done = subprocess.run(
            command,
            env=variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired as exc:
        raise Permanent(f"{Path(command[0]).name} did not finish in {timeout_s} s.") from exc
    if done.returncode != 0:
        lines = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise Permanent(f"{Path(command[0]).name} failed ({done.returncode}):\n{lines}")
    return done.stderr
