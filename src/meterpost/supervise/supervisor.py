"""The parent of the supervised processes."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import FrameType

from meterpost.core.clock import Clock, SystemClock
from meterpost.core.errors import MeterpostError, NeedsPerson, Permanent
from meterpost.supervise.child import Supervised
from meterpost.supervise.lock import WorkspaceLock
from meterpost.supervise.state import ChildState, Phase, SupervisorState

_TICK_S = 0.05
_TEND_EVERY_S = 1.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class _Interrupted(BaseException):
    """A signal to stop, while a launch takes its time."""


@dataclass(slots=True)
class _Watched:
    """A child and what happened to it; moments of the steady clock."""

    child: Supervised
    phase: Phase = "waiting"
    launched_at: float = 0.0
    due_at: float = 0.0
    tended_at: float = 0.0
    restarts_at: list[float] = field(default_factory=list)
    started_at: datetime | None = None
    was_ready: bool = False
    last_exit: str | None = None


class Supervisor:
    """Runs children until it is told to stop, or until one cannot be kept alive.

    They start in the order given, each once the one before is ready, and stop in reverse
    order. A child that dies alone is restarted alone.
    """

    def __init__(
        self,
        children: Sequence[Supervised],
        *,
        lock: Path,
        state: Path,
        on_event: Callable[[str], None] | None = None,
        clock: Clock | None = None,
    ) -> None:
        if len({child.name for child in children}) != len(children):
            raise ValueError("two children have the same name")
        self._watched = [_Watched(child) for child in children]
        self._lock = WorkspaceLock(lock)
        self._state_path = state
        self._tell = on_event or _silent
        self._clock = clock or SystemClock()
        self._stop = threading.Event()
        self._hurry = threading.Event()
        self._interruptible = False
        self._phase: Phase = "starting"
        self._started_at = self._clock.now()
        #: Why `run` returned something else than 0.
        self.failure: str | None = None

    def run(self) -> int:
        """The exit code, after everything has stopped: 0 when asked to, 1 after a failure.

        SIGTERM, SIGINT and SIGHUP stop in order; a second one stops at once. Call it in the
        main thread: signals arrive there, and children die with the thread that started them.

        Raises: Conflict where another supervisor runs in this workspace.
        """
        with self._lock, self._signals():
            self._started_at = self._clock.now()
            try:
                while not self._stop.is_set() and self.failure is None:
                    self._tick()
                    self._stop.wait(_TICK_S)
            finally:
                self._stop_all()
        return 0 if self.failure is None else 1

    def request_stop(self) -> None:
        """Make `run` stop everything and return; safe from any thread."""
        self._stop.set()

    # -- keeping alive ------------------------------------------------------------------------

    def _tick(self) -> None:
        for watched in self._watched:
            if self._stop.is_set() or self.failure is not None:
                return
            match watched.phase:
                case "waiting":
                    self._launch(watched)
                case "restarting" if time.monotonic() >= watched.due_at:
                    self._launch(watched)
                case "starting":
                    self._look_at_starting(watched)
                case "ready":
                    self._look_at_ready(watched)
                case _:
                    pass
            if not watched.was_ready:
                return  # the next one starts when this one was ready once
        if self._phase == "starting":
            self._phase = "ready"
            self._write()

    def _launch(self, watched: _Watched) -> None:
        child = watched.child
        self._set(watched, "starting")
        watched.launched_at = time.monotonic()
        watched.started_at = self._clock.now()
        try:
            with self._may_be_interrupted(child):
                child.launch()
        except _Interrupted:
            return
        except (MeterpostError, OSError) as exc:
            if isinstance(exc, (NeedsPerson, Permanent)) and not watched.was_ready:
                self._fail(watched, str(exc))  # the same start would fail again
            else:
                self._died(watched, str(exc))
            return
        self._set(watched, "starting")  # now with its process number

    def _look_at_starting(self, watched: _Watched) -> None:
        child = watched.child
        if not child.running():
            self._died(watched, child.last_exit() or "ended")
        elif child.ready():
            watched.was_ready = True
            self._set(watched, "ready")
            self._tell(f"{child.name} is ready (process {child.pid()})")
        elif time.monotonic() - watched.launched_at > child.ready_within_s:
            child.kill()
            self._died(watched, f"was not ready within {child.ready_within_s:.0f} s")

    def _look_at_ready(self, watched: _Watched) -> None:
        child, now = watched.child, time.monotonic()
        if not child.running():
            self._died(watched, child.last_exit() or "ended")
        elif now - watched.tended_at > _TEND_EVERY_S:
            watched.tended_at = now
            child.tend()

    def _died(self, watched: _Watched, how: str) -> None:
        now, policy = time.monotonic(), watched.child.policy
        watched.last_exit = how
        delay = policy.delay_s(watched.restarts_at, now)
        if delay is None:
            self._fail(
                watched,
                f"it ended {policy.restarts_max + 1} times within {policy.window_s:.0f} s, "
                f"last with: {how}",
            )
            return
        watched.restarts_at.append(now)
        watched.due_at = now + delay
        self._set(watched, "restarting")
        self._tell(f"{watched.child.name} ended ({how}); starting it again in {delay:.1f} s")

    def _fail(self, watched: _Watched, why: str) -> None:
        watched.last_exit = watched.last_exit or why
        self._set(watched, "failed")
        self.failure = f"{watched.child.name} cannot be kept running: {why}"
        self._tell(self.failure)

    # -- stopping -----------------------------------------------------------------------------

    def _stop_all(self) -> None:
        self._phase = "stopping"
        for watched in reversed(self._watched):
            if watched.phase == "waiting":
                continue
            failed = watched.phase == "failed"
            self._set(watched, "stopping")
            self._stop_one(watched.child)
            watched.last_exit = watched.child.last_exit() or watched.last_exit
            self._set(watched, "failed" if failed else "stopped")
            self._tell(f"{watched.child.name} is stopped")
        self._phase = "stopped" if self.failure is None else "failed"
        self._write()

    def _stop_one(self, child: Supervised) -> None:
        child.ask_to_stop()
        deadline = time.monotonic() + child.grace_s
        while child.running():
            if self._hurry.is_set() or time.monotonic() > deadline:
                self._tell(f"{child.name} does not stop; ending it")
                child.kill()
                return
            self._hurry.wait(_TICK_S)

    # -- signals and state --------------------------------------------------------------------

    @contextmanager
    def _signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()
        if self._interruptible:
            self._interruptible = False
            raise _Interrupted

    @contextmanager
    def _may_be_interrupted(self, child: Supervised) -> Iterator[None]:
        self._interruptible = child.launch_may_take_long
        try:
            if self._stop.is_set():  # the signal came just before
                raise _Interrupted
            yield
        finally:
            self._interruptible = False

    def _set(self, watched: _Watched, phase: Phase) -> None:
        watched.phase = phase
        self._write()

    def _write(self) -> None:
        children = tuple(
            ChildState(
                name=watched.child.name,
                phase=watched.phase,
                pid=watched.child.pid(),
                started_at=watched.started_at,
                # One counted ahead is waiting for its delay; the policy forgets old ones, we not.
                restarts=len(watched.restarts_at),
                last_exit=watched.last_exit,
            )
            for watched in self._watched
        )
        SupervisorState(os.getpid(), self._started_at, self._phase, children).write(
            self._state_path
        )


def _silent(message: str) -> None:
    """Nobody asked to be told."""
