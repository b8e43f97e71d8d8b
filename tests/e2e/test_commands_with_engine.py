"""Commands of people who decide, over one running `meterpost up` and an ERP that misbehaves.

One story, told once per module: eight contracts, each with a fate of its own.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest

from meterpost.storage.embedded import EmbeddedPostgres
from meterpost.testing.sandbox_erp import SandboxServer, sandbox_server

pytestmark = pytest.mark.e2e

PERIOD = "2025-10"
#: What becomes of each contract's document.
FATES = (
    "edited",
    "cancelled",
    "rejected",
    "refused",
    "withdrawn",
    "there",
    "absent",
    "worker",
)
#: Absence is certain that soon: lease + timeout + request limit + margin.
CONNECTION = "timeout_s: 2\nlease_s: 2\nrequest_limit_s: 0.5\nmargin_s: 0.5\n"
TROUBLE = {
    "commit_then_drop": {"probability": 0.4},
    "status_429": {"probability": 0.1, "retry_after_s": 1},
    "status_503": {"probability": 0.2},
}
_WAIT_S = 90.0


@dataclass
class Story:
    """The installation, its ERP, and what was said; ``ids`` are transactions by fate."""

    here: Any
    erp: SandboxServer
    folder: Path
    up: subprocess.Popen[str]
    ids: dict[str, int] = field(default_factory=dict)
    said: dict[str, Any] = field(default_factory=dict)

    def shown(self, fate: str) -> Any:
        return self.here.json("tx", "show", str(self.ids[fate]))

    def until(self, fate: str, *states: str) -> Any:
        """The transaction, once it is in one of the states."""
        deadline = time.monotonic() + _WAIT_S
        while (shown := self.shown(fate))["state"] not in states:
            assert time.monotonic() < deadline, (fate, states, shown["state"], shown["history"])
            time.sleep(0.1)
        return shown

    def approve(self, *fates: str) -> None:
        ids = [str(self.ids[fate]) for fate in fates]
        self.here.ok("tx", "approve", *ids, "--yes", user="ada")

    def bill(self, rows: dict[str, int], ask: str) -> Any:
        """The close after a file with that many tokens more per account was read."""
        path = self.folder / "requests.csv"
        lines = path.read_text().splitlines() if path.exists() else ["timestamp,account,tokens"]
        lines += [f"2025-10-05 10:00:00,{account},{n}" for account, n in rows.items()]
        path.write_text("\n".join(lines) + "\n")
        self.here.ok("ingest", str(path), "--mapping", "requests")
        result = self.here.json("close", "run", PERIOD, "--ask", ask, user="olga")
        for row in self.here.json("tx", "list", "--state", "in_review")["items"]:
            self.ids[row["contract"].removeprefix("C-")] = row["id"]
        return result

    def clerk(self, fate: str, method: str, action: str = "", body: object = None) -> Any:
        """A clerk at the ERP, on the document of that fate."""
        document = self.shown(fate)["receipt"]["document_id"]
        return self.erp.clerk(method, f"/{document}{action}", body)


def masterdata() -> str:
    def link(system: str, kind: str, external: str, ours: str) -> dict[str, str]:
        return {"system": system, "kind": kind, "external_id": external, "canonical_id": ours}

    price = {"model": "per_unit", "unit_price": "0.02"}
    return json.dumps(
        {
            "legal_entities": [
                {"id": "acme", "name": "Acme GmbH", "currency": "EUR", "zone": "Europe/Vienna"}
            ],
            "accounting_periods": [{"legal_entity": "acme", "id": PERIOD}],
            "items": [{"id": "tokens", "name": "T", "unit": "token", "revenue_account": "4000"}],
            "customers": [{"id": f, "name": f, "tax_category": "domestic"} for f in FATES],
            "contracts": [
                {
                    "id": f"C-{fate}",
                    "customer": fate,
                    "legal_entity": "acme",
                    "lines": [
                        {"id": f"L-{fate}", "meter": "tokens", "item": "tokens", "price": price}
                    ],
                }
                for fate in FATES
            ],
            "subscriptions": [{"id": f"S-{fate}", "contract": f"C-{fate}"} for fate in FATES],
            "crosswalk": [
                *(link("/files/requests", "subject", fate, f"S-{fate}") for fate in FATES),
                *(link("erp", "customer", f"K-{fate}", fate) for fate in FATES),
                link("erp", "item", "TOKENS", "tokens"),
                link("erp", "tax_category", "VAT20", "domestic"),
                link("erp", "revenue_account", "4000", "4000"),
            ],
        }
    )


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder the embedded server's user can reach into, also where we are root."""
    made = Path(tempfile.mkdtemp(prefix="meterpost-e2e-"))
    made.chmod(0o711)
    try:
        yield made
    finally:
        shutil.rmtree(made)


