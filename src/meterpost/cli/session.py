"""One run of a command: which workspace, who asks, and whether the engine or we do the work."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from meterpost.cli.keys import token_of
from meterpost.cli.progress import Bars
from meterpost.config import Workspace, find_workspace, open_workspace
from meterpost.core.canonical import to_plain
from meterpost.core.errors import MeterpostError
from meterpost.core.ids import RandomIds
from meterpost.engine.client import EngineClient, EngineNotRunning
from meterpost.engine.lock import EventStoreLock
from meterpost.engine.ports import Caller
from meterpost.engine.run_dir import RunDirectory

if TYPE_CHECKING:
    from meterpost.bootstrap import Application


class Session:
    """What a command is handed.

    A running engine is asked through its socket. Without one the application is opened here, an
    embedded server started for the time, and the event store taken under its lock.
    """

    def __init__(
        self, workspace: Path | None = None, user: str | None = None, *, as_json: bool = False
    ) -> None:
        self._given = workspace
        self._user = user
        self.as_json = as_json
        self.bars = Bars()
        self.exit_code = 0
        self._stack = ExitStack()
        self._application: Application | None = None
        self._lock: EventStoreLock | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bars.end()
        if self._application is not None:
            self._seal(self._application)
        self._stack.close()

    @cached_property
    def root(self) -> Path:
        """The workspace's folder. Raises: NotFound."""
        return find_workspace(self._given)

    @cached_property
    def workspace(self) -> Workspace:
        """The checked workspace. Raises: InvalidInput with every problem."""
        return open_workspace(self.root)

    @cached_property
    def _run_directory(self) -> RunDirectory:
        return RunDirectory(self.workspace.places.sockets)

    def call(self, operation: str, **arguments: object) -> Any:
        """The operation's plain result, from the engine or from here.

        Raises: what the operation raises; NotAuthenticated, NeedsPerson about the key.
        """
        token = token_of(self.root, self._user)
        plain: Any = to_plain({key: value for key, value in arguments.items() if value is not None})
        if self._application is None:
            client = EngineClient(self._run_directory)
            try:
                return client.call(
                    operation, plain, caller=Caller(token=token), on_progress=self.bars
                )
            except EngineNotRunning:
                pass
            finally:
                self.bars.end()
        return self._here(operation, plain, token)

    def pages(self, operation: str, **arguments: object) -> list[Any]:
        """The items of all pages of a list."""
        items: list[Any] = []
        cursor: object = None
        while True:
            page = self.call(operation, **arguments, cursor=cursor, limit=1000)
            items += page["items"]
            cursor = page["next"]
            if cursor is None:
                return items

    def show(self, result: Any, present: Callable[[Any], None]) -> None:
        """The result: as it is with --json, else as the function presents it."""
        if self.as_json:
            sys.stdout.write(json.dumps(result, ensure_ascii=False, indent=2) + "\n")
        else:
            present(result)

    def application(self) -> Application:
        """The application opened in this process, once."""
        if self._application is None:
            # Imported late: `--help` needs no database.
            from meterpost.bootstrap import open_application

            self._application = self._stack.enter_context(
                open_application(self.workspace, name="meterpost-cli", on_progress=self.bars.note)
            )
        return self._application

    def _here(self, operation: str, arguments: Mapping[str, Any], token: str) -> Any:
        from meterpost.operations.registry import Context, find_operation

        found = find_operation(operation)
        application = self.application()
        principal = application.access.authenticate(token, application.clock.now())
        if found.needs_events and self._lock is None:
            self._lock = self._stack.enter_context(EventStoreLock(self._run_directory))
            # Let go of the file before the lock.
            self._stack.callback(application.close)
        context = Context(application, principal, RandomIds().correlation_id(), self.bars)
        try:
            return found.run(context, arguments)
        finally:
            self.bars.end()

    @staticmethod
    def _seal(application: Application) -> None:
        """What the engine does every second: vouch for what was decided."""
        try:
            application.sealer.seal(application.clock.now())
        except MeterpostError as exc:
            sys.stderr.write(f"Warning: the audit log was not sealed: {exc}\n")
