"""The Merkle tree: RFC 6962's shape, and proofs that hold for the right entry only."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterpost.audit.model import AuditEntry, InclusionProof, StoredEntry
from meterpost.audit.seal import (
    GENESIS,
    entry_bytes,
    inclusion_path,
    leaf_hash,
    proof_holds,
    root_from_path,
    root_of,
    seal_entries,
)

AT = datetime(2026, 10, 1, tzinfo=UTC)

# Published vectors of RFC 6962's tree (certificate-transparency reference implementations):
# leaves, and the root after each.
LEAVES = [
    bytes.fromhex(leaf)
    for leaf in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = (
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)


def recursive_root(leaves: Sequence[bytes]) -> bytes:
    """The definition of RFC 6962, section 2.1, word by word."""
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(
        b"\x01" + recursive_root(leaves[:k]) + recursive_root(leaves[k:])
    ).digest()


def entry(n: int) -> StoredEntry:
    return StoredEntry(n, AuditEntry(AT, "ann", "close.requested", "close", str(n), {"n": n}))


def test_roots_are_those_of_the_published_vectors() -> None:
    """Any implementation of RFC 6962 can check our roots."""
    for n, expected in enumerate(ROOTS, 1):
        assert root_of([leaf_hash(leaf) for leaf in LEAVES[:n]]).hex() == expected
    assert root_of([]).hex() == hashlib.sha256(b"").hexdigest()


@given(st.integers(1, 200))
def test_the_tree_is_the_recursive_one(size: int) -> None:
    """Pairing level by level gives the tree that the definition splits recursively."""
    leaves = [leaf_hash(bytes([n])) for n in range(size)]
    assert root_of(leaves) == recursive_root(leaves)


@given(st.integers(1, 130), st.data())
def test_paths_lead_to_the_root_from_their_own_leaf_only(size: int, data: st.DataObject) -> None:
    """A path proves its leaf at its place, and nothing else."""
    leaves = [leaf_hash(bytes([n])) for n in range(size)]
    place = data.draw(st.integers(0, size - 1))
    path = inclusion_path(leaves, place)
    root = root_of(leaves)
    assert root_from_path(leaves[place], place, size, path) == root
    assert root_from_path(leaf_hash(b"other"), place, size, path) != root
    assert root_from_path(leaves[place], place, size, (*path, root)) is None
    if path:
        assert root_from_path(leaves[place], place, size, path[:-1]) is None
        other = data.draw(st.integers(0, size - 1).filter(lambda n: n != place))
        assert root_from_path(leaves[place], other, size, path) != root
    assert root_from_path(leaves[place], size, size, path) is None


def test_seals_are_chained_from_nothing() -> None:
    """The first seal names zeros before it, each next one the hash of the one before."""
    first = seal_entries([entry(1)], None, AT)
    second = seal_entries([entry(2), entry(3)], first, AT)
    assert (first.n, first.previous) == (1, GENESIS)
    assert (second.n, second.previous, second.entries) == (2, first.hash, 2)


def test_a_proof_fails_when_anything_in_it_is_changed() -> None:
    """Entry, place, path and seal of a proof are all bound."""
    entries = [entry(n) for n in range(5)]
    seal = seal_entries(entries, None, AT)
    leaves = [leaf_hash(entry_bytes(stored)) for stored in entries]
    path = tuple(beside.hex() for beside in inclusion_path(leaves, 3))
    proof = InclusionProof(entries[3], seal, 3, path)
    assert proof_holds(proof)
    assert not proof_holds(replace(proof, entry=entry(9)))
    assert not proof_holds(replace(proof, place=2))
    assert not proof_holds(replace(proof, path=path[1:]))
    assert not proof_holds(replace(proof, path=("zz", *path[1:])))
    assert not proof_holds(replace(proof, seal=replace(seal, entries=6)))
    assert not proof_holds(replace(proof, seal=replace(seal, sealed_at=AT.replace(day=2))))


def test_content_without_an_exact_form_is_refused() -> None:
    """A float in an entry's detail has no one canonical form, so it is not sealed."""
    stored = StoredEntry(1, AuditEntry(AT, "a", "b", "c", "d", {"x": 1.5}))
    with pytest.raises(TypeError):
        entry_bytes(stored)
