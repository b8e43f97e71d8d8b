"""The suite every ERP connector passes: subclass `ErpContract`, give it a bench, run pytest.

    class TestAcme(ErpContract):
        @pytest.fixture
        def bench(self) -> ErpBench: ...

What a vendor cannot show is named in the bench's ``gaps`` with its reason (``vendor: ...``,
``ours: ...``, ``never: ...``); such a check is then expected to fail, strictly.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import date, timedelta
from decimal import Decimal
from typing import Protocol, TypeVar

import pytest

from meterpost.core.errors import (
    NeedsPerson,
    NotAllowed,
    NotAuthenticated,
    OutcomeUnknown,
    Throttled,
    Transient,
)
from meterpost.core.ids import PostingKey, PostingKeyParts, TargetId
from meterpost.core.period import Period
from meterpost.posting.connector import ErpConnector
from meterpost.posting.errors import ClosedPeriod, Duplicate, Rejected
from meterpost.posting.model import (
    Document,
    DocumentLine,
    DocumentState,
    ErpDocument,
    differences,
)

T = TypeVar("T")

TIMEOUT_S = 20.0
_MONTH = Period.month("2026-10")


@dataclass(frozen=True, slots=True)
class Scene:
    """Ids that exist in the ERP under test; ``day`` lies in an open period."""

    connection: TargetId
    customer: str
    item: str
    account: str | None
    tax_code: str | None
    day: date
    closed_day: date
    currency: str = "EUR"


class ErpBench(Protocol):
    """An ERP under test, and the strings to pull on it."""

    connector: ErpConnector
    scene: Scene
    #: Name of a check → why this ERP cannot pass it.
    gaps: Mapping[str, str]

    def with_bad_credentials(self) -> ErpConnector:
        """A connector whose secret is wrong."""
        ...

    def unreachable(self) -> ErpConnector:
        """A connector whose address refuses connections."""
        ...

    def lose_next_reply(self) -> None:
        """The next write is stored and its answer lost."""
        ...

    def lose_next_request(self) -> None:
        """The next write breaks off with nothing stored."""
        ...

    def throttle_next(self, after_s: float) -> None:
        """The next write is refused for its rate."""
        ...


class Documents:
    """Valid documents for a scene, each under a key of its own."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self._run = time.time_ns()
        self._keys = 0

    def key(self) -> PostingKey:
        """A posting key nobody used before."""
        self._keys += 1
        return PostingKeyParts(
            f"contract-{self._run}",
            "test",
            self.scene.connection,
            "bill",
            f"K-{self._keys}",
            _MONTH.start,
            _MONTH.end,
            1,
        ).key()

    def document(self, *lines: tuple[str, str, str]) -> Document:
        """A document with lines of (quantity, unit price, amount)."""
        scene = self.scene
        made = tuple(
            DocumentLine(
                ordinal=ordinal,
                reference=f"line-{ordinal}",
                item=scene.item,
                description="Tokens, October 2026",
                quantity=Decimal(quantity),
                unit_price=Decimal(price),
                amount=Decimal(amount),
                account=scene.account,
                tax_code=scene.tax_code,
                service_from=date(2026, 10, 1),
                service_to=date(2026, 10, 31),
            )
            for ordinal, (quantity, price, amount) in enumerate(
                lines or (("3", "2.50", "7.50"),), 1
            )
        )
        return Document(
            connection=scene.connection,
            kind="billing.usage",
            customer=scene.customer,
            currency=scene.currency,
            description="Usage October 2026",
            lines=made,
            net=sum((line.amount for line in made), Decimal(0)),
            date_from=scene.day,
            date_to=scene.day,
            payment_term=None,
            mapping_digest="m",
            config_digest="c",
        )