@pytest.fixture(scope="module")
def erp(folder: Path) -> Iterator[SandboxServer]:
    with sandbox_server(folder / "erp", "--seed", "7") as made:
        months = [f"{year}-{month:02d}" for year in range(2025, 2036) for month in range(1, 13)]
        made.master("periods", *({"code": month, "state": "open"} for month in months))
        made.master("customers", *({"code": f"K-{fate}", "name": fate} for fate in FATES))
        yield made


@pytest.fixture(scope="module")
def here(
    folder: Path,
    erp: SandboxServer,
    commands_here: None,
    installation_in: Callable[[Path], AbstractContextManager[Any]],
) -> Iterator[Any]:
    """A workspace made by `init`, its connection and workflow set up; ed administers it."""
    with installation_in(folder / "ws") as made:
        made.user = "ed"
        made.ok("init", str(made.root), "--installation", "acme", "--user", "ed")
        (made.root / "meters" / "api.yaml").write_text(
            "id: tokens\nevent_type: com.example.api.request\naggregation: sum\nunit: token\n"
            "value: data.tokens\n"
        )
        connection = made.root / "connections" / "erp.yaml"
        text = connection.read_text().replace("http://127.0.0.1:8470", erp.url)
        connection.write_text(text.replace("timeout_s: 10\n", CONNECTION))
        mapping = made.root / "mappings" / "requests.yaml"
        mapping.write_text(mapping.read_text().replace("  model: {column: model}\n", ""))
        token = made.root / "secrets" / "erp-token"
        token.touch(mode=0o600)
        token.write_text(erp.token)
        (made.root / "workflows" / "usage-billing.yaml").write_text(
            "name: usage-billing\npurpose: bill\nmeters: [tokens]\ntarget: erp\n"
            "approval: {role: approver}\n"
        )
        (made.root / "masterdata" / "all.yaml").write_text(masterdata())
        yield made


@pytest.fixture(scope="module")
def story(here: Any, erp: SandboxServer, folder: Path) -> Story:
    """Everything that happens while `up` runs."""
    story = Story(here, erp, folder, here.up())
    here.ok("apply")
    here.ok("masterdata", "import", str(here.root / "masterdata" / "all.yaml"))
    for user, role in (("olga", "operator"), ("ada", "approver"), ("vera", "viewer")):
        here.ok("users", "create", user, "--role", role, "--key")
    story.said["close"] = story.bill(dict.fromkeys(FATES, 1000), "latest")
    people(story)
    review(story)
    rejected(story)
    in_doubt(story)
    answers(story)
    late(story)
    return story


