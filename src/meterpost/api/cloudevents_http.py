"""CloudEvents over HTTP: which mode a request is in, and its body as the checks want it.

Source: CloudEvents HTTP Protocol Binding 1.0.2, sections 3.1 (binary), 3.2 (structured) and
3.3 (batched).
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Mapping
from enum import Enum
from functools import lru_cache
from urllib.parse import unquote_to_bytes

import msgspec

from meterpost.core.errors import Permanent
from meterpost.ingest.checks import TooLarge, Unparsable


class Mode(Enum):
    """How events lie in a request."""

    STRUCTURED = "application/cloudevents+json"
    BATCH = "application/cloudevents-batch+json"
    LINES = "application/x-ndjson"
    BINARY = "ce-* headers"


class UnknownMediaType(Permanent):
    """The request's content type or encoding is none that events come in (415)."""

    code = "unsupported-media-type"


_MODES = {
    "application/cloudevents+json": Mode.STRUCTURED,
    "application/cloudevents-batch+json": Mode.BATCH,
    "application/x-ndjson": Mode.LINES,
    "application/ndjson": Mode.LINES,
    "application/jsonl": Mode.LINES,
}
#: Members of the event that the binding puts elsewhere than into a ``ce-`` header.
_NOT_HEADERS = {"data", "data_base64", "datacontenttype"}
_INFLATE_STEP_BYTES = 1 << 20
_GZIP_MEMBERS_MAX = 1_000


def mode_of(headers: Mapping[bytes, bytes]) -> Mode:
    """The mode the request is in.

    Raises: UnknownMediaType.
    """
    media_type, charset = _media_type(headers.get(b"content-type", b""))
    mode = _MODES.get(media_type)
    if mode is not None:
        if charset not in ("", "utf-8", "us-ascii"):
            raise UnknownMediaType(f"The charset is {charset[:40]}.", hint="Send UTF-8.")
        return mode
    if b"ce-specversion" in headers:
        return Mode.BINARY
    accepted = ", ".join(name.value for name in Mode if name is not Mode.BINARY)
    raise UnknownMediaType(
        f"Events do not come as {media_type[:80] or 'nothing'}.",
        hint=f"Send {accepted}, or any type with ce-* headers.",
    )


def structured(headers: Mapping[bytes, bytes], body: bytes) -> bytes:
    """The structured form of a binary request: attributes from headers, data from the body.

    JSON data stays byte for byte; any other content becomes ``data_base64``.
    Raises: Unparsable.
    """
    event: dict[str, object] = {}
    for header, value in headers.items():
        if header.startswith(b"ce-"):
            name = header[3:].decode("latin-1")
            if name in _NOT_HEADERS:
                raise Unparsable(
                    f"The header ce-{name} has no meaning.",
                    hint="The data is the body, its type the Content-Type header.",
                )
            event[name] = _text(name, value)
    content_type = headers.get(b"content-type", b"").decode("latin-1")
    media_type, _ = _media_type(content_type.encode("latin-1"))
    if content_type:
        event["datacontenttype"] = content_type
    if body and (media_type in ("", "application/json", "text/json") or _is_json(media_type)):
        try:
            event["data"] = msgspec.json.decode(body, type=msgspec.Raw)
        except (msgspec.DecodeError, RecursionError) as exc:
            raise Unparsable(f"The data is not JSON: {exc}.") from exc
    elif body:
        event["data_base64"] = base64.b64encode(body).decode()
    return msgspec.json.encode(event)


def unpacked(
    headers: Mapping[bytes, bytes],
    body: bytes,
    bytes_max: int,
    reserve: Callable[[int], None],
) -> bytes:
    """The body without its content encoding (gzip, or none).

    ``reserve`` is told of every further part, a megabyte at most; it may raise.
    Raises: UnknownMediaType, Unparsable, TooLarge past ``bytes_max``.
    """
    encoding = headers.get(b"content-encoding", b"identity").strip().lower()
    if encoding == b"identity":
        return body
    if encoding not in (b"gzip", b"x-gzip"):
        name = encoding[:40].decode("latin-1")
        raise UnknownMediaType(
            f"The content encoding is {name}.", hint="Send gzip, or no encoding."
        )
    parts: list[bytes] = []
    size = 0
    rest = body
    for _ in range(_GZIP_MEMBERS_MAX):
        if not rest:
            return b"".join(parts)
        member = zlib.decompressobj(wbits=31)
        while not member.eof:
            try:
                part = member.decompress(rest, _INFLATE_STEP_BYTES)
            except zlib.error as exc:
                raise Unparsable(f"The body is not gzip: {exc}.") from exc
            rest = member.unconsumed_tail
            size += len(part)
            if size > bytes_max:
                raise TooLarge(f"The body unpacks to more than {bytes_max} bytes.")
            reserve(len(part))
            parts.append(part)
            if not (part or rest or member.eof):
                raise Unparsable("The gzip body ends too early.")
        rest = member.unused_data
    raise Unparsable(f"The gzip body has more than {_GZIP_MEMBERS_MAX} members.")


def _text(name: str, value: bytes) -> str:
    """A header's value with percent-encoding undone.

    Raises: Unparsable where that is no UTF-8.
    """
    try:
        return unquote_to_bytes(value.strip()).decode()
    except UnicodeDecodeError as exc:
        raise Unparsable(
            f"The header ce-{name[:64]} is not UTF-8.", hint="Percent-encode what is not ASCII."
        ) from exc


@lru_cache(maxsize=256)
def _media_type(value: bytes) -> tuple[str, str]:
    """Media type and charset, both in lower case, the charset empty where none is named."""
    media_type, *parameters = value.decode("latin-1").lower().split(";")
    charset = ""
    for parameter in parameters:
        name, _, said = parameter.partition("=")
        if name.strip() == "charset":
            charset = said.strip().strip('"')
    return media_type.strip(), charset


def _is_json(media_type: str) -> bool:
    return media_type.endswith("+json")
