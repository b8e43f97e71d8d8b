"""From checked events to the journal: personal values out, then durably recorded."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace

from meterpost.core.errors import MeterpostError, NeedsPerson
from meterpost.ingest.checks import Checks
from meterpost.ingest.model import Checked, Recorded, Submission
from meterpost.ingest.personal import pseudonymise
from meterpost.ingest.ports import Outcome, Recorder, TokenVault


class Intake:
    """The one way in: HTTP and files pass through the same checks and the same recorder."""

    def __init__(self, checks: Checks, recorder: Recorder, vault: TokenVault | None = None) -> None:
        """Raises: NeedsPerson where fields are personal and there is no vault for them."""
        self.checks = checks
        self._recorder = recorder
        self._vault = vault
        if checks.rules.personal and vault is None:
            raise NeedsPerson(
                f"Event type {min(checks.rules.personal)} has personal fields, and there is no "
                "secret to keep them under.",
                hint='Set the secret for personal fields (docs/ingest.md, "Personal fields").',
            )

    def without_personal_values(self, checked: Checked) -> Checked:
        """The same events with tokens in place of personal values. May ask the database."""
        if not checked.personal:
            return checked
        assert self._vault is not None
        body = pseudonymise(checked.body, self.checks.rules.personal, self._vault)
        return replace(checked, body=body, personal=False)

    def record(self, submission: Submission, done: Callable[[Outcome], None]) -> None:
        """Hand over to the recorder; see `Recorder.submit`."""
        if submission.checked.personal:
            raise ValueError("personal values have to be replaced before events are recorded")
        self._recorder.submit(submission, done)

    def accept(self, submission: Submission) -> Future[Recorded]:
        """Replace personal values and record; for callers with a thread to wait in."""
        future: Future[Recorded] = Future()

        def done(outcome: Outcome) -> None:
            if isinstance(outcome, MeterpostError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

        checked = self.without_personal_values(submission.checked)
        self.record(replace(submission, checked=checked), done)
        return future
