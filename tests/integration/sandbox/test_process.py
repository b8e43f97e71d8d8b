import json
import signal
import subprocess
import sys
import threading

import httpx
import pytest

pytestmark = pytest.mark.integration


def test_sigkill_keeps_every_answered_document(sandbox_process):
    """Killed in the middle of creates, the ledger has all that were answered, at most once each."""
    sandbox_process.start()
    sandbox_process.seed()
    answered: list[str] = []
    enough = threading.Event()

    def send() -> None:
        for n in range(100_000):
            try:
                assert sandbox_process.create(f"K-{n}").status_code == 201
            except (httpx.TransportError, RuntimeError):  # killed, or its client closed
                return
            answered.append(f"K-{n}")
            if n == 50:
                enough.set()

    sender = threading.Thread(target=send)
    sender.start()
    assert enough.wait(60)
    sandbox_process.stop(signal.SIGKILL)
    sender.join(60)
    sandbox_process.start()
    code, report = sandbox_process.oracle(dict.fromkeys(answered, "55.90"))
    assert report["lost"] == []
    assert report["duplicated"] == {}
    assert len(report["unexpected"]) <= 1, "only the create in flight may be there unanswered"
    assert code == (1 if report["unexpected"] else 0)
    assert sandbox_process.create("AFTER").status_code == 201


def test_the_oracle_finds_each_kind_of_difference(sandbox_process):
    """Lost, duplicated, another amount, unexpected; clerks' work is not judged."""
    sandbox_process.start()
    sandbox_process.seed()
    for reference in ("OK", "TWICE", "TWICE", "AMOUNT", "STRAY"):
        sandbox_process.create(reference)
    kept = sandbox_process.find("OK")[0]
    sandbox_process.client.post(f"/clerk/invoices/{kept['id']}/post")
    sandbox_process.client.post(f"/clerk/invoices/{kept['id']}/credit")
    doomed = sandbox_process.find("TWICE")[0]
    sandbox_process.client.delete(f"/clerk/invoices/{doomed['id']}")
    expected = {"OK": "55.9", "TWICE": "55.90", "AMOUNT": "55.91", "LOST": "1.00"}
    code, report = sandbox_process.oracle(expected)
    assert code == 1
    assert report == {
        "clean": False,
        "documents": 5,
        "clerk_documents": 1,
        "lost": ["LOST"],
        "duplicated": {"TWICE": 2},
        "amount_differences": [{"reference": "AMOUNT", "expected": "55.91", "created": "55.9"}],
        "unexpected": ["STRAY"],
    }


def test_the_oracle_is_content_with_equal_books(sandbox_process):
    """It exits 0 when every expected document is there once, also after the server ended."""
    sandbox_process.start()
    sandbox_process.seed()
    sandbox_process.create("ONE")
    assert sandbox_process.stop() == 0
    assert sandbox_process.oracle({"ONE": "55.90"})[0] == 0


def test_native_keys_give_the_first_answer_again(sandbox_process, make_invoice):
    """Same key and body: same document; another body is a conflict; also after a lost reply."""
    sandbox_process.start("--native-keys", "--faults", '{"commit_then_drop": {"next": 1}}')
    sandbox_process.seed()
    headers = {"Idempotency-Key": "k1"}
    post = sandbox_process.client.post
    with pytest.raises(httpx.RemoteProtocolError):
        post("/v1/invoices", json=make_invoice("KEY"), headers=headers)
    again = post("/v1/invoices", json=make_invoice("KEY"), headers=headers)
    assert (again.status_code, again.headers["Idempotent-Replay"]) == (201, "true")
    assert sandbox_process.find("KEY") == [again.json()]
    other = post("/v1/invoices", json=make_invoice("OTHER"), headers=headers)
    assert other.json()["error"]["code"] == "idempotency_key_reused"


