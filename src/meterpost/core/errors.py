"""Failures, ordered by what to do next.

    MeterpostError
    ├── Transient        try again, perhaps after ``after_s``
    │   └── Throttled    the other side asked us to slow down
    ├── Permanent        fix the input, the mapping or the configuration first
    │   ├── InvalidInput   carries the collected problems
    │   ├── NotFound
    │   └── Conflict       the thing changed, exists already, or is in a state that forbids it
    ├── NeedsPerson      an approval, a credential, a decision
    │   ├── NotAllowed
    │   └── NotAuthenticated
    └── OutcomeUnknown   it may have happened: look before repeating

Bad data is a value (`meterpost.core.problem.Problem`); failing machinery raises one of these.
"""

from __future__ import annotations

from collections.abc import Sequence

from meterpost.core.problem import Problem


class MeterpostError(Exception):
    """Base of everything meterpost raises on purpose; ``str()`` is a sentence for people."""

    #: A stable word for machines, used as the ``type`` of a problem+json answer.
    code = "error"

    def __init__(self, sentence: str, *, hint: str | None = None) -> None:
        super().__init__(sentence if hint is None else f"{sentence} {hint}")
        self.sentence = sentence
        self.hint = hint


class Transient(MeterpostError):
    """Nothing happened; the same attempt may succeed later."""

    code = "transient"

    def __init__(
        self, sentence: str, *, hint: str | None = None, after_s: float | None = None
    ) -> None:
        super().__init__(sentence, hint=hint)
        self.after_s = after_s


class Throttled(Transient):
    """The other side asked us to slow down; nothing happened."""

    code = "throttled"


class Permanent(MeterpostError):
    """Repeating will fail again until the input, mapping or configuration changes."""

    code = "permanent"


class InvalidInput(Permanent):
    """Input that cannot be used, with every problem found in it."""

    code = "invalid-input"

    def __init__(
        self, sentence: str, problems: Sequence[Problem] = (), *, hint: str | None = None
    ) -> None:
        super().__init__(sentence, hint=hint)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "\n".join([super().__str__(), *(f"  {problem}" for problem in self.problems)])


class NotFound(Permanent):
    """The thing named does not exist (here, now, for this reader)."""

    code = "not-found"


class Conflict(Permanent):
    """The thing changed, exists already, or is in a state that forbids the request."""

    code = "conflict"


class NeedsPerson(MeterpostError):
    """Only a person can go on: an approval, a credential, a decision."""

    code = "needs-person"


class NotAllowed(NeedsPerson):
    """The person is known and lacks the role or scope, or would approve their own work."""

    code = "not-allowed"


class NotAuthenticated(NeedsPerson):
    """Missing or wrong credentials."""

    code = "not-authenticated"


class OutcomeUnknown(MeterpostError):
    """A request may or may not have taken effect; look it up before repeating it."""

    code = "outcome-unknown"
