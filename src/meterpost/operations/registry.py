"""The table of operations: name, scope, arguments, and where each may run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import TypeAdapter, ValidationError

from meterpost.access.model import Principal, Scope, require
from meterpost.core.canonical import to_plain
from meterpost.core.errors import Conflict, InvalidInput, NotFound
from meterpost.core.problem import Problem

if TYPE_CHECKING:
    from meterpost.bootstrap import Application


class Progress(Protocol):
    """Told how far a long operation has come; callers show it as a bar."""

    def __call__(self, what: str, done: int, total: int | None) -> None:
        """``done`` of ``total`` (None: unknown) units of ``what``."""
        ...


def no_progress(what: str, done: int, total: int | None) -> None:
    """Nobody is watching."""


@dataclass(frozen=True, slots=True)
class Context:
    """What every operation is handed beside its arguments."""

    app: Application
    principal: Principal
    correlation_id: str
    progress: Progress = no_progress


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that can be asked for.

    ``needs_events``: it reads or writes the event store, so it runs in the process that owns it.
    ``creates``: repeating it may create again, so HTTP offers Idempotency-Key for it.
    ``local``: it reads or writes files named by the caller, so only the command line of this
    machine may ask for it, never HTTP.
    """

    name: str
    scope: Scope
    summary: str
    arguments: type
    function: Callable[[Context, Any], object]
    needs_events: bool = False
    creates: bool = False
    local: bool = False

    def run(self, context: Context, arguments: Mapping[str, object]) -> object:
        """The result as plain JSON.

        Raises: NotAllowed without the scope; InvalidInput for arguments that do not fit; and
        whatever the operation raises.
        """
        require(context.principal, self.scope)
        return to_plain(self.function(context, self.parse(arguments)))

    def parse(self, arguments: Mapping[str, object]) -> object:
        """The arguments as the operation's dataclass.

        Raises: InvalidInput naming each argument that does not fit.
        """
        try:
            return _adapter(self.arguments).validate_python(dict(arguments), extra="forbid")
        except ValidationError as exc:
            problems = [
                Problem(
                    error["type"].replace("_", "-"),
                    error["msg"] + ".",
                    ".".join(str(part) for part in error["loc"]),
                )
                for error in exc.errors(include_url=False, include_input=False)
            ]
            raise InvalidInput(f"The arguments of {self.name} do not fit.", problems) from exc


@cache
def _adapter(type_: type) -> TypeAdapter[object]:
    return TypeAdapter(type_)


_OPERATIONS: dict[str, Operation] = {}


def operation(
    name: str,
    *,
    scope: Scope,
    summary: str,
    needs_events: bool = False,
    creates: bool = False,
    local: bool = False,
) -> Callable[[Callable[[Context, Any], object]], Callable[[Context, Any], object]]:
    """Register a function of (context, arguments) as an operation; the second parameter's
    annotation is its frozen dataclass of arguments.
    """

    def register(
        function: Callable[[Context, Any], object],
    ) -> Callable[[Context, Any], object]:
        if name in _OPERATIONS:
            raise Conflict(f"Operation {name} is registered twice.")
        arguments = _argument_type(function)
        _OPERATIONS[name] = Operation(
            name, scope, summary, arguments, function, needs_events, creates, local
        )
        return function

    return register


def operations() -> Iterator[Operation]:
    """Every operation, by name."""
    _load()
    return iter(sorted(_OPERATIONS.values(), key=lambda each: each.name))


def find_operation(name: str) -> Operation:
    """The operation of that name.

    Raises: NotFound.
    """
    _load()
    try:
        return _OPERATIONS[name]
    except KeyError:
        raise NotFound(f"There is no operation {name!r}.") from None


def _argument_type(function: Callable[..., object]) -> type:
    from typing import get_type_hints

    hints = get_type_hints(function)
    hints.pop("return", None)
    _, arguments = hints.values()
    assert isinstance(arguments, type)
    return arguments


@cache
def _load() -> None:
    import importlib
    import pkgutil

    from meterpost import operations as package

    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
