import pytest

pytestmark = pytest.mark.integration


def test_a_draft_is_edited_numbered_and_credited(erp):
    """The life of a document after we let go of it, as the API shows it."""
    created = erp.create("LIFE").json()
    place = f"/clerk/invoices/{created['id']}"
    line = created["lines"][0]["id"]
    extra = {"item": "TOKENS", "quantity": "1", "unit_price": "10"}
    edited = erp.client.patch(
        place, json={"lines": [{"id": line, "unit_price": "0.000002"}], "add_lines": [extra]}
    ).json()
    assert (edited["net"], edited["version"]) == ("54.72", 2)
    assert [each["id"] == line for each in edited["lines"]] == [True, False]

    posted = erp.client.post(f"{place}/post").json()
    assert posted["state"] == "posted"
    assert posted["number"].startswith("INV-2026-")
    assert erp.client.patch(place, json={"description": "x"}).status_code == 409
    assert erp.client.delete(place).status_code == 409

    note = erp.client.post(f"{place}/credit", json={"amount": "4.72"}).json()
    assert (note["kind"], note["origin"], note["state"]) == ("credit_note", "clerk", "posted")
    assert (note["net"], note["credit_of"]) == ("-4.72", created["id"])
    too_much = erp.client.post(f"{place}/credit", json={"amount": "50.01"})
    assert too_much.json()["error"]["code"] == "amount_exceeds_remainder"
    assert erp.client.post(f"{place}/credit", json={}).json()["net"] == "-50.00"
    holds = erp.client.get(f"/v1/invoices/{created['id']}").json()
    assert (holds["state"], holds["net"], holds["credited_net"]) == ("posted", "54.72", "54.72")
    assert erp.client.post(f"{place}/credit", json={}).status_code == 409


def test_a_full_credit_mirrors_the_invoice(erp):
    """Lines, tax and gross come back with the sign turned."""
    created = erp.create("MIRROR").json()
    erp.client.post(f"/clerk/invoices/{created['id']}/post")
    note = erp.client.post(f"/clerk/invoices/{created['id']}/credit").json()
    assert (note["net"], note["tax"], note["gross"]) == ("-55.90", "-11.18", "-67.08")
    assert note["lines"][0]["quantity"] == "-22361870"
    listed = erp.client.get("/v1/invoices", params={"credit_of": created["id"]}).json()
    assert [each["id"] for each in listed["invoices"]] == [note["id"]]


def test_numbers_have_no_gaps(erp):
    """A refused posting uses up no number."""
    first, second = erp.create("N-1").json()["id"], erp.create("N-2").json()["id"]
    one = erp.client.post(f"/clerk/invoices/{first}/post").json()["number"]
    closed = erp.client.post(f"/clerk/invoices/{second}/post", json={"date": "2026-09-30"})
    assert closed.json()["error"]["code"] == "closed_period"
    two = erp.client.post(f"/clerk/invoices/{second}/post").json()["number"]
    assert int(two[-5:]) == int(one[-5:]) + 1


def test_deleted_and_cancelled_drafts(erp):
    """A deleted draft is gone for clients, a cancelled one stays readable."""
    gone, off = erp.create("GONE").json()["id"], erp.create("OFF").json()["id"]
    assert erp.client.delete(f"/clerk/invoices/{gone}").status_code == 204
    assert erp.client.post(f"/clerk/invoices/{off}/cancel").json()["state"] == "cancelled"
    assert erp.client.get(f"/v1/invoices/{gone}").status_code == 404
    assert [each["state"] for each in erp.find("GONE", "OFF")] == ["cancelled"]


def test_an_edit_is_checked_like_a_new_invoice(erp):
    """Unknown lines, unknown customers and taking away every line are refused; nothing changes."""
    created = erp.create("EDIT").json()
    place = f"/clerk/invoices/{created['id']}"
    line = created["lines"][0]["id"]
    assert erp.client.patch(place, json={"lines": [{"id": "0"}]}).status_code == 422
    assert erp.client.patch(place, json={"customer": "NOBODY"}).status_code == 422
    empty = erp.client.patch(place, json={"remove_lines": [line]})
    assert empty.json()["error"]["code"] == "empty_lines"
    assert erp.client.get(place).json() == created


def test_a_document_made_by_hand_is_marked(erp, make_invoice):
    """What people create in the ERP carries its origin."""
    made = erp.client.post("/clerk/invoices", json=make_invoice("BY-HAND")).json()
    assert (made["origin"], made["state"]) == ("clerk", "draft")
    assert erp.find("BY-HAND") == [made]
