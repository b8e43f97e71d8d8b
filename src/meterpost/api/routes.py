"""The table of routes: which request asks for which operation, and where arguments come from.

A route's arguments are those of its operation: the ones named in the path, and the rest from the
query (GET, DELETE) or the JSON body (POST, PUT). Where a resource wants another shape, `Shape`
says which, and how it becomes the operation's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field

from meterpost.operations.arguments import ExternalId, Id, Name, OptionalReason, Reason


@dataclass(frozen=True, slots=True)
class Shape:
    """What is asked where that is not the operation's own dataclass.

    ``one``: the operation decides about many; this asks about one, and its failure is the
    request's.
    """

    asked: type
    to_arguments: Callable[[Any], Mapping[str, object]]
    one: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """One method on one path. ``status`` is that of success.

    ``slow``: it may wait for an ERP or read all there is, for minutes.
    ``uploads``: the body may be a CSV or YAML file itself. ``secret``: the answer must not be
    kept, so an Idempotency-Key is refused. ``lists``: the answer is ``{items, next}``.
    """

    method: str
    path: str
    operation: str
    tag: str
    status: int = 200
    shape: Shape | None = None
    slow: bool = False
    uploads: bool = False
    secret: bool = False
    lists: bool = False
    example: Mapping[str, object] | None = field(default=None, hash=False)

    @property
    def body(self) -> bool:
        """Whether what is not in the path comes from the body."""
        return self.method in ("POST", "PUT")


@dataclass(frozen=True)
class ApproveOne:
    """``hash`` is the `document_hash` of what the approver saw."""

    id: Id
    hash: Annotated[str, Field(min_length=64, max_length=64)]
    reason: OptionalReason = ""


@dataclass(frozen=True)
class RejectOne:
    """``hash`` is the `document_hash` of what was looked at."""

    id: Id
    hash: Annotated[str, Field(min_length=64, max_length=64)]
    reason: Reason


@dataclass(frozen=True)
class DecideOne:
    """One transaction, and why."""

    id: Id
    reason: Reason


@dataclass(frozen=True)
class OneOfMasterdata:
    """``key``: the id; parts of a longer key are separated by ``/``. A slash within a part is
    written ``~1``, a tilde ``~0``.
    """

    entity: Name
    key: ExternalId
    at: str | None = None


@dataclass(frozen=True)
class HistoryOfMasterdata:
    """``key`` as for the thing itself."""

    entity: Name
    key: ExternalId


def _reviewed(asked: ApproveOne | RejectOne) -> Mapping[str, object]:
    return {"transactions": [{"id": asked.id, "hash": asked.hash}], "reason": asked.reason}


def _ids(asked: DecideOne) -> Mapping[str, object]:
    return {"ids": [asked.id], "reason": asked.reason}


def _keyed(asked: OneOfMasterdata | HistoryOfMasterdata) -> Mapping[str, object]:
    key = [part.replace("~1", "/").replace("~0", "~") for part in asked.key.split("/")]
    at = {"at": asked.at} if isinstance(asked, OneOfMasterdata) and asked.at is not None else {}
    return {"entity": asked.entity, "key": key, **at}


_HASH = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_DECIDE_ONE = Shape(DecideOne, _ids, one=True)
_TX = "Transactions"

#: In the order in which they are tried: fixed paths stand before those with a variable.
ROUTES: tuple[Route, ...] = (
    Route("GET", "/v1/status", "status", "Status"),
    # Usage and events
    Route("GET", "/v1/meters", "meters.list", "Usage", lists=True),
    Route("GET", "/v1/usage", "usage.query", "Usage", lists=True),
    Route("GET", "/v1/events", "events.find", "Events", lists=True),
    Route("GET", "/v1/quarantine", "quarantine.list", "Events", lists=True),
    Route("GET", "/v1/quarantine/{id}", "quarantine.show", "Events"),
    Route(
        "POST",
        "/v1/quarantine/{id}/settle",
        "quarantine.settle",
        "Events",
        example={"settlement": "sent again with its id on 2026-11-05"},
    ),
    # Master data
    Route(
        "POST",
        "/v1/masterdata/imports",
        "masterdata.import",
        "Master data",
        uploads=True,
        example={
            "files": [{"name": "customers.csv", "text": "id,name\ninitech,Initech\n"}],
            "dry_run": True,
        },
    ),
    Route("GET", "/v1/masterdata/{entity}", "masterdata.list", "Master data", lists=True),
    Route(
        "GET",
        "/v1/masterdata/{entity}/{key:path}/history",
        "masterdata.history",
        "Master data",
        shape=Shape(HistoryOfMasterdata, _keyed),
        lists=True,
    ),
    Route(
        "GET",
        "/v1/masterdata/{entity}/{key:path}",
        "masterdata.show",
        "Master data",
        shape=Shape(OneOfMasterdata, _keyed),
    ),
    Route("GET", "/v1/crosswalk", "crosswalk.find", "Master data"),
    Route(
        "PUT",
        "/v1/crosswalk",
        "crosswalk.link",
        "Master data",
        example={
            "system": "//api.example",
            "kind": "subject",
            "external_id": "alpha",
            "canonical_id": "S-1",
            "valid_from": "2026-10-01T00:00:00Z",
        },
    ),
    Route("DELETE", "/v1/crosswalk", "crosswalk.unlink", "Master data"),
    # Closes
    Route(
        "POST",
        "/v1/closes",
        "close.run",
        "Closes",
        example={"period": "2026-10", "entity": "acme", "ask": "latest"},
    ),
    Route("GET", "/v1/closes", "close.list", "Closes", lists=True),
    Route("GET", "/v1/closes/{id}", "close.show", "Closes"),
    # Transactions
    Route("GET", "/v1/transactions", "tx.list", _TX, lists=True),
    Route("GET", "/v1/transactions/{id}", "tx.show", _TX),
    Route(
        "POST",
        "/v1/transactions/approve",
        "tx.approve",
        _TX,
        example={"transactions": [{"id": 17, "hash": _HASH}], "reason": "checked"},
    ),
    Route(
        "POST",
        "/v1/transactions/reject",
        "tx.reject",
        _TX,
        example={"transactions": [{"id": 17, "hash": _HASH}], "reason": "wrong contract"},
    ),
    Route(
        "POST",
        "/v1/transactions/release",
        "tx.release",
        _TX,
        example={"ids": [17, 18], "reason": "the contract was right after all"},
    ),
    Route(
        "POST",
        "/v1/transactions/retry",
        "tx.retry",
        _TX,
        example={"ids": [17], "reason": "customer 4711 is active again"},
    ),
    Route(
        "POST",
        "/v1/transactions/withdraw",
        "tx.withdraw",
        _TX,
        example={"ids": [17], "reason": "billed by hand"},
    ),
    Route(
        "POST",
        "/v1/transactions/{id}/approve",
        "tx.approve",
        _TX,
        shape=Shape(ApproveOne, _reviewed, one=True),
        example={"hash": _HASH, "reason": "checked"},
    ),
    Route(
        "POST",
        "/v1/transactions/{id}/reject",
        "tx.reject",
        _TX,
        shape=Shape(RejectOne, _reviewed, one=True),
        example={"hash": _HASH, "reason": "wrong contract"},
    ),
    Route(
        "POST",
        "/v1/transactions/{id}/release",
        "tx.release",
        _TX,
        shape=_DECIDE_ONE,
        example={"reason": "the contract was right after all"},
    ),
    Route(
        "POST",
        "/v1/transactions/{id}/retry",
        "tx.retry",
        _TX,
        shape=_DECIDE_ONE,
        example={"reason": "customer 4711 is active again"},
    ),
    Route(
        "POST",
        "/v1/transactions/{id}/withdraw",
        "tx.withdraw",
        _TX,
        shape=_DECIDE_ONE,
        example={"reason": "billed by hand"},
    ),
    Route(
        "POST",
        "/v1/transactions/{id}/answer",
        "tx.answer",
        _TX,
        example={"answer": "accept", "reason": "agreed with the customer"},
    ),
    # Exceptions
    Route("GET", "/v1/exceptions", "exceptions.list", "Exceptions", lists=True),
    Route("GET", "/v1/exceptions/{id}", "exceptions.show", "Exceptions"),
    Route(
        "POST",
        "/v1/exceptions/{id}/assign",
        "exceptions.assign",
        "Exceptions",
        example={"assignee": "ada"},
    ),
    Route(
        "POST",
        "/v1/exceptions/{id}/settle",
        "exceptions.settle",
        "Exceptions",
        example={"reason": "the first copy is the right one"},
    ),
    Route(
        "POST",
        "/v1/exceptions/{id}/retry",
        "exceptions.retry",
        "Exceptions",
        example={"reason": "the subject was linked"},
    ),
    # Posting
    Route("POST", "/v1/posting/run", "post.run", "Posting", slow=True, example={"seconds": 30}),
    Route("GET", "/v1/posting/check", "post.check", "Posting", slow=True, lists=True),
    Route("GET", "/v1/posting/doubts", "post.doubts", "Posting", lists=True),
    Route(
        "POST",
        "/v1/posting/doubts/{id}/resolve",
        "post.resolve",
        "Posting",
        example={"document": "4711", "reason": "found under our reference"},
    ),
    # Proof
    Route(
        "POST",
        "/v1/reconciliations",
        "reconcile.run",
        "Proof",
        slow=True,
        example={"connection": "sandbox"},
    ),
    Route("GET", "/v1/trace/{ref:path}", "trace", "Proof"),
    Route("GET", "/v1/proofs/{ref:path}", "prove", "Proof"),
    Route("GET", "/v1/balance/{period}", "balance", "Proof"),
    Route("GET", "/v1/audit/verification", "audit.verify", "Audit", slow=True),
    Route("GET", "/v1/audit", "audit.list", "Audit", lists=True),
    # People
    Route("GET", "/v1/users", "users.list", "People", lists=True),
    Route(
        "POST",
        "/v1/users",
        "users.create",
        "People",
        status=201,
        example={"id": "ada", "name": "Ada", "roles": ["approver"]},
    ),
    Route(
        "PUT",
        "/v1/users/{id}/roles",
        "users.roles",
        "People",
        example={"roles": ["reviewer", "operator"]},
    ),
    Route("POST", "/v1/users/{id}/deactivate", "users.deactivate", "People"),
    Route("GET", "/v1/keys", "keys.list", "People", lists=True),
    Route(
        "POST",
        "/v1/keys",
        "keys.create",
        "People",
        status=201,
        secret=True,
        example={"scopes": ["events:write"], "expires_at": "2027-01-01T00:00:00Z"},
    ),
    Route("DELETE", "/v1/keys/{id}", "keys.revoke", "People"),
    # Configuration
    Route("GET", "/v1/configuration/check", "config.check", "Configuration"),
    Route("GET", "/v1/configuration/plan", "config.plan", "Configuration"),
    Route("POST", "/v1/configuration/apply", "config.apply", "Configuration", example={}),
)

#: Operations that no route asks for, and why.
NOT_ROUTED: Mapping[str, str] = {
    "audit.export": "writes a file of the server's machine; GET /v1/audit gives the entries",
    "events.ingest_file": "reads a file of the server's machine; POST /v1/events takes events",
    "masterdata.import_files": "reads files of the server's machine; POST /v1/masterdata/imports "
    "takes their texts",
}
