"""The main job by commands, on real PostgreSQL and DuckDB, into a real sandbox ERP process."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from meterpost.cli.app import app

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def story(workspace: Any, folder: Path) -> dict[str, Any]:
    """Every step of a month once, with what each command answered."""
    said: dict[str, Any] = {}
    usage_file = str(folder / "requests.csv")
    said["ingest"] = workspace.json("ingest", usage_file, "--mapping", "requests")
    said["ingest again"] = workspace.json("ingest", usage_file, "--mapping", "requests")
    said["close"] = workspace.json("close", "run", "2025-10", user="olga")
    said["exceptions"] = workspace.json("exceptions", "list")
    [waiting] = workspace.json("exceptions", "list", "--flat")["items"]
    workspace.ok("exceptions", "assign", str(waiting["id"]), "carla")
    said["exception"] = workspace.json("exceptions", "show", str(waiting["id"]))
    said["still"] = workspace.run("exceptions", "retry", str(waiting["id"]), "--json", user="olga")
    workspace.ok("crosswalk", "link", "/files/requests", "subject", "beta", "S-1")
    said["retry"] = workspace.json("exceptions", "retry", str(waiting["id"]), user="olga")
    said["close again"] = workspace.json(
        "close", "run", "2025-10", "--ask", "resolved", user="olga"
    )
    said["staged"] = workspace.json("tx", "list", "--state", "in_review")["items"]
    [open_] = said["staged"]
    id_ = str(open_["id"])
    said["shown"] = workspace.json("tx", "show", id_)
    said["shown text"] = workspace.ok("tx", "show", id_)
    said["viewer approves"] = workspace.run("tx", "approve", id_, "-y", user="vera")
    workspace.ok("users", "roles", "olga", "operator", "approver")
    workspace.ok("keys", "create", "--user", "olga", "--save")
    said["closer approves"] = workspace.run("tx", "approve", id_, "-y", user="olga")
    said["nobody answers"] = workspace.run("tx", "approve", id_, user="ada")
    said["approve"] = workspace.json("tx", "approve", "--all", "--period", "2025-10", user="ada")
    said["check"] = workspace.json("post", "check", user="olga")
    said["post"] = workspace.json("post", "run", "erp", "--seconds", "30", user="olga")
    said["reconcile"] = workspace.json("reconcile", user="olga")
    said["trace"] = workspace.ok("trace", f"transaction:{id_}")
    said["prove"] = workspace.json("prove", f"transaction:{id_}")
    said["balance"] = workspace.run("balance", "2025-10")
    said["id"] = id_
    return said


def test_init_makes_a_private_key_file(workspace: Any) -> None:
    """The first administrator's key is in a file that only its owner reads."""
    key = workspace.root / "secrets" / "keys" / "ed"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert key.read_text().startswith("mp_")


def test_a_file_read_again_adds_nothing(story: dict[str, Any]) -> None:
    """Lines are counted, a bad one is rejected; the second time all are duplicates."""
    first, second = story["ingest"], story["ingest again"]
    assert (first["read"], first["accepted"], first["rejected"]) == (31, 30, 1)
    assert (first["duplicate"], second["duplicate"]) == (0, 30)


def test_unmatched_usage_waits_with_its_money(story: dict[str, Any]) -> None:
    """The close stages what is known; the rest is one exception with records, estimate, owner."""
    assert story["close"]["staging"]["staged"] == {"in_review": 1}
    [group] = story["exceptions"]["items"]
    assert (group["reason"], group["records"]) == ("unmatched_subject", 2)
    assert group["estimates"] == {"EUR": "240"}
    assert story["exception"]["assignee"] == "carla"


def test_a_retry_says_whether_the_exception_is_gone(story: dict[str, Any]) -> None:
    """Before the link it stays open (exit 4, with what helps); after it, the usage flows on."""
    assert story["still"].exit_code == 4
    assert "crosswalk link" in json.loads(story["still"].stdout)["suggestion"]
    assert story["retry"]["state"] == "closed"
    assert story["close again"]["ran"] is False


