"""A supervised process given by its argument list."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from meterpost.supervise import leash
from meterpost.supervise.model import RestartPolicy
from meterpost.supervise.probe import ReadyCheck


class Supervised(Protocol):
    """What a supervisor needs of a child. No method but `launch` may block for long."""

    @property
    def name(self) -> str:
        """A short word for messages and the state file."""
        ...

    @property
    def policy(self) -> RestartPolicy:
        """When it is started again."""
        ...

    @property
    def ready_within_s(self) -> float:
        """How long it may take to become ready; later counts as dead."""
        ...

    @property
    def grace_s(self) -> float:
        """How long it may take to stop when asked."""
        ...

    @property
    def launch_may_take_long(self) -> bool:
        """Whether `launch` blocks until ready, and so must be interruptible by a signal."""
        ...

    def launch(self) -> None:
        """Start it. Raises: MeterpostError or OSError telling why it cannot be started."""
        ...

    def ready(self) -> bool:
        """Whether it can work."""
        ...

    def running(self) -> bool:
        """Whether it is alive."""
        ...

    def pid(self) -> int | None:
        """Its process number while it is alive."""
        ...

    def ask_to_stop(self) -> None:
        """Tell it to finish; returns at once."""
        ...

    def kill(self) -> None:
        """End it, and whatever it started, now."""
        ...

    def last_exit(self) -> str | None:
        """How it ended, for people, after it did."""
        ...

    def tend(self) -> None:
        """Called every second or so while it runs."""
        ...


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """A process: what to run and how to treat it.

    ``env`` replaces the environment, None passes ours on; ``clears`` are files of its last run
    (a ready file) to be removed before each start; ``log`` collects what it prints, None leaves
    it on our own output.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] | None = field(default=None, repr=False)
    cwd: Path | None = None
    ready: ReadyCheck | None = None
    ready_within_s: float = 60.0
    grace_s: float = 15.0
    policy: RestartPolicy = field(default_factory=RestartPolicy)
    clears: Sequence[Path] = ()
    log: Path | None = None


class ProcessChild:
    """A child in a process group of its own that dies with the supervisor."""

    launch_may_take_long = False

    def __init__(self, spec: ChildSpec) -> None:
        self._spec = spec
        self._process: subprocess.Popen[bytes] | None = None
        self.name = spec.name
        self.policy = spec.policy
        self.ready_within_s = spec.ready_within_s
        self.grace_s = spec.grace_s

    def launch(self) -> None:
        """Start it.

        Must be called in a thread that lives as long as the supervisor: the kernel takes the
        end of the starting thread for the parent's death.
        """
        for path in self._spec.clears:
            path.unlink(missing_ok=True)
        argv = [
            sys.executable,
            "-I",
            "-S",
            str(Path(leash.__file__)),
            str(os.getpid()),
            *self._spec.argv,
        ]
        log = None if self._spec.log is None else self._spec.log.open("ab")
        try:
            self._process = subprocess.Popen(
                argv,
                env=None if self._spec.env is None else dict(self._spec.env),
                cwd=self._spec.cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C reaches it through us, in order
            )
        finally:
            if log is not None:
                log.close()

    def ready(self) -> bool:
        """What the ready-check says; without one, being alive is enough."""
        return self.running() and (self._spec.ready is None or self._spec.ready())

    def running(self) -> bool:
        """Whether the process itself is alive; when it has died, its workers are ended too.

        As long as the dead process is not waited for, its number, which is its group's, belongs
        to nobody else: that is the moment to end what it left behind.
        """
        if self._process is None or self._process.returncode is not None:
            return False
        found = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if found is None:
            return True
        self._end_group(self._process)
        return False

    def pid(self) -> int | None:
        """Its process number while it is alive."""
        return self._process.pid if self._process is not None and self.running() else None

    def ask_to_stop(self) -> None:
        """SIGTERM to the process, which tells its own workers."""
        if self._process is not None and self.running():
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to its whole group."""
        if self._process is not None and self._process.returncode is None:
            self._end_group(self._process)

    @staticmethod
    def _end_group(process: subprocess.Popen[bytes]) -> None:
        with suppress(ProcessLookupError, PermissionError):  # it ends before it has a group
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def last_exit(self) -> str | None:
        """``exit code 3`` or ``SIGKILL``."""
        code = None if self._process is None else self._process.returncode
        if code is None:
            return None
        return f"exit code {code}" if code >= 0 else signal.Signals(-code).name

    def tend(self) -> None:
        """Nothing to do for a plain process."""