def test_a_refused_request_does_not_use_up_its_key(sandbox_process, make_invoice):
    """After the period was opened, the same key and body go through."""
    sandbox_process.start("--native-keys")
    sandbox_process.seed()
    headers = {"Idempotency-Key": "k2"}
    body = make_invoice("LATE", date="2026-09-30")
    assert (
        sandbox_process.client.post("/v1/invoices", json=body, headers=headers).status_code == 422
    )
    opened = {"records": [{"code": "2026-09", "state": "open"}]}
    sandbox_process.client.put("/v1/periods", json=opened)
    assert (
        sandbox_process.client.post("/v1/invoices", json=body, headers=headers).status_code == 201
    )


def test_unique_references_name_the_existing_document(sandbox_process, make_invoice):
    """The second create is a conflict, in one batch too; a deleted draft frees its reference."""
    sandbox_process.start("--unique-reference")
    sandbox_process.seed()
    first = sandbox_process.create("UNIQUE").json()["id"]
    second = sandbox_process.create("UNIQUE")
    assert second.status_code == 409
    assert second.json()["error"]["existing_id"] == first
    batch = {"invoices": [make_invoice("PAIR"), make_invoice("PAIR")]}
    answer = sandbox_process.client.post("/v1/invoices:batch", json=batch).json()
    assert [each["status"] for each in answer["outcomes"]] == [201, 409]
    sandbox_process.client.delete(f"/clerk/invoices/{first}")
    assert sandbox_process.create("UNIQUE").status_code == 201


def test_parallel_creates_are_each_answered_once(sandbox_process):
    """Eight senders at once: every create is one document with an id of its own."""
    sandbox_process.start()
    sandbox_process.seed()
    ids: list[str] = []

    def send(sender: int) -> None:
        ids.extend(sandbox_process.create(f"S{sender}-{n}").json()["id"] for n in range(25))

    senders = [threading.Thread(target=send, args=(n,)) for n in range(8)]
    for each in senders:
        each.start()
    for each in senders:
        each.join(60)
    assert len(set(ids)) == 200
    expected = {f"S{sender}-{n}": "55.90" for sender in range(8) for n in range(25)}
    assert sandbox_process.oracle(expected)[0] == 0


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "meterpost_sandbox", *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_second_server_on_one_ledger_is_refused(sandbox_process, tmp_path):
    """Two processes must not answer for the same books."""
    sandbox_process.start()
    second = run("serve", "--ledger", sandbox_process.ledger, METERPOST_SANDBOX_TOKEN="t")
    assert second.returncode == 2
    assert "another sandbox server" in second.stderr


def test_serve_needs_a_token_and_faults_it_understands(tmp_path):
    """Both are said in one sentence, without a traceback."""
    nothing = run("serve", "--ledger", tmp_path / "l")
    assert (nothing.returncode, "--token-file" in nothing.stderr) == (2, True)
    faults = ("serve", "--ledger", tmp_path / "l", "--faults", '{"meteor": {}}')
    unknown = run(*faults, "--token-file", tmp_path / "token")
    assert (unknown.returncode, "meteor" in unknown.stderr) == (2, True)
    assert "Traceback" not in nothing.stderr + unknown.stderr
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600


def test_seed_writes_master_data_offline(sandbox_process, tmp_path):
    """YAML and JSON give the same records; seeding again changes nothing; mistakes are named."""
    yaml = tmp_path / "master.yaml"
    yaml.write_text("customers: [{code: C-1}]\nperiods: [{code: 2026-10}]\n")
    assert "customers: 1 created" in run("seed", sandbox_process.ledger, yaml).stdout
    plain = tmp_path / "master.json"
    plain.write_text(json.dumps({"customers": [{"code": "C-1"}], "periods": [{"code": "2026-10"}]}))
    assert "0 created, 0 updated, 1 unchanged" in run("seed", sandbox_process.ledger, plain).stdout
    yaml.write_text("taxes: [{code: VAT, rate: 0.2}]\n")
    refused = run("seed", sandbox_process.ledger, yaml)
    assert refused.returncode == 2
    assert "records[0].rate" in refused.stderr
    sandbox_process.start()
    assert sandbox_process.client.get("/v1/customers/C-1").json()["name"] == "C-1"
