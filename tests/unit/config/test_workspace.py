"""The workspace: finding it, starting one, and what `check` says about each mistake."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from meterpost.config import (
    check,
    find_workspace,
    from_snapshot,
    init_workspace,
    open_workspace,
)
from meterpost.config.snapshot import Snapshot
from meterpost.core.errors import Conflict, InvalidInput, NotFound

CONNECTORS = ("sandbox", "tryton")


def complaints(root: Path) -> list[str]:
    return [str(problem) for problem in check(root, {}, connectors=CONNECTORS)]


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_the_starter_workspace_is_right(root: Path) -> None:
    """What `init` writes passes the check, keeps secrets closed and state out of Git."""
    assert complaints(root) == []
    workspace = open_workspace(root, {}, connectors=CONNECTORS)
    assert workspace.settings.installation == "acme"
    assert [meter.id for meter in workspace.meters] == ["api-requests", "api-tokens"]
    assert workspace.connections[0].name == "erp"
    assert workspace.connections[0].environment == "sandbox"
    for private in ("secrets", ".meterpost"):
        assert stat.S_IMODE((root / private).stat().st_mode) == 0o700
        assert f"/{private}/" in (root / ".gitignore").read_text()


def test_starting_overwrites_nothing(root: Path, tmp_path: Path) -> None:
    """A workspace, or any file that would be replaced, stops `init` before it writes."""
    with pytest.raises(Conflict, match=r"meterpost\.yaml"):
        init_workspace(root, "other")
    other = tmp_path / "other"
    (other / "meters").mkdir(parents=True)
    (other / "meters" / "api.yaml").write_text("mine")
    with pytest.raises(Conflict, match=r"meters/api\.yaml already; nothing was written"):
        init_workspace(other, "acme")
    assert [path.name for path in other.iterdir()] == ["meters"]
    with pytest.raises(InvalidInput, match="cannot name an installation"):
        init_workspace(tmp_path / "third", "Acme Inc.")


def test_the_workspace_is_found(root: Path, tmp_path: Path) -> None:
    """The option, then the environment, then the nearest folder above."""
    other = init_workspace(tmp_path / "other", "other").root
    environ = {"METERPOST_WORKSPACE": str(other)}
    inner = root / "meters"
    assert find_workspace(root, environ, tmp_path) == root
    assert find_workspace(None, environ, inner) == other
    assert find_workspace(None, {}, inner) == root
    with pytest.raises(NotFound, match=r"--workspace, the environment variable METERPOST_W"):
        find_workspace(None, {}, tmp_path)
    with pytest.raises(NotFound, match=r"from METERPOST_WORKSPACE"):
        find_workspace(None, {"METERPOST_WORKSPACE": str(tmp_path)}, root)


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        (
            "workflows/usage-billing.yaml",
            "[api-requests, api-tokens]",
            "\n  - api-requests\n  - api-tokns",
            "workflows/usage-billing.yaml:7: Workflow usage-billing names the meter 'api-tokns', "
            "which is not defined. Did you mean 'api-tokens'?",
        ),
        (
            "workflows/usage-billing.yaml",
            "target: erp ",
            "target: epr ",
            "workflows/usage-billing.yaml:6: Workflow usage-billing posts to 'epr', which is no "
            "connection. Did you mean 'erp'?",
        ),
        (
            "workflows/usage-billing.yaml",
            "role: approver",
            "role: operator",
            "workflows/usage-billing.yaml:10: The role 'operator' may not approve. "
            "Roles that may approve: approver.",
        ),
        (
            "workflows/usage-billing.yaml",
            "10000.00",
            "-1",
            "workflows/usage-billing.yaml:12: `approval.four_eyes_from` is -1; a limit is not "
            "negative.",
        ),
        (
            "workflows/usage-billing.yaml",
            "[api-requests, api-tokens]",
            "[]",
            "workflows/usage-billing.yaml:5: Workflow usage-billing lists no meter.",
        ),
        (
            "workflows/usage-billing.yaml",
            "late: delta",
            "trigger: monthly #",
            "workflows/usage-billing.yaml:13: Nothing triggers 'monthly'. Triggers: period_close.",
        ),
        (
            "connections/erp.yaml",
            "environment: sandbox",
            "environment: production",
            "workflows/usage-billing.yaml:6: Workflow usage-billing posts to erp, a connection of "
            "the environment 'production'; this installation is 'sandbox'. Credentials do not "
            "cross environments: use a connection of this one.",
        ),
        (
            "connections/erp.yaml",
            "connector: sandbox",
            "connector: netsuite",
            "connections/erp.yaml:2: There is no connector 'netsuite'. Installed: sandbox, tryton.",
        ),
        (
            "mappings/requests.yaml",
            "zone: UTC",
            "zone: Mars/Base",
            "mappings/requests.yaml:6: 'Mars/Base' is not an IANA time zone such as Europe/Vienna.",
        ),
        (
            "mappings/requests.yaml",
            "type: com.example.api.request",
            "type: com.example.request",
            "mappings/requests.yaml:5: The event type 'com.example.request' is not defined in "
            "events/. Did you mean 'com.example.api.request'?",
        ),
        (
            "events/api-request.yaml",
            "type: integer",
            "type: integr",
            "events/api-request.yaml:11: The JSON Schema of com.example.api.request cannot be "
            "used: \"integr\" is not valid under any of the schemas listed in the 'anyOf' "
            "keyword.",
        ),
        (
            "meters/api.yaml",
            "- id: api-tokens",
            "- id: api-requests",
            "meters/api.yaml:9: The meter api-requests is defined twice, first at "
            "meters/api.yaml:3. Rename or remove one.",
        ),
        (
            "meters/api.yaml",
            "value: data.tokens",
            "values: data.tokens",
            "meters/api.yaml:14: `values` is not a key here. Did you mean `value`?",
        ),
    ],
)
def test_each_mistake_is_told_by_file_and_line(
    root: Path, file: str, old: str, new: str, expected: str
) -> None:
    """One mistake, one sentence that says where and what helps."""
    replace(root / file, old, new)
    assert expected in complaints(root)
    with pytest.raises(InvalidInput):
        open_workspace(root, {}, connectors=CONNECTORS)


def test_a_function_that_is_not_allowed_is_refused_with_its_line(root: Path) -> None:
    """An expression's problem stands at the expression, in the words of the meters' room."""
    replace(root / "meters" / "api.yaml", "filter: data.tokens > 0", "filter: getenv('HOME') = 'x'")
    (found,) = complaints(root)
    assert found.startswith("meters/api.yaml:15: Meter api-tokens, `filter`: ")
    assert "getenv" in found


def test_a_reference_out_of_a_schema_is_not_followed(root: Path) -> None:
    """Checking a schema asks nothing of any network."""
    replace(
        root / "events" / "api-request.yaml",
        "tokens: {type: integer, minimum: 0}",
        "tokens: {$ref: 'https://example.com/schema.json'}",
    )
    (found,) = complaints(root)
    assert "references stay inside it" in found


def test_all_files_are_read_before_anything_is_said(root: Path) -> None:
    """Problems of every file come together, and a broken file causes no echo elsewhere."""
    (root / "meters" / "api.yaml").write_text("- id: [\n")
    (root / "connections" / "erp.yaml").write_text("connector: sandbox\n")
    (root / "meterpost.yaml").write_text("installation: acme\n")
    places = sorted({problem.where for problem in check(root, {})})
    assert places == ["connections/erp.yaml:1", "meterpost.yaml:1", "meters/api.yaml:2"]


def test_two_workflows_cannot_claim_the_same_usage(root: Path) -> None:
    """Usage serves a purpose once: the second workflow with meter and purpose is told."""
    text = (root / "workflows" / "usage-billing.yaml").read_text()
    (root / "workflows" / "zwei.yaml").write_text(text.replace("name: usage-billing\n", ""))
    (first, second) = complaints(root)
    assert "Workflows usage-billing and zwei both serve the purpose 'bill'" in first
    assert "meter api-tokens" in second


def test_the_digest_follows_meters_and_workflows_only(root: Path) -> None:
    """Order, files and connections do not change it; a meter's meaning does."""
    before = open_workspace(root, {})
    meters = (root / "meters" / "api.yaml").read_text()
    first, second = meters.split("\n- id: api-tokens")
    (root / "meters" / "api.yaml").write_text("- id: api-tokens" + second)
    (root / "meters" / "zz.yaml").write_text(first)
    replace(root / "connections" / "erp.yaml", "timeout_s: 10", "timeout_s: 11.5")
    moved = open_workspace(root, {})
    assert moved.connections[0].timeout_s == 11.5
    assert moved.digest() == before.digest()
    replace(root / "meters" / "api.yaml", "data.tokens > 0", "data.tokens > 1")
    assert open_workspace(root, {}).digest() != before.digest()


def test_a_snapshot_is_stored_and_read_back(root: Path) -> None:
    """Through JSON and back the definitions are equal, Decimals to the digit."""
    snapshot = open_workspace(root, {}).snapshot()
    stored = json.loads(json.dumps(snapshot.plain()))
    assert from_snapshot(stored) == snapshot
    assert from_snapshot(stored).digest == snapshot.digest
    assert Snapshot.of(reversed(snapshot.meters), snapshot.workflows) == snapshot
    with pytest.raises(InvalidInput, match="another version"):
        from_snapshot({**stored, "rules": []})
