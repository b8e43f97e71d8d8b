"""Personal fields: random tokens before the journal, and how a vault keeps the values.

The installation's secret gives two keys. One makes the look-up (HMAC of field and value), so
that the same value finds its token without being readable; the other wraps the key of each
value. Whoever erases a value deletes its row, and with it the only copy of that key.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from meterpost.core.canonical import crockford
from meterpost.core.errors import NeedsPerson
from meterpost.ingest.ports import TokenVault

#: Tokens are recognised by eye: ``pt_`` and 26 characters of 130 random bits.
TOKEN_PREFIX = "pt_"  # noqa: S105 - a prefix, not a password
SECRET_BYTES_MIN = 32
_NONCE_BYTES = 12


@dataclass(frozen=True, slots=True)
class SealedValue:
    """A value as the vault stores it."""

    token: str
    lookup: bytes
    ciphertext: bytes
    wrapped_key: bytes


class PersonalKeys:
    """The keys derived from the installation's secret."""

    def __init__(self, secret: bytes) -> None:
        """Raises: NeedsPerson where the secret is too short to be random."""
        if len(secret) < SECRET_BYTES_MIN:
            raise NeedsPerson(
                f"The secret for personal fields has {len(secret)} bytes.",
                hint=f"Give at least {SECRET_BYTES_MIN} random ones.",
            )
        self._lookup_key = _derive(secret, b"meterpost personal lookup")
        self._wrapping = AESGCM(_derive(secret, b"meterpost personal wrapping"))

    def lookup(self, field: str, value: str) -> bytes:
        """What a value is found by; says nothing about it without the secret."""
        name = field.encode()
        message = len(name).to_bytes(4) + name + value.encode(errors="surrogatepass")
        return hmac.digest(self._lookup_key, message, sha256)

    def seal(self, field: str, value: str) -> SealedValue:
        """A new token for the value, and the value under a key of its own."""
        token = TOKEN_PREFIX + crockford(secrets.token_bytes(17), 26)
        key = AESGCM.generate_key(128)
        return SealedValue(
            token,
            self.lookup(field, value),
            _encrypt(AESGCM(key), value.encode(errors="surrogatepass"), token),
            _encrypt(self._wrapping, key, token),
        )

    def open(self, sealed: SealedValue) -> str:
        """The value.

        Raises: NeedsPerson where it was sealed under another secret, or altered.
        """
        try:
            key = _decrypt(self._wrapping, sealed.wrapped_key, sealed.token)
            return _decrypt(AESGCM(key), sealed.ciphertext, sealed.token).decode(
                errors="surrogatepass"
            )
        except InvalidTag as exc:
            raise NeedsPerson(
                f"The value of {sealed.token} does not open.",
                hint="Is the secret for personal fields the one it was sealed with?",
            ) from exc


def pseudonymise(body: bytes, personal: Mapping[str, Sequence[str]], vault: TokenVault) -> bytes:
    """The JSON array of events with a token in place of every personal value.

    ``personal``: event type → fields. All else stays byte for byte. Text is tokenised as its
    characters, anything else as its JSON; null and absent fields stay.
    """
    events = msgspec.json.decode(body, type=list[dict[str, msgspec.Raw]])
    places: dict[str, dict[str, list[tuple[dict[str, msgspec.Raw], str]]]] = {}
    rebuilt: list[tuple[dict[str, msgspec.Raw], str, dict[str, msgspec.Raw]]] = []
    for event in events:
        fields = personal.get(msgspec.json.decode(event["type"]), ())
        opened: dict[tuple[str, ...], dict[str, msgspec.Raw]] = {(): event}
        for field in fields:
            found = _holder(opened, tuple(field.split(".")), rebuilt)
            if found is not None:
                value = _text(found[0][found[1]])
                places.setdefault(field, {}).setdefault(value, []).append(found)
    for field, values in places.items():
        tokens = vault.tokens(field, values.keys())
        for value, spots in values.items():
            token = msgspec.Raw(msgspec.json.encode(tokens[value]))
            for holder, name in spots:
                holder[name] = token
    # Inner objects were opened after their parents, so they are closed before them.
    for parent, name, child in reversed(rebuilt):
        parent[name] = msgspec.Raw(msgspec.json.encode(child))
    return msgspec.json.encode(events)


def _holder(
    opened: dict[tuple[str, ...], dict[str, msgspec.Raw]],
    path: tuple[str, ...],
    rebuilt: list[tuple[dict[str, msgspec.Raw], str, dict[str, msgspec.Raw]]],
) -> tuple[dict[str, msgspec.Raw], str] | None:
    """The object that holds the path's last step, opened along the way; None where absent."""
    for depth in range(len(path) - 1):
        parent, name = opened[path[:depth]], path[depth]
        if path[: depth + 1] in opened:
            continue
        if bytes(parent.get(name, b""))[:1] != b"{":
            return None
        child = msgspec.json.decode(parent[name], type=dict[str, msgspec.Raw])
        opened[path[: depth + 1]] = child
        rebuilt.append((parent, name, child))
    holder, name = opened[path[:-1]], path[-1]
    return (holder, name) if bytes(holder.get(name, b"null")) != b"null" else None


def _text(raw: msgspec.Raw) -> str:
    return msgspec.json.decode(raw) if bytes(raw)[:1] == b'"' else bytes(raw).decode()


def _derive(secret: bytes, purpose: bytes) -> bytes:
    return HKDF(SHA256(), length=32, salt=None, info=purpose).derive(secret)


def _encrypt(cipher: AESGCM, plain: bytes, token: str) -> bytes:
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return nonce + cipher.encrypt(nonce, plain, token.encode())


def _decrypt(cipher: AESGCM, sealed: bytes, token: str) -> bytes:
    return cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], token.encode())
