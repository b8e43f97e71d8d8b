import time

import httpx
import pytest

pytestmark = pytest.mark.integration


def test_commit_then_drop_leaves_a_document_without_an_answer(erp):
    """The classic lost reply: the client knows nothing, the ERP has the invoice."""
    erp.faults(commit_then_drop={"next": 1})
    with pytest.raises(httpx.RemoteProtocolError):
        erp.create("CTD")
    assert len(erp.find("CTD")) == 1
    assert erp.create("CTD-2").status_code == 201


def test_drop_before_commit_leaves_nothing(erp):
    """To the client it looks the same, but the ERP has no invoice."""
    erp.faults(drop_before_commit={"next": 1})
    with pytest.raises(httpx.RemoteProtocolError):
        erp.create("DBC")
    assert erp.find("DBC") == []


def test_partial_then_drop_keeps_the_first_half_of_a_batch(erp, make_invoice):
    """A server that dies inside a batch leaves some items done: each must be looked up."""
    erp.faults(partial_then_drop={"next": 1})
    batch = {"invoices": [make_invoice(f"P-{n}") for n in range(4)]}
    with pytest.raises(httpx.RemoteProtocolError):
        erp.client.post("/v1/invoices:batch", json=batch)
    found = erp.find(*(f"P-{n}" for n in range(4)))
    assert [each["reference"] for each in found] == ["P-0", "P-1"]


@pytest.mark.parametrize(
    ("fault", "status", "code", "retry_after"),
    [
        ({"status_429": {"next": 1, "retry_after_s": 0.5}}, 429, "too_many_requests", "0.5"),
        ({"status_429": {"next": 1}}, 429, "too_many_requests", "1"),
        ({"status_500": {"next": 1}}, 500, "internal_error", None),
        ({"status_503": {"next": 1, "retry_after_s": 2}}, 503, "unavailable", "2"),
        ({"status_503": {"next": 1}}, 503, "unavailable", None),
        ({"down": True}, 503, "unavailable", "1"),
        ({"outage_until": "2999-01-01T00:00:00Z"}, 503, "unavailable", "1"),
    ],
)
def test_status_faults_commit_nothing(erp, fault, status, code, retry_after):
    """Each answers with its status and code, and its Retry-After where it has one."""
    erp.faults(**fault)
    answer = erp.create("STATUS")
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.headers.get("Retry-After") == retry_after
    erp.faults()
    assert erp.find("STATUS") == []


def test_an_outage_spares_the_clerk_and_the_controls(erp):
    """During `down` every API path is 503, master data too; people still work."""
    document = erp.create("OUT").json()["id"]
    erp.faults(down=True)
    assert erp.client.get("/v1/customers").status_code == 503
    assert erp.client.get(f"/v1/invoices/{document}").status_code == 503
    assert erp.client.get(f"/clerk/invoices/{document}").status_code == 200
    assert erp.client.get("/healthz").status_code == 200


def test_a_stall_before_commit_lands_after_the_client_gave_up(erp, make_invoice):
    """One empty look-up proves nothing: the invoice appears later."""
    erp.faults(stall_s={"seconds": 1, "next": 1})
    with pytest.raises(httpx.ReadTimeout):
        erp.client.post("/v1/invoices", json=make_invoice("STALL"), timeout=0.2)
    assert erp.find("STALL") == []
    deadline = time.monotonic() + 20
    while not erp.find("STALL"):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_stall_after_commit_is_found_at_once(erp, make_invoice):
    """The answer is late, the document is not."""
    erp.faults(stall_s={"seconds": 1.5, "next": 1, "where": "after_commit"})
    with pytest.raises(httpx.ReadTimeout):
        erp.client.post("/v1/invoices", json=make_invoice("STALL-2"), timeout=0.5)
    assert len(erp.find("STALL-2")) == 1


def test_delayed_visibility_hides_a_committed_document(erp):
    """Neither search nor read finds it for a while; the clerk does."""
    erp.faults(delayed_visibility_s={"seconds": 1.5, "next": 1})
    document = erp.create("HIDDEN").json()["id"]
    assert erp.find("HIDDEN") == []
    assert erp.client.get(f"/v1/invoices/{document}").status_code == 404
    assert erp.client.get(f"/clerk/invoices/{document}").status_code == 200
    deadline = time.monotonic() + 20
    while not erp.find("HIDDEN"):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_rejecting_one_of_many(erp, make_invoice):
    """A rejected reference fails alone, singly and in a batch."""
    erp.faults(reject_reference=["REJ-1"])
    assert erp.create("REJ-1").json()["error"]["code"] == "rejected_reference"
    batch = {"invoices": [make_invoice("REJ-0"), make_invoice("REJ-1")]}
    outcomes = erp.client.post("/v1/invoices:batch", json=batch).json()["outcomes"]
    assert [each["status"] for each in outcomes] == [201, 422]


def test_faults_can_hit_reads(erp):
    """`on` says which requests suffer; writes then pass."""
    erp.faults(status_500={"next": 1, "on": "reads"})
    assert erp.create("READS").status_code == 201
    assert erp.client.get("/v1/invoices").status_code == 500


def test_stats_tell_what_came_and_what_struck(erp):
    """Arrivals, answers and faults are counted, dropped connections among them."""
    before = erp.stats()
    last = max((each["sequence"] for each in before["arrivals"]), default=0)
    erp.faults(commit_then_drop={"next": 1})
    with pytest.raises(httpx.RemoteProtocolError):
        erp.create("STATS-1")
    erp.create("STATS-2")
    erp.find("STATS-1")
    after = erp.client.get("/_sandbox/stats", params={"arrivals_since": str(last)}).json()
    came = [(each["kind"], each["status"], each["fault"]) for each in after["arrivals"]]
    assert came == [
        ("write", "dropped", "commit_then_drop"),
        ("write", "201", None),
        ("read", "200", None),
    ]
    moments = [each["monotonic"] for each in after["arrivals"]]
    assert moments == sorted(moments)
    struck = after["faults"]["commit_then_drop"] - before["faults"].get("commit_then_drop", 0)
    assert struck == 1
    assert after["requests"]["total"] == before["requests"]["total"] + 3


def test_faults_that_are_not_understood_change_nothing(erp):
    """A misspelt fault is 422, so that a rehearsal without faults is not taken for a passed one."""
    erp.faults(status_500={"next": 5})
    assert erp.client.put("/_sandbox/faults", json={"status_400": {}}).status_code == 422
    assert erp.client.get("/_sandbox/faults").json() == {"status_500": {"next": 5, "on": "write"}}
