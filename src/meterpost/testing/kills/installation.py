"""The three processes under a supervisor, each start armed with the next crash point.

The supervisor, the children and their command lines are those of `meterpost up`. Two things
differ: a process that dies a hundred times is started a hundred times, at once; and the
environment of each start names the crash point at which that run is to die.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from meterpost.config.workspace import Workspace
from meterpost.core.crashpoints import ENVIRONMENT_VARIABLE
from meterpost.engine.client import EngineClient
from meterpost.engine.run_dir import RunDirectory
from meterpost.storage.embedded import EmbeddedPostgres
from meterpost.supervise import (
    ChildSpec,
    ProcessChild,
    RestartPolicy,
    ServerChild,
    Supervisor,
    http_probe,
    read_state,
    ready_file,
)
from meterpost.testing.kills.plan import Kill

_POLICY = RestartPolicy(restarts_max=10_000, window_s=60.0, backoff_first_s=0.05, backoff_max_s=0.1)
_STOP_WITHIN_S = 120.0
_WORDS_SHOWN_MAX = 1_500


class ArmedChild(ProcessChild):
    """A process whose every start is armed with the next kill, until none is left.

    A run that ended otherwise than by its kill gives the kill back: it does not count.
    """

    def __init__(self, spec: ChildSpec, on_kill: Callable[[Kill], None]) -> None:
        super().__init__(spec)
        self._plain = spec
        self._on_kill = on_kill
        self._kills: deque[Kill] = deque()
        self._armed: Kill | None = None
        self._was_ready = False
        self._log_from = 0

    def plan(self, kills: Sequence[Kill]) -> None:
        """Die at these, in order; the next start is armed with the first."""
        self._kills.extend(kills)

    def launch(self) -> None:
        """Note how the last run ended, and start the next."""
        if self._armed is not None:
            if self._died_by_kill():
                self._on_kill(self._armed)
            else:
                self._kills.appendleft(self._armed)
        self._armed = self._kills.popleft() if self._kills else None
        self._was_ready = False
        environment = {k: v for k, v in os.environ.items() if k != ENVIRONMENT_VARIABLE}
        if self._armed is not None:
            environment[ENVIRONMENT_VARIABLE] = self._armed.armed
        log = self._plain.log
        self._log_from = log.stat().st_size if log is not None and log.exists() else 0
        self._spec = ChildSpec(
            name=self._plain.name,
            argv=self._plain.argv,
            env=environment,
            ready=self._plain.ready,
            ready_within_s=self._plain.ready_within_s,
            grace_s=self._plain.grace_s,
            policy=self._plain.policy,
            clears=self._plain.clears,
            log=log,
        )
        super().launch()

    def ready(self) -> bool:
        """As for any child."""
        ready = super().ready()
        self._was_ready |= ready
        return ready

    def _died_by_kill(self) -> bool:
        """Only `crashpoints.reach` sends SIGKILL here: to the engine itself, or to the edge's
        worker, whose parent then says so and ends.
        """
        if self.last_exit() == "SIGKILL":
            return True
        assert self._plain.log is not None
        with self._plain.log.open("rb") as log:
            log.seek(self._log_from)
            said = log.read()
        by_itself = b"Traceback" in said
        return self._was_ready and b"Unexpected exit from worker" in said and not by_itself


class Installation:
    """PostgreSQL, engine and edge over one workspace, in a supervisor's thread of our own.

    ``kills`` are those that happened, in order.
    """

    def __init__(
        self, workspace: Workspace, server: EmbeddedPostgres, say: Callable[[str], None]
    ) -> None:
        self.workspace = workspace
        self.server = server
        self.kills: list[Kill] = []
        self._say = say
        places, edge = workspace.places, workspace.settings.edge
        self.url = f"http://{edge.host}:{edge.port}"
        self.run_directory = RunDirectory(places.sockets)
        self.run_directory.prepare()
        places.logs.mkdir(parents=True, exist_ok=True, mode=0o700)
        ready = self.run_directory.engine_ready
        self.engine = ArmedChild(
            ChildSpec(
                "engine",
                self._argv("engine"),
                ready=ready_file(ready),
                clears=(ready,),
                ready_within_s=300.0,
                grace_s=60.0,
                policy=_POLICY,
                log=places.logs / "engine.out",
            ),
            self.killed,
        )
        self.edge = ArmedChild(
            ChildSpec(
                "edge",
                self._argv("edge"),
                ready=http_probe(f"{self.url}/healthz"),
                ready_within_s=60.0,
                grace_s=30.0,
                policy=_POLICY,
                log=places.logs / "edge.out",
            ),
            self.killed,
        )
        self._supervisor = Supervisor(
            [ServerChild("postgres", server, policy=_POLICY), self.engine, self.edge],
            lock=self.run_directory.supervisor_lock,
            state=self.run_directory.supervisor_state,
            on_event=say,
        )
        # One thread starts all children and lives as long as they do: they die with it.
        self._thread = threading.Thread(target=self._supervisor.run, name="kills-supervisor")

    def _argv(self, process: str) -> Sequence[str]:
        log = self.workspace.places.logs / f"{process}.log"
        root = str(self.workspace.root)
        argv = [sys.executable, "-m", "meterpost", process, "--workspace", root]
        return [*argv, "--log-file", str(log)]

    def client(self) -> EngineClient:
        """The way to the engine."""
        return EngineClient(self.run_directory)

    def killed(self, kill: Kill) -> None:
        """Count a kill that hit work in progress."""
        self.kills.append(kill)
        self._say(f"kill {len(self.kills)}: {kill.armed}")

    def ready(self) -> bool:
        """Whether all three processes can work. Raises: RuntimeError as `require_alive`."""
        self.require_alive()
        state = read_state(self.run_directory.supervisor_state)
        return state is not None and state.phase == "ready"

    def last_words(self) -> str:
        """The end of what engine and edge printed: why they do not start, where they do not."""
        logs = self.workspace.places.logs
        said = [logs / f"{name}.out" for name in ("engine", "edge")]
        return "\n".join(
            f"{path.name}: {path.read_text(errors='replace')[-_WORDS_SHOWN_MAX:]}"
            for path in said
            if path.exists()
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def require_alive(self) -> None:
        """Nothing, while the supervisor runs. Raises: RuntimeError with its failure."""
        if not self._thread.is_alive():
            raise RuntimeError(f"the supervisor ended: {self._supervisor.failure}")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._supervisor.request_stop()
        self._thread.join(_STOP_WITHIN_S)
        if self._thread.is_alive():
            raise RuntimeError("the processes do not stop")


def until(what: Callable[[], object], why: str, *, within_s: float, every_s: float = 0.05) -> None:
    """Return once ``what`` is true. Raises: TimeoutError saying ``why``."""
    deadline = time.monotonic() + within_s
    while not what():
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {within_s:.0f} s {why}")
        time.sleep(every_s)