def people(story: Story) -> None:
    """Keys and users that come and go."""
    here, said = story.here, story.said
    here.ok("users", "create", "tim", "--role", "viewer", "--key")
    here.ok("tx", "list", user="tim")
    said["deactivated"] = here.json("users", "deactivate", "tim")
    said["tim"] = here.refused(5, "tx", "list", user="tim")
    said["last administrator"] = here.refused(4, "users", "deactivate", "ed")
    said["no such user"] = here.refused(3, "users", "deactivate", "nobody")
    said["not an administrator"] = here.refused(5, "users", "deactivate", "ada", user="vera")
    here.ok("users", "create", "rob", "--role", "viewer")
    made = here.json("keys", "create", "--user", "rob", "--save")
    said["somebody's key"] = here.refused(5, "keys", "revoke", made["id"], user="vera")
    said["rob before"] = here.json("tx", "list", user="rob")
    said["revoked"] = here.ok("keys", "revoke", made["id"])
    said["rob"] = here.refused(5, "tx", "list", user="rob")
    said["no such key"] = here.refused(3, "keys", "revoke", "0000000000")
    said["users"] = {row["id"]: row for row in here.json("users", "list")["items"]}
    said["keys"] = {row["id"]: row for row in here.json("keys", "list", "--everybody")["items"]}
    said["key of rob"] = made["id"]


def review(story: Story) -> None:
    """Reject, release, withdraw."""
    here, said, ids = story.here, story.said, {k: str(v) for k, v in story.ids.items()}
    reason = ("--reason", "the price is wrong")
    said["without a reason"] = here.refused(2, "tx", "reject", ids["refused"], user="ada")
    said["may not reject"] = here.refused(5, "tx", "reject", ids["refused"], *reason, user="vera")
    said["reject"] = here.json("tx", "reject", ids["refused"], *reason, user="ada")
    said["reject twice"] = here.refused(4, "tx", "reject", ids["refused"], *reason, user="ada")
    said["held"] = story.shown("refused")
    said["not held"] = here.refused(4, "tx", "release", ids["there"], *reason, user="ada")
    said["release"] = here.json(
        "tx", "release", ids["refused"], "--reason", "it is right", user="ada"
    )
    story.approve("refused")
    story.until("refused", "posted")
    hand = ("--reason", "billed by hand")
    said["nobody answers"] = here.refused(2, "tx", "withdraw", ids["withdrawn"], *hand, user="ada")
    said["withdraw"] = here.json("tx", "withdraw", ids["withdrawn"], "--yes", *hand, user="ada")
    said["withdraw posted"] = here.refused(
        4, "tx", "withdraw", ids["refused"], "--yes", *hand, user="ada"
    )
    said["may not withdraw"] = here.refused(
        5, "tx", "withdraw", ids["there"], "--yes", *hand, user="olga"
    )


def rejected(story: Story) -> None:
    """The ERP refuses a document until somebody repairs it there."""
    here, said, id_ = story.here, story.said, str(story.ids["rejected"])
    key = story.shown("rejected")["posting_key"]
    reason = ("--reason", "the customer is active again")
    said["not rejected"] = here.refused(4, "tx", "retry", id_, *reason, user="olga")
    story.erp.faults(reject_reference=[key])
    story.approve("rejected")
    story.until("rejected", "rejected")
    said["rejected exceptions"] = here.json("exceptions", "list", "--reason", "rejected_by_erp")
    said["still refused"] = here.json("tx", "retry", id_, *reason, user="olga")
    story.until("rejected", "rejected")
    story.erp.faults()
    said["retry"] = here.json("tx", "retry", id_, *reason, user="olga")
    said["retried"] = story.until("rejected", "posted")


