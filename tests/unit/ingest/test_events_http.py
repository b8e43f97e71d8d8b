"""Requests and answers of POST /v1/events."""

from __future__ import annotations

import asyncio
import gzip
import json

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meterpost.core.errors import OutcomeUnknown, Transient
from meterpost.ingest.model import Limits

BATCH = "application/cloudevents-batch+json"


def test_structured_mode(new_app, post, recorder, event):
    """One event, answered with the number accepted and the correlation id."""
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    answer = post(
        new_app(),
        event(),
        "application/cloudevents+json; charset=UTF-8",
        headers={"x-correlation-id": "run-7", "traceparent": trace},
    )
    assert answer.status_code == 202
    assert answer.json() == {
        "accepted": 1, "rejected": [], "rejected_total": 0, "correlation_id": "run-7",
    }  # fmt: skip
    assert recorder.events() == [event()]
    (one,) = recorder.submissions
    assert (one.correlation_id, one.traceparent, one.api_key) == ("run-7", trace, "k1")


def test_batch_mode_names_the_bad_event(new_app, post, recorder, event):
    """202 with index, field, code and reason of the bad event; its bytes go to quarantine."""
    bad = event(id="")
    answer = post(new_app(), [event(), bad])
    assert answer.status_code == 202
    assert answer.json()["accepted"] == 1
    assert answer.json()["rejected"] == [
        {
            "index": 1,
            "field": "id",
            "code": "empty-id",
            "reason": "id is empty. Leave it out or fill it in.",
        }
    ]
    assert recorder.submissions[0].checked.rejected[0].raw == json.dumps(bad).encode()


def test_binary_mode(new_app, post, recorder, event):
    """Attributes come from percent-encoded headers, JSON data byte for byte from the body."""
    headers = {
        "ce-specversion": "1.0",
        "ce-id": "42",
        "ce-source": "/svc/code",
        "ce-type": "llm.request",
        "ce-subject": "Euro%20%E2%82%AC",
        "ce-time": "2026-01-01T00:00:00Z",
    }
    body = b'{"tokens": 123456789012345678}'
    assert post(new_app(), body, "application/json", headers=headers).status_code == 202
    (made,) = recorder.events()
    assert made["subject"] == "Euro €"
    assert made["data"] == {"tokens": 123456789012345678}
    assert post(new_app(), b"\x00\xff", "image/png", headers=headers).status_code == 202
    assert recorder.events()[1]["data_base64"] == "AP8="
    assert post(new_app(), b"", None, headers=headers).status_code == 202
    assert "data" not in recorder.events()[2]


@pytest.mark.parametrize("body", [b'1, "id": "forged"', b"{oops", b"NaN"])
def test_binary_data_cannot_reach_outside_itself(new_app, post, recorder, body):
    """A body that is not exactly one JSON value is a 400, not a way to forge attributes."""
    headers = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "s", "ce-type": "llm.request"}
    answer = post(new_app(), body, "application/json", headers=headers)
    assert answer.status_code == 400
    assert not recorder.submissions


@pytest.mark.parametrize("media_type", ["application/x-ndjson", "application/jsonl"])
def test_lines(new_app, post, recorder, event, media_type):
    """NDJSON: good lines are accepted, bad ones named."""
    body = json.dumps(event()).encode() + b"\n\xff\n"
    answer = post(new_app(), body, media_type)
    assert answer.status_code == 202
    assert [one["code"] for one in answer.json()["rejected"]] == ["wrong-utf8"]
    assert len(recorder.events()) == 1


def test_nothing_accepted_is_a_422(new_app, post, recorder):
    """Where every event is bad the status says so; all are quarantined."""
    answer = post(new_app(), [{}, {"id": 1}])
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.json()["accepted"], answer.json()["rejected_total"]) == (0, 2)
    assert len(recorder.submissions[0].checked.rejected) == 2


def test_the_list_of_rejections_is_bounded(new_app, post):
    """A million bad events do not make a gigabyte of answer."""
    answer = post(new_app(), [{}] * 150)
    assert len(answer.json()["rejected"]) == 100
    assert answer.json()["rejected_total"] == 150


def test_an_empty_batch_is_accepted(new_app, post, recorder):
    """CloudEvents allows a batch of none; nothing is recorded."""
    answer = post(new_app(), [])
    assert (answer.status_code, answer.json()["accepted"]) == (202, 0)
    assert not recorder.submissions


@pytest.mark.parametrize(
    ("body", "media_type", "options", "status", "code"),
    [
        (b'[{"specversion":"1.0","id"', BATCH, {}, 400, "unparsable"),
        (b"[NaN]", BATCH, {}, 400, "unparsable"),
        (b"{}", "application/json", {}, 415, "unsupported-media-type"),
        (b"{}", None, {}, 415, "unsupported-media-type"),
        (b"[]", BATCH + "; charset=latin1", {}, 415, "unsupported-media-type"),
        (b"[]", BATCH, {"headers": {"content-encoding": "br"}}, 415, "unsupported-media-type"),
        (b"[]", BATCH, {"headers": {"content-encoding": "gzip"}}, 400, "unparsable"),
        (b"[]", BATCH, {"key": None}, 401, "not-authenticated"),
        (b"[]", BATCH, {"key": "k1.wrong"}, 401, "not-authenticated"),
        (b"[]", BATCH, {"key": "k2.reader"}, 403, "not-allowed"),
        (b"[]", BATCH, {"method": "GET"}, 405, "method-not-allowed"),
        (b"[]", BATCH, {"path": "/v1/other"}, 404, "not-found"),
        (b"x" * 10_000_000, "application/cloudevents+json", {}, 413, "too-large"),
        (b"x" * 64_000_001, BATCH, {}, 413, "too-large"),
    ],
)
def test_refusals(new_app, post, recorder, body, media_type, options, status, code):
    """Every refusal is problem+json with a code, and nothing is recorded."""
    answer = post(new_app(), body, media_type, **options)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == f"urn:meterpost:problem:{code}"
    assert answer.json()["correlation_id"] == answer.headers["x-correlation-id"]
    assert not recorder.submissions


