"""Secrets behind references: resolved late, never shown."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from meterpost.core.errors import NeedsPerson
from meterpost.posting.config import SecretReference

SECRET_BYTES_MAX = 64 * 1024


class Secret:
    """A value that prints as asterisks; only `reveal` gives it away."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself. It belongs into a request, never into a log or a message."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a secret is not pickled")


def resolve_secret(
    reference: SecretReference, root: Path, environ: Mapping[str, str] | None = None
) -> Secret:
    """The secret a reference names; a file's last line ends are not part of it.

    File paths are relative to the workspace ``root``. Raises: NeedsPerson when there is none,
    or when others than its owner could read or replace the file.
    """
    if reference.env is not None:
        value = (os.environ if environ is None else environ).get(reference.env)
        if not value:
            raise NeedsPerson(
                f"The environment variable {reference.env} is not set or empty.",
                hint="A secret of the configuration refers to it.",
            )
        return Secret(value)
    path = root / str(reference.file)
    try:
        value = _read_private(path)
    except OSError as exc:
        raise NeedsPerson(
            f"The secret file {path} cannot be read: {exc.strerror}.",
            hint="Write the secret there, with mode 0600.",
        ) from exc
    except UnicodeDecodeError as exc:
        raise NeedsPerson(f"The secret file {path} is not UTF-8 text.") from exc
    if not value:
        raise NeedsPerson(f"The secret file {path} is empty.")
    return Secret(value)


def _read_private(path: Path) -> str:
    # The open file is asked for its mode, so that what is checked is what is read.
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise NeedsPerson(
                f"Others may read the secret file {path} "
                f"(mode {stat.S_IMODE(status.st_mode):04o}).",
                hint=f"Close it: chmod 600 {path}",
            )
        if not stat.S_ISREG(status.st_mode):
            raise NeedsPerson(f"{path} is no regular file.")
        data = file.read(SECRET_BYTES_MAX + 1)
    if len(data) > SECRET_BYTES_MAX:
        raise NeedsPerson(f"The secret file {path} has more than {SECRET_BYTES_MAX:,} bytes.")
    return data.decode().rstrip("\r\n")