def in_doubt(story: Story) -> None:
    """Two lost answers while the ERP cannot be searched; a person looks and says."""
    here, said = story.here, story.said
    ids = {fate: str(story.ids[fate]) for fate in ("there", "absent")}
    blind = {"status_503": {"probability": 1.0, "on": "reads"}}
    story.erp.faults(**blind, commit_then_drop={"next": 1})
    story.approve("there")
    story.until("there", "in_doubt")
    story.erp.faults(**blind, drop_before_commit={"next": 1})
    story.approve("absent")
    story.until("absent", "in_doubt")
    said["doubts"] = here.json("post", "doubts")
    looked = ("--absent", "--reason", "looked, it is not there")
    said["too early"] = here.refused(4, "post", "resolve", ids["absent"], *looked, user="olga")
    said["both"] = here.refused(
        2, "post", "resolve", ids["absent"], "--document", "1", *looked, user="olga"
    )
    deadline = time.monotonic() + _WAIT_S
    while (
        result := here.run_here("post", "resolve", ids["absent"], *looked, "--json", user="olga")
    ).exit_code == 4:
        assert time.monotonic() < deadline, result.stderr
        time.sleep(0.25)
    said["absent"] = result
    # Look-ups failed so often by now that the next is seconds away: the person is faster.
    story.erp.faults()
    found = story.erp.http.get("/v1/invoices", params={"customer": "K-there"}).json()["invoices"]
    [document] = found
    known = ("--reason", "found it by hand")
    said["no such document"] = here.refused(
        3, "post", "resolve", ids["there"], "--document", "99999", *known, user="olga"
    )
    said["there"] = here.json(
        "post", "resolve", ids["there"], "--document", str(document["id"]), *known, user="olga"
    )
    said["not in doubt"] = here.refused(4, "post", "resolve", ids["there"], *looked, user="olga")
    said["sent again"] = story.until("absent", "posted")


def answers(story: Story) -> None:
    """A clerk edits one draft and cancels another; each is answered."""
    here, said = story.here, story.said
    story.approve("edited", "cancelled")
    for fate in ("edited", "cancelled"):
        story.until(fate, "posted")
    line = story.clerk("edited", "GET").json()["lines"][0]
    story.clerk("edited", "PATCH", body={"lines": [{"id": line["id"], "quantity": "500"}]})
    story.clerk("cancelled", "POST", "/cancel")
    said["reconcile"] = json.loads(here.refused(4, "reconcile", "--json", user="olga"))
    why = ("--reason", "agreed with the customer")
    ids = {fate: str(story.ids[fate]) for fate in FATES}
    said["may not answer"] = here.refused(
        5, "tx", "answer", ids["edited"], "accept", *why, user="olga"
    )
    said["accept"] = here.json("tx", "answer", ids["edited"], "accept", *why, user="ada")
    said["restate"] = here.ok("tx", "answer", ids["cancelled"], "restate", *why, user="ada")
    said["nothing to answer"] = here.refused(
        4, "tx", "answer", ids["there"], "accept", *why, user="ada"
    )


def late(story: Story) -> None:
    """Late usage is billed as differences while the ERP fails now and then."""
    here, said = story.here, story.said
    story.erp.faults(**TROUBLE)
    said["late"] = story.bill(dict.fromkeys(FATES, 100), "late")
    said["late again"] = here.json("close", "run", PERIOD, user="olga")
    said["revisions"] = {
        row["contract"].removeprefix("C-"): row
        for row in here.json("tx", "list", "--state", "in_review")["items"]
    }
    story.approve(*(fate for fate in said["revisions"] if fate != "worker"))
    said["post run"] = here.run_here("post", "run", "erp", "--seconds", "60", user="olga")
    for fate in said["revisions"]:
        if fate != "worker":
            story.until(fate, "posted")
    story.erp.faults()
    said["status"] = here.json("status")


# -- what was said ----------------------------------------------------------------------------


def test_a_user_who_is_deactivated_is_kept_out(story: Story) -> None:
    """Their key is refused from then on, the last administrator stays, the rest is a sentence."""
    said = story.said
    assert said["deactivated"] == {"id": "tim", "active": False}
    assert said["users"]["tim"]["active"] is False
    assert "Error: " in said["tim"]
    assert "administrator" in said["last administrator"]
    assert "nobody" in said["no such user"]
    assert "vera may not do this" in said["not an administrator"]