class ErpContract:
    """What posting relies on; one check per sentence."""

    @pytest.fixture
    def bench(self) -> ErpBench:
        """The ERP under test; give it in the subclass."""
        raise NotImplementedError("override the fixture `bench`")

    @pytest.fixture
    def make(self, bench: ErpBench) -> Documents:
        """Valid documents for the bench's scene."""
        return Documents(bench.scene)

    @pytest.fixture(autouse=True)
    def _expect_gaps(self, request: pytest.FixtureRequest, bench: ErpBench) -> None:
        reason = bench.gaps.get(request.function.__name__)
        if reason is not None:
            request.applymarker(pytest.mark.xfail(reason=reason, strict=True))

    def test_health_is_a_sentence(self, bench: ErpBench) -> None:
        """A working connection says so."""
        health = bench.connector.check()
        assert health.ok, health.sentence
        assert health.sentence.strip()

    def test_bad_credentials_are_a_clear_sentence(self, bench: ErpBench, make: Documents) -> None:
        """A wrong secret is the person's business, before anything is stored."""
        key = make.key()
        with closing(bench.with_bad_credentials()) as wrong:
            health = wrong.check()
            assert not health.ok
            assert len(health.sentence.split()) > 3
            with pytest.raises((NotAuthenticated, NotAllowed)):
                _post(wrong, make.document(), key, bench.scene.day)
            with pytest.raises(NeedsPerson):
                wrong.find([key])
        assert key not in bench.connector.find([key])

    def test_an_address_that_refuses_is_transient(self, bench: ErpBench, make: Documents) -> None:
        """Without a connection nothing can have happened."""
        with closing(bench.unreachable()) as nobody:
            assert not nobody.check().ok
            with pytest.raises(Transient):
                _post(nobody, make.document(), make.key(), bench.scene.day)
            with pytest.raises(Transient):
                nobody.find([make.key()])

    def test_a_document_is_stored_as_sent(self, bench: ErpBench, make: Documents) -> None:
        """Reference, customer, currency, lines and net come back without a difference."""
        key, document = make.key(), make.document(("3", "2.50", "7.50"), ("2", "10", "20.00"))
        stored = _post(bench.connector, document, key, bench.scene.day)
        assert differences(document, stored, key) == ()
        assert stored.state is DocumentState.DRAFT
        assert stored.net == Decimal("27.50")
        assert stored.gross == stored.net + stored.tax

    def test_numbers_are_exact(self, bench: ErpBench, make: Documents) -> None:
        """22,361,870 tokens at 0.0000025 are 55.90, however the ERP can be told so."""
        key, document = make.key(), self.golden(bench, make)
        stored = _post(bench.connector, document, key, bench.scene.day)
        assert stored.net == Decimal("55.90")
        assert differences(document, stored, key) == ()

    def golden(self, bench: ErpBench, make: Documents) -> Document:
        """The golden amount within the connector's declared precision."""
        precision = bench.connector.capabilities.precision
        if precision.price_decimals is None or precision.price_decimals >= 7:
            return make.document(("22361870", "0.0000025", "55.90"))
        return make.document(("1", "55.90", "55.90"))

    def test_a_negative_due_is_a_credit(self, bench: ErpBench, make: Documents) -> None:
        """A negative quantity gives a negative net, not a refusal."""
        key, document = make.key(), make.document(("-4", "2.50", "-10.00"))
        stored = _post(bench.connector, document, key, bench.scene.day)
        assert stored.net == Decimal("-10.00")
        assert differences(document, stored, key) == ()

    def test_find_sees_what_was_posted(self, bench: ErpBench, make: Documents) -> None:
        """A key leads to its document, equal to the answer of the write."""
        key = make.key()
        stored = _post(bench.connector, make.document(), key, bench.scene.day)
        found = _eventually(lambda: bench.connector.find([key]).get(key))
        assert [document.id for document in found] == [stored.id]
        assert found[0].net == stored.net

    def test_find_of_an_unknown_key_is_empty(self, bench: ErpBench, make: Documents) -> None:
        """A key without documents is absent from the result."""
        assert make.key() not in bench.connector.find([make.key(), make.key()])
        assert bench.connector.find([]) == {}

    def test_find_of_many_keys_reaches_the_end(self, bench: ErpBench, make: Documents) -> None:
        """Many keys at once, most of them unknown, lose none of the known ones."""
        known = [make.key() for _ in range(5)]
        for key in known:
            _post(bench.connector, make.document(), key, bench.scene.day)
        asked = [make.key() for _ in range(250)]
        for place, key in enumerate(known):
            asked.insert(place * 60, key)
        assert _eventually(lambda: len(bench.connector.find(asked)) == len(known))
        assert set(bench.connector.find(asked)) == set(known)

    def test_a_repeated_key_is_never_silent(self, bench: ErpBench, make: Documents) -> None:
        """By capability: the same document again, a Duplicate, or two that `find` both names."""
        capabilities = bench.connector.capabilities
        key, document = make.key(), make.document()
        first = _post(bench.connector, document, key, bench.scene.day)
        if capabilities.unique_reference:
            with pytest.raises(Duplicate):
                _post(bench.connector, document, key, bench.scene.day)
            expected = {first.id}
        else:
            second = _post(bench.connector, document, key, bench.scene.day)
            expected = {first.id, second.id}
            assert (second.id == first.id) is capabilities.native_keys
        assert _eventually(
            lambda: {d.id for d in bench.connector.find([key]).get(key, ())} == expected
        )

    def test_a_lost_reply_is_unknown_and_found_later(
        self, bench: ErpBench, make: Documents
    ) -> None:
        """Stored without an answer: OutcomeUnknown, and the reference leads to it."""
        key = make.key()
        bench.lose_next_reply()
        with pytest.raises(OutcomeUnknown):
            _post(bench.connector, make.document(), key, bench.scene.day)
        found = _eventually(lambda: bench.connector.find([key]).get(key))
        assert len(found) == 1

    def test_a_lost_request_is_unknown_too(self, bench: ErpBench, make: Documents) -> None:
        """The connector cannot tell it from a lost reply, and does not guess."""
        key = make.key()
        bench.lose_next_request()
        with pytest.raises(OutcomeUnknown):
            _post(bench.connector, make.document(), key, bench.scene.day)
        assert key not in bench.connector.find([key])

    def test_a_throttled_write_did_nothing(self, bench: ErpBench, make: Documents) -> None:
        """Throttled, with the ERP's own waiting time where it says one."""
        key = make.key()
        bench.throttle_next(1.0)
        with pytest.raises(Throttled) as caught:
            _post(bench.connector, make.document(), key, bench.scene.day)
        assert caught.value.after_s is None or caught.value.after_s >= 0
        assert key not in bench.connector.find([key])

    def test_an_unknown_customer_is_rejected(self, bench: ErpBench, make: Documents) -> None:
        """Refused in the vendor's own words, nothing stored."""
        key = make.key()
        with pytest.raises(Rejected) as caught:
            _post(
                bench.connector,
                replace(make.document(), customer="999999999"),
                key,
                bench.scene.day,
            )
        assert caught.value.vendor_text
        assert key not in bench.connector.find([key])

    def test_an_unknown_item_is_rejected(self, bench: ErpBench, make: Documents) -> None:
        """Refused in the vendor's own words, nothing stored."""
        key, document = make.key(), make.document()
        lines = tuple(replace(line, item="999999999") for line in document.lines)
        with pytest.raises(Rejected) as caught:
            _post(bench.connector, replace(document, lines=lines), key, bench.scene.day)
        assert caught.value.vendor_text
        assert key not in bench.connector.find([key])

    def test_a_closed_period_is_told_apart(self, bench: ErpBench, make: Documents) -> None:
        """A closed accounting period is its own refusal; nothing is stored or moved."""
        key = make.key()
        with pytest.raises(ClosedPeriod):
            _post(bench.connector, make.document(), key, bench.scene.closed_day)
        assert key not in bench.connector.find([key])

    def test_read_gives_what_exists_only(self, bench: ErpBench, make: Documents) -> None:
        """Read by ids; one that does not exist is absent, not an error."""
        key = make.key()
        stored = _post(bench.connector, make.document(), key, bench.scene.day)
        assert _eventually(lambda: stored.id in bench.connector.read([stored.id, "999999999"]))
        read = bench.connector.read([stored.id, "999999999"])
        assert set(read) == {stored.id}
        assert read[stored.id].reference == key
        assert bench.connector.read([]) == {}

    def test_records_of_a_period_reach_the_end(self, bench: ErpBench, make: Documents) -> None:
        """Every document of ours dated in the days, each once; none from other days."""
        keys = {make.key() for _ in range(6)}
        for key in keys:
            _post(bench.connector, make.document(), key, bench.scene.day)
        day = bench.scene.day

        def listed() -> list[str | None]:
            return [
                document.reference
                for document in bench.connector.records(day, day)
                if document.reference in keys
            ]

        assert _eventually(lambda: len(listed()) == len(keys))
        assert set(listed()) == keys
        later = bench.connector.records(day + timedelta(days=400), day + timedelta(days=401))
        assert not [d for d in later if d.reference in keys and d.date is not None]

    def test_capabilities_bound_the_doubt(self, bench: ErpBench) -> None:
        """The certain absence is a finite, positive time after the send."""
        assert 0 < bench.connector.capabilities.certain_absence_s < 24 * 3600
        assert "billing.usage" in bench.connector.capabilities.kinds


def _post(connector: ErpConnector, document: Document, key: PostingKey, day: date) -> ErpDocument:
    return connector.post(document, key, day, timeout_s=TIMEOUT_S)


def _eventually(look: Callable[[], T | None], seconds: float = 15.0) -> T:
    """The first result that is not empty.

    Raises: AssertionError when there is none within the time.
    """
    deadline = time.monotonic() + seconds
    while not (result := look()):
        assert time.monotonic() < deadline, f"nothing within {seconds} s"
        time.sleep(0.1)
    return result
