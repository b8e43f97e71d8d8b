import socket

import pytest

pytestmark = pytest.mark.integration


def test_a_created_invoice_reads_back_as_answered(erp):
    """The ERP computes the amounts, 22,361,870 × 0.0000025 among them, and keeps what it said."""
    answer = erp.create("READ-1")
    created = answer.json()
    assert answer.status_code == 201
    assert (created["net"], created["tax"], created["gross"]) == ("55.90", "11.18", "67.08")
    assert (created["state"], created["number"], created["origin"]) == ("draft", None, "api")
    assert created["lines"][0]["unit_price"] == "0.0000025"
    assert erp.client.get(f"/v1/invoices/{created['id']}").json() == created
    assert erp.find("READ-1", "NEVER") == [created]


def test_a_reference_is_not_unique_by_default(erp):
    """Like Tryton and Odoo, the ERP takes the same reference twice: finding that is our job."""
    assert erp.create("TWICE").json()["id"] != erp.create("TWICE").json()["id"]
    assert len(erp.find("TWICE")) == 2


def test_paging_reaches_the_end_and_sees_changes(erp):
    """Cursors visit every document once; one changed meanwhile comes again at the end."""
    for n in range(5):
        erp.create(f"PAGE-{n}", customer="C-200", date="2026-10-05")
    query = {"customer": "C-200", "date_from": "2026-10-05", "date_to": "2026-10-05", "limit": "2"}
    first = erp.client.get("/v1/invoices", params=query).json()
    seen = [each["reference"] for each in first["invoices"]]
    erp.client.post(f"/clerk/invoices/{first['invoices'][0]['id']}/post")
    cursor = first["next_cursor"]
    while cursor:
        page = erp.client.get("/v1/invoices", params={**query, "cursor": cursor}).json()
        seen += [each["reference"] for each in page["invoices"]]
        cursor = page["next_cursor"]
    assert seen == ["PAGE-0", "PAGE-1", "PAGE-2", "PAGE-3", "PAGE-4", "PAGE-0"]


def test_modified_since_includes_its_moment(erp):
    """A client that remembers the last modification it saw misses nothing."""
    first, second = erp.create("SINCE-1").json(), erp.create("SINCE-2").json()
    found = erp.client.get("/v1/invoices", params={"modified_since": first["modified_at"]}).json()
    assert [each["id"] for each in found["invoices"]] == [first["id"], second["id"]]


def test_a_batch_answers_per_item(erp, make_invoice):
    """One bad invoice does not stop the others; its error names the field."""
    batch = [make_invoice("B-1"), make_invoice("B-2", date="2026-09-30"), make_invoice("B-3")]
    answer = erp.client.post("/v1/invoices:batch", json={"invoices": batch})
    body = answer.json()
    assert answer.status_code == 200
    assert [each["status"] for each in body["outcomes"]] == [201, 422, 201]
    assert body["outcomes"][1]["error"]["code"] == "closed_period"
    assert (body["created"], body["rejected"]) == (2, 1)
    assert [each["reference"] for each in erp.find("B-1", "B-2", "B-3")] == ["B-1", "B-3"]


def test_an_atomic_batch_is_all_or_nothing(erp, make_invoice):
    """With one bad invoice nothing exists afterwards, and each outcome says why."""
    batch = [make_invoice("A-1"), make_invoice("A-2", customer="NOBODY")]
    answer = erp.client.post("/v1/invoices:batch", json={"atomic": True, "invoices": batch})
    assert answer.status_code == 422
    assert [each["status"] for each in answer.json()["outcomes"]] == [424, 422]
    assert erp.find("A-1", "A-2") == []
    batch[1] = make_invoice("A-2")
    answer = erp.client.post("/v1/invoices:batch", json={"atomic": True, "invoices": batch})
    assert (answer.status_code, answer.json()["created"]) == (200, 2)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "malformed"),
        (b"\xff", 400, "malformed"),
        (b'{"a": NaN}', 400, "malformed"),
        (b"[" * 100_000, 400, "malformed"),
        (b"[]", 422, "invalid"),
        (b'{"lines": 1e400}', 422, "missing_field"),
        (b" " * (8 * 1024 * 1024 + 1), 413, "too_large"),
    ],
)
def test_bodies_that_cannot_be_used(erp, body, status, code):
    """Bad input is refused with a code and the server lives on."""
    answer = erp.client.post("/v1/invoices", content=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert erp.client.get("/healthz").json() == {"status": "ok"}


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=201",
        "cursor=nonsense",
        "cursor=LTE",
        "colour=red",
        "date_from=x",
        "modified_since=2026-10-01",
        "reference=",
        "reference=" + ",".join(map(str, range(201))),
    ],
)
def test_queries_that_make_no_sense_are_400(erp, query):
    """A misspelt filter must not look like an empty ERP."""
    answer = erp.client.get(f"/v1/invoices?{query}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_query")


def test_unknown_places_and_methods(erp):
    """404 and 405 come in the same error form."""
    assert erp.client.get("/v1/invoices/99999").json()["error"]["code"] == "not_found"
    assert erp.client.get("/v1/invoices/1;drop").status_code == 404
    assert erp.client.get("/v2/invoices").status_code == 404
    assert erp.client.put("/v1/invoices", json={}).status_code == 405


@pytest.mark.parametrize("header", ["Bearer wrong", "Basic Zm9v", "", "Bearer \xe9"])
def test_wrong_credentials_are_401(erp, header):
    """Nothing but the health check answers without the token."""
    headers = {"Authorization": header.encode("latin-1")}
    for path in ("/v1/customers", "/clerk/invoices/1", "/_sandbox/stats"):
        answer = erp.client.get(path, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")


def test_chunked_bodies_are_refused(erp):
    """A body without a length is 411, not a guess."""
    answer = erp.client.post("/v1/invoices", content=iter([b"{}"]))
    assert answer.status_code == 411


def test_master_data_is_kept_by_code(erp):
    """PUT creates or replaces, POST only creates, GET finds by code in pages."""
    records = [{"code": f"X-{n}"} for n in range(3)]
    put = erp.client.put("/v1/customers", json={"records": records})
    assert put.json() == {"created": 3, "updated": 0, "unchanged": 0}
    put = erp.client.put(
        "/v1/customers", json={"records": [*records[:2], {"code": "X-2", "name": "Z"}]}
    )
    assert put.json() == {"created": 0, "updated": 1, "unchanged": 2}
    assert erp.client.post("/v1/customers", json={"code": "X-2"}).status_code == 409
    assert erp.client.get("/v1/customers/X-2").json()["name"] == "Z"
    query = {"code": "X-0,X-2", "limit": "1"}
    page = erp.client.get("/v1/customers", params=query).json()
    rest = erp.client.get("/v1/customers", params={**query, "cursor": page["next_cursor"]}).json()
    assert [each["code"] for each in page["records"] + rest["records"]] == ["X-0", "X-2"]
    assert rest["next_cursor"] is None


def test_bulk_master_data_is_all_or_nothing(erp):
    """One bad record keeps the good ones out, and the error says which it was."""
    put = erp.client.put(
        "/v1/taxes", json={"records": [{"code": "T1", "rate": "0.1"}, {"code": "T2"}]}
    )
    assert put.json()["error"]["field"] == "records[1].rate"
    assert erp.client.get("/v1/taxes/T1").status_code == 404


def test_the_server_listens_on_loopback_only(erp):
    """Another interface of the machine finds no server."""
    with socket.socket() as probe, pytest.raises(OSError, match="refused"):
        probe.connect(("127.0.0.2", erp.client.base_url.port))