def test_a_transaction_is_shown_with_its_working(story: dict[str, Any]) -> None:
    """Exactly the held usage was added: (406,000 + 12,000) tokens at 0.02."""
    shown = story["shown"]
    assert (shown["amount"], shown["revision"]) == ("8360", 2)
    [line] = shown["lines"]
    assert line["quantity"] == "418000"
    assert "Usage: 418000 token × 0.02 EUR = 8360 EUR." in line["sentences"]
    assert "2025-10-01 to 2025-10-31 (Europe/Vienna)" in story["shown text"]
    assert "8,360.00 EUR" in story["shown text"]


def test_four_eyes_hold_on_the_command_line(story: dict[str, Any]) -> None:
    """A viewer lacks the scope; whoever closed cannot approve, role or not: both end with 5."""
    assert story["viewer approves"].exit_code == 5
    assert "transactions:approve" in story["viewer approves"].stderr
    closer = story["closer approves"]
    assert closer.exit_code == 5
    assert "olga requested the close" in closer.stdout


def test_an_approval_is_never_given_without_a_person(story: dict[str, Any]) -> None:
    """Without a terminal and without --yes nothing is approved, and the hint says how."""
    assert story["nobody answers"].exit_code == 2
    assert "--yes" in story["nobody answers"].stderr


def test_what_is_approved_is_posted_once_and_reconciles(story: dict[str, Any], erp: Any) -> None:
    """One document in the ERP, equal line by line."""
    assert story["approve"]["done"] == 1
    assert story["check"]["ok"] is True
    [posted] = story["post"]["connections"]
    assert (posted["posted"], posted["left"]) == (1, {})
    assert story["reconcile"]["clean"] is True
    assert story["reconcile"]["connections"][0]["counts"]["equal"] == 1
    invoices = erp.http.get("/v1/invoices").json()
    assert len(invoices.get("items", invoices.get("invoices"))) == 1


def test_a_line_leads_to_its_events_and_is_proved(story: dict[str, Any]) -> None:
    """The trace names document, usage record and events; running it again gives the same."""
    assert "document" in story["trace"]
    assert "beta" in story["trace"]
    assert story["prove"]["proved"] is True
    assert sum(report["events"] for report in story["prove"]["reports"]) == 30


def test_the_ledgers_balance_and_the_last_line_says_so(story: dict[str, Any]) -> None:
    """The exit code is 0 because unexplained is 0."""
    said = story["balance"]
    assert said.stdout.rstrip().splitlines()[-1] == "unexplained=0", said.stdout
    assert said.exit_code == 0


LISTS = [
    ("tx", "list"),
    ("close", "list"),
    ("exceptions", "list"),
    ("exceptions", "list", "--flat", "--all"),
    ("quarantine", "list"),
    ("masterdata", "list", "contracts"),
    ("masterdata", "history", "customers", "initech"),
    ("meters",),
    ("events", "--subject", "alpha"),
    ("usage", "api-tokens", "--period", "2025-10", "--zone", "Europe/Vienna", "--by", "model"),
    ("post", "doubts"),
    ("audit", "list"),
    ("users", "list"),
    ("keys", "list", "--everybody"),
]


@pytest.mark.parametrize("command", LISTS, ids=" ".join)
def test_lists_are_pages_for_programs_and_tables_for_people(
    workspace: Any, story: dict[str, Any], command: tuple[str, ...]
) -> None:
    """--json prints exactly {items, next, …}; without it there is a table of the same."""
    result = workspace.json(*command)
    assert isinstance(result["items"], list)
    assert "next" in result
    text = workspace.ok(*command)
    assert text.strip()
    assert not text.startswith("{")


def test_pages_follow_each_other(workspace: Any, story: dict[str, Any]) -> None:
    """The cursor of a page asks for exactly what comes after it."""
    everything = [row["sequence"] for row in workspace.json("audit", "list")["items"]]
    first = workspace.json("audit", "list", "--limit", "3")
    second = workspace.json("audit", "list", "--limit", "3", "--cursor", first["next"])
    paged = [row["sequence"] for page in (first, second) for row in page["items"]]
    assert paged == everything[:6]


def test_the_audit_log_is_sealed_and_can_be_taken_away(
    workspace: Any, story: dict[str, Any], folder: Path
) -> None:
    """Without an engine the commands seal what they decided; an export is a new file."""
    assert workspace.json("audit", "verify")["intact"] is True
    taken = folder / "audit.jsonl"
    assert workspace.json("audit", "export", str(taken))["entries"] > 10
    assert taken.read_text().count("\n") > 10
    assert workspace.run("audit", "export", str(taken)).exit_code == 4