def test_a_key_that_is_revoked_is_useless(story: Story) -> None:
    """It worked before; others' keys are an administrator's to revoke."""
    said = story.said
    assert len(said["rob before"]["items"]) == len(FATES)
    assert said["revoked"].strip() == f"The key {said['key of rob']} is useless now."
    assert said["keys"][said["key of rob"]]["revoked_at"] is not None
    assert "Error: " in said["rob"]
    assert "There is no API key 0000000000." in said["no such key"]
    assert "vera may not do this" in said["somebody's key"]


def test_a_rejected_document_is_held_until_released(story: Story) -> None:
    """Reject holds with its reason; released, it is reviewed again, approved and posted."""
    said = story.said
    [item] = said["reject"]["items"]
    assert (item["state"], item["sentence"]) == ("held", "held: the price is wrong")
    assert said["held"]["state"] == "held"
    assert any("the price is wrong" in json.dumps(step) for step in said["held"]["history"])
    assert said["release"]["items"][0]["state"] == "in_review"
    assert "not in review" in said["reject twice"]
    assert "cannot become proposed" in said["not held"]
    assert "--reason" in said["without a reason"]
    assert "vera may not do this" in said["may not reject"]


def test_a_withdrawn_transaction_is_never_posted(story: Story) -> None:
    """It ends for good and asks first; later revisions of its period are held."""
    said = story.said
    assert said["withdraw"]["items"][0]["state"] == "withdrawn"
    assert "--yes" in said["nobody answers"]
    assert "cannot become withdrawn" in said["withdraw posted"]
    assert "olga may not do this" in said["may not withdraw"]
    assert (
        story.erp.http.get("/v1/invoices", params={"customer": "K-withdrawn"}).json()["invoices"]
        == []
    )
    held = story.here.json("tx", "list", "--contract", "C-withdrawn", "--state", "held")["items"]
    assert [row["revision"] for row in held] == [2]


def test_what_the_erp_rejected_is_sent_again_by_command(story: Story) -> None:
    """Same key, the exception opened and closed; before and in between nothing is sent twice."""
    said = story.said
    assert "not rejected" in said["not rejected"]
    assert len(said["rejected exceptions"]["items"]) == 1
    assert said["still refused"]["items"][0]["state"] == "approved"
    assert said["retry"]["done"] == 1
    [document] = story.erp.http.get(
        "/v1/invoices", params={"reference": said["retried"]["posting_key"]}
    ).json()["invoices"]
    assert document["customer"] == "K-rejected"
    assert story.here.json("exceptions", "list", "--reason", "rejected_by_erp")["items"] == []


def test_a_person_says_what_the_erp_holds(story: Story) -> None:
    """A named document is linked; absence counts only once it is certain, then it is sent again."""
    said = story.said
    assert {row["id"] for row in said["doubts"]["items"]} == {
        story.shown(fate)["revisions"][0]["id"] for fate in ("there", "absent")
    }
    assert "may still appear in the ERP until" in said["too early"]
    assert "either which document it is" in said["both"]
    assert said["absent"].exit_code == 0
    assert json.loads(said["absent"].stdout)["state"] == "approved"
    assert "The ERP holds no document 99999." in said["no such document"]
    assert said["there"]["state"] == "posted"
    assert "not in doubt" in said["not in doubt"]
    assert said["sent again"]["receipt"] is not None


def test_a_clerks_changes_are_answered(story: Story) -> None:
    """Accepted, the edit stands under the late usage; restated, all of it is due again."""
    said = story.said
    verdicts = Counter(each["verdict"] for each in said["reconcile"]["connections"][0]["documents"])
    assert verdicts["changed"] == 2
    assert said["accept"]["answer"] == "accept"
    assert "the ERP's amounts stand" in said["accept"]["sentence"]
    assert said["restate"].startswith("restate: the next close run posts the difference")
    assert "olga may not do this" in said["may not answer"]
    assert "Error: " in said["nothing to answer"]
    due = {fate: row["due"] for fate, row in said["revisions"].items()}
    assert due == {
        "edited": "2",
        "cancelled": "22",
        "rejected": "2",
        "refused": "2",
        "there": "2",
        "absent": "2",
        "worker": "22",
    }


