"""Merkle trees and the chain of seals: pure, and small enough to be written again elsewhere.

The tree has the shape of RFC 6962, section 2.1: a leaf is SHA-256(0x00 ‖ entry), a node is
SHA-256(0x01 ‖ left ‖ right), a run of n > 1 leaves is split at the largest power of two below n.
A seal is SHA-256(0x02 ‖ its canonical JSON). The first byte keeps the three from being taken
for each other.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from meterpost.audit.model import InclusionProof, Seal, StoredEntry
from meterpost.core.canonical import canonical_json

_LEAF, _NODE, _SEAL = b"\x00", b"\x01", b"\x02"

#: What the first seal names as the one before it.
GENESIS = "0" * 64


def entry_bytes(stored: StoredEntry) -> bytes:
    """The entry's canonical form: sorted keys, moments in UTC, its sequence included.

    Raises: TypeError for content without such a form (a float), which no writer of ours makes.
    """
    entry = stored.entry
    return canonical_json(
        {
            "sequence": stored.sequence,
            "at": entry.at,
            "actor": entry.actor,
            "action": entry.action,
            "object_kind": entry.object_kind,
            "object_id": entry.object_id,
            "detail": entry.detail,
            "correlation_id": entry.correlation_id,
        }
    )


def leaf_hash(content: bytes) -> bytes:
    """The hash of one leaf."""
    return hashlib.sha256(_LEAF + content).digest()


def root_of(leaves: Sequence[bytes]) -> bytes:
    """The Merkle root over leaf hashes; of none, the hash of nothing."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    level = list(leaves)
    # Pairing from the left, the odd one carried up, gives the same tree as the recursive split.
    while len(level) > 1:
        paired = [_node(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        level = paired + level[len(paired) * 2 :]
    return level[0]


def inclusion_path(leaves: Sequence[bytes], place: int) -> tuple[bytes, ...]:
    """The hashes beside the way from a leaf to the root, from the bottom up."""
    if not 0 <= place < len(leaves):
        raise IndexError(f"there is no leaf {place} among {len(leaves)}")
    path: list[bytes] = []
    level = list(leaves)
    while len(level) > 1:
        beside = place ^ 1
        if beside < len(level):
            path.append(level[beside])
        paired = [_node(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        level = paired + level[len(paired) * 2 :]
        place //= 2
    return tuple(path)


def root_from_path(leaf: bytes, place: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """The root that a leaf's path leads to; None where the path cannot be one of that tree."""
    if not 0 <= place < size:
        return None
    steps = iter(path)
    hashed = leaf
    while size > 1:
        if place ^ 1 < size:
            beside = next(steps, None)
            if beside is None:
                return None
            hashed = _node(beside, hashed) if place & 1 else _node(hashed, beside)
        place //= 2
        size = (size + 1) // 2
    return hashed if next(steps, None) is None else None


def seal_hash(seal: Seal) -> str:
    """What the seal's own content hashes to, in hex; ``seal.hash`` is not part of it."""
    content = {
        "n": seal.n,
        "entries": seal.entries,
        "root": seal.root,
        "previous": seal.previous,
        "sealed_at": seal.sealed_at,
    }
    return hashlib.sha256(_SEAL + canonical_json(content)).hexdigest()


def seal_entries(entries: Sequence[StoredEntry], last: Seal | None, now: datetime) -> Seal:
    """The next seal, over these entries in this order."""
    root = root_of([leaf_hash(entry_bytes(stored)) for stored in entries]).hex()
    n, previous = (1, GENESIS) if last is None else (last.n + 1, last.hash)
    unsigned = Seal(n, len(entries), root, previous, "", now)
    return replace(unsigned, hash=seal_hash(unsigned))


def proof_holds(proof: InclusionProof) -> bool:
    """Whether the entry stands under the seal's root, and the seal's hash is its own."""
    try:
        leaf = leaf_hash(entry_bytes(proof.entry))
        path = [bytes.fromhex(text) for text in proof.path]
    except (TypeError, ValueError):
        return False
    root = root_from_path(leaf, proof.place, proof.seal.entries, path)
    return (
        root is not None
        and hmac.compare_digest(root.hex(), proof.seal.root)
        and seal_hash(proof.seal) == proof.seal.hash
    )


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(_NODE + left + right).digest()