@pytest.mark.parametrize(
    ("command", "code", "sentence"),
    [
        (("tx", "show", "999999"), 3, "There is no transaction 999999."),
        (("tx", "list", "--cursor", "§§"), 2, "The cursor is not one that a page gave."),
        (("usage", "no-such-meter", "--period", "2025-10"), 3, "There is no meter"),
        (("usage", "api-tokens", "--period", "2025-13"), 2, "do not fit"),
        (("usage", "api-tokens", "--period", "2025-10", "--by", "colour"), 2, "colour"),
        (("close", "run", "2199-01"), 3, "2199-01"),
        (("ingest", "/no/such/file.csv"), 3, "There is no file"),
        (("masterdata", "list", "customer"), 3, "is no kind of master data"),
        (("users", "create", "ed"), 4, "There is a user ed already."),
        (("crosswalk", "unlink", "erp", "customer", "nobody"), 2, "cannot be changed"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_failures_are_a_sentence_and_a_code(
    workspace: Any, story: dict[str, Any], command: tuple[str, ...], code: int, sentence: str
) -> None:
    """Nothing on standard output, one clear sentence on standard error, no traceback."""
    result = workspace.run(*command)
    assert result.exit_code == code, (result.stdout, result.stderr)
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_a_wrong_key_is_refused(workspace: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without a key file, a file others can read, a key that is none: all end with 5."""
    assert workspace.run("tx", "list", user="stranger").exit_code == 5
    key = workspace.root / "secrets" / "keys" / "vera"
    key.chmod(0o644)
    try:
        opened = workspace.run("tx", "list", user="vera")
    finally:
        key.chmod(0o600)
    assert opened.exit_code == 5
    assert "chmod 600" in opened.stderr


def test_an_import_with_a_bad_record_stores_nothing(
    workspace: Any, story: dict[str, Any], tmp_path: Path
) -> None:
    """The problem is named with file and line, the exit code is that of invalid input."""
    bad = tmp_path / "bad.yaml"
    bad.write_text("customers:\n  - {id: hooli, name: Hooli}\n  - {id: x, colour: red}\n")
    result = workspace.run("masterdata", "import", str(bad))
    assert result.exit_code == 2
    assert "bad.yaml:3" in result.stdout
    assert workspace.run("masterdata", "show", "customers", "hooli").exit_code == 3


def test_quarantined_bytes_can_be_read_and_settled(workspace: Any, story: dict[str, Any]) -> None:
    """What was refused is kept as it came, and leaves the worklist with a word."""
    first = workspace.json("quarantine", "list")["items"][0]
    shown = workspace.json("quarantine", "show", str(first["id"]))
    assert shown["text"] == "nonsense,alpha,1,small"
    workspace.ok("quarantine", "settle", str(first["id"]), "--reason", "a typo, given up")
    left = [row["id"] for row in workspace.json("quarantine", "list")["items"]]
    assert first["id"] not in left


def test_a_plan_tells_what_apply_would_change(workspace: Any, story: dict[str, Any]) -> None:
    """A changed meter is named with both values; nothing is applied by planning."""
    meters = workspace.root / "meters" / "api.yaml"
    before = meters.read_text()
    meters.write_text(before.replace("unit: request", "unit: call"))
    try:
        plan = workspace.json("plan")
        assert workspace.json("plan") == plan
    finally:
        meters.write_text(before)
    [change] = plan["changes"]
    assert (change["name"], change["change"]) == ("api-requests", "changed")
    assert change["fields"]["unit"] == {"old": "request", "new": "call"}


def test_the_environment_can_hold_the_key(workspace: Any, story: dict[str, Any]) -> None:
    """METERPOST_API_KEY speaks for its user, whoever else has key files."""
    token = (workspace.root / "secrets" / "keys" / "vera").read_text().strip()
    result = workspace.runner.invoke(
        app,
        ["users", "list", "--workspace", str(workspace.root)],
        env={"METERPOST_API_KEY": token, "METERPOST_USER": "ed"},
    )
    assert result.exit_code == 5
    assert "vera may not do this" in result.stderr


def test_the_database_can_be_asked_by_others(workspace: Any) -> None:
    """The URL of a running server is printed, for psql and backups."""
    assert workspace.json("db", "url")["url"].startswith("postgresql://")