def test_gzip_bodies(new_app, post, recorder, event):
    """Compressed bodies are taken, several members and all, up to the size after unpacking."""
    raw = json.dumps([event()]).encode()
    packed = gzip.compress(raw[:20]) + gzip.compress(raw[20:])
    app = new_app()
    assert post(app, packed, headers={"content-encoding": "gzip"}).status_code == 202
    assert recorder.events() == [event()]
    bomb = gzip.compress(bytes(100_000_000))
    assert post(app, bomb, headers={"content-encoding": "gzip"}).status_code == 413
    assert post(app, packed[:-9], headers={"content-encoding": "gzip"}).status_code == 400
    assert app.in_flight_bytes == 0


def test_an_engine_far_behind_gives_429(new_app, post, recorder, event):
    """Above the backlog's bound senders are told when to come back."""
    behind = [20_000_000]
    app = new_app(backlog=lambda: behind[0])
    answer = post(app, [event()])
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "5")
    assert not recorder.submissions
    behind[0] -= 1
    assert post(app, [event()]).status_code == 202


def test_memory_in_flight_is_bounded(new_app, post, event):
    """While the recorder holds as many bytes as it may, further requests get 429 at once."""
    held = []
    both_wait = asyncio.Event()

    class Stuck:
        def submit(self, submission, done):
            held.append(done)
            if len(held) == 2:
                both_wait.set()

    app = new_app(Limits(10_000, 10_000, 1000, 20_000), recorder=Stuck())
    body = json.dumps([event(data={"x": "y" * 8000})]).encode()

    async def run():
        transport = httpx.ASGITransport(app)
        sent = {"authorization": "Bearer k1.good", "content-type": BATCH}
        async with httpx.AsyncClient(transport=transport, base_url="http://edge") as client:
            waiting = [
                asyncio.create_task(client.post("/v1/events", content=body, headers=sent))
                for _ in range(2)
            ]
            await both_wait.wait()
            refused = await client.post("/v1/events", content=body, headers=sent)
            for done in held:
                done(Transient("The disk went away."))
            return refused, [await one for one in waiting]

    refused, answered = asyncio.run(run())
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert [one.status_code for one in answered] == [503, 503]
    assert app.in_flight_bytes == 0


@pytest.mark.parametrize(
    ("failure", "status"), [(Transient("down", after_s=3), 503), (OutcomeUnknown("lost"), 503)]
)
def test_no_202_without_the_recorder(new_app, post, recorder, event, failure, status):
    """What is not known to be on disk is a 503 with Retry-After."""
    recorder.failure = failure
    answer = post(new_app(), [event()])
    assert answer.status_code == status
    assert int(answer.headers["retry-after"]) >= 1


def test_a_correlation_id_of_strange_characters_is_replaced(new_app, post, event):
    """Only plain ids reach the logs."""
    answer = post(new_app(), [event()], headers={"x-correlation-id": "a b;c"})
    assert answer.headers["x-correlation-id"].endswith("-1")
    assert answer.json()["correlation_id"] == answer.headers["x-correlation-id"]


def test_personal_fields_leave_as_tokens(new_app, post, recorder, vault, event):
    """The journal gets tokens, equal for equal values; everything else stays as sent."""
    app = new_app()
    sent = event(
        type="page.viewed",
        subject="1.2.3.4",
        data={"user": {"mail": "a@b.example", "n": 1.10}, "big": 12345678901234567890},
    )
    assert post(app, [sent, event(id="e2"), dict(sent, id="e3")]).status_code == 202
    first, other, third = recorder.events()
    assert first["subject"] == third["subject"] == vault.find("subject", "1.2.3.4")
    assert first["data"]["user"]["mail"] == vault.find("data.user.mail", "a@b.example")
    assert first["data"]["big"] == 12345678901234567890
    assert b"1.1" in recorder.submissions[0].checked.body
    assert b"1.2.3.4" not in recorder.submissions[0].checked.body
    assert other == event(id="e2")


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    body=st.binary(max_size=200) | st.just(b'[{"specversion":"1.0"}]'),
    media_type=st.sampled_from(
        [BATCH, "application/cloudevents+json", "application/x-ndjson", "application/json", "a;b=c"]
    ),
    headers=st.dictionaries(
        st.sampled_from(["ce-specversion", "ce-id", "ce-data", "content-encoding", "traceparent"]),
        st.sampled_from(["1.0", "gzip", "%FF", "%zz", ""]),
    ),
)
def test_no_request_makes_an_exception(new_app, post, recorder, body, media_type, headers):
    """Whatever comes in is answered with 202, 400, 415 or 422."""
    answer = post(new_app(), body, media_type, headers=headers)
    assert answer.status_code in {202, 400, 415, 422}