def test_a_late_close_posts_the_differences_once(story: Story) -> None:
    """Through lost answers, throttling and outages: one document per key in the ERP."""
    said = story.said
    assert (said["late"]["close"]["n"], said["late"]["close"]["basis"]) == (2, "late")
    assert said["late again"]["ran"] is False
    assert said["post run"].exit_code == 0, said["post run"].output
    invoices = story.erp.http.get("/v1/invoices", params={"limit": "200"}).json()["invoices"]
    references = Counter(invoice["reference"] for invoice in invoices)
    assert set(references.values()) == {1}
    net = Counter[str]()
    for invoice in invoices:
        if invoice["state"] != "cancelled":
            net[invoice["customer"]] += round(float(invoice["net"]) * 100)
    assert net == {
        "K-edited": 1200,
        "K-cancelled": 2200,
        "K-rejected": 2200,
        "K-refused": 2200,
        "K-there": 2200,
        "K-absent": 2200,
    }


def test_status_is_plain_for_programs(story: Story) -> None:
    """Every process and job, and that everything is ready."""
    status = story.said["status"]
    assert status["ready"] is True
    assert {each["name"] for each in status["processes"]} == {"postgres", "engine", "edge"}


def test_the_database_beside_a_running_up(story: Story) -> None:
    """`db url` answers psql; `db migrate` finds nothing to do."""
    process = story.here.command("db", "url")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    with psycopg.connect(output.strip()) as connection:
        row = connection.execute("SELECT count(*) FROM meterpost.close").fetchone()
    assert row is not None
    assert row[0] >= 2
    assert story.here.json("db", "migrate") == {"steps": []}


def test_an_option_that_is_none_is_told_like_everywhere(story: Story) -> None:
    """`up` ends with the code of the failure's class, too: 2 for input, 4 for a second `up`."""
    assert "is not of the form NAME=VALUE" in story.here.refused(2, "up", "--set", "edge.port")
    assert f"(process {story.up.pid})" in story.here.refused(4, "up")


def test_a_worker_posts_without_engine_and_edge(story: Story, erp: SandboxServer) -> None:
    """After `up` has ended: `worker posting` needs PostgreSQL only, and SIGTERM ends it with 0.

    Then the period is explained, whatever happened in it; the edit and the cancelled document
    stay different from what we posted (4).
    """
    here = story.here
    erp.faults(down=True)
    story.approve("worker")
    here.down(story.up)
    erp.faults()
    status = here.run_here("status", "--json")
    assert (status.exit_code, json.loads(status.stdout)["ready"]) == (1, False)
    assert "The embedded server is not running." in here.refused(4, "db", "url")
    worker = here.command("worker", "posting", "erp")
    arrived = lambda: len(  # noqa: E731
        erp.http.get("/v1/invoices", params={"customer": "K-worker"}).json()["invoices"]
    )
    here.until(lambda: worker.poll() is not None or arrived(), "the worker posts nothing")
    worker.send_signal(signal.SIGTERM)
    output, _ = worker.communicate(timeout=60)
    assert worker.returncode == 0, output
    assert "Posting to erp; stop with Ctrl-C or SIGTERM." in output
    with EmbeddedPostgres(here.root / ".meterpost" / "pg"):  # once, not by every command
        assert story.shown("worker")["state"] == "posted"
        assert arrived() == 1
        reports = json.loads(here.refused(4, "reconcile", "--json", user="olga"))["connections"]
        verdicts = {each["contract"]: each["verdict"] for each in reports[0]["documents"]}
        assert verdicts["C-worker"] == "equal"
        balance = here.ok("balance", PERIOD)
        assert balance.rstrip().splitlines()[-1] == "unexplained=0", balance
        assert here.json("audit", "verify")["intact"] is True
