"""Whose key the command line speaks with, and the files keys are kept in."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from meterpost.config import resolve_secret
from meterpost.core.errors import InvalidInput, NeedsPerson
from meterpost.posting.config import SecretReference

KEY_VARIABLE, USER_VARIABLE = "METERPOST_API_KEY", "METERPOST_USER"
_FOLDER = "secrets/keys"
_USER = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,79}")


def token_of(root: Path, user: str | None, environ: Mapping[str, str] | None = None) -> str:
    """The API key to speak with.

    ``user`` (the option --as) names a key file; else the key in METERPOST_API_KEY, else the
    file of METERPOST_USER, else the only key file there is.
    Raises: NeedsPerson telling what was looked for.
    """
    environ = os.environ if environ is None else environ
    if user is None and environ.get(KEY_VARIABLE):
        return environ[KEY_VARIABLE]
    name = user or environ.get(USER_VARIABLE) or _only_user(root)
    if not _USER.fullmatch(name):
        raise InvalidInput(f"{name!r} cannot be a user's id.")
    path = root / _FOLDER / name
    if not path.exists():
        raise NeedsPerson(
            f"There is no key file of {name}: {path}.",
            hint="An administrator makes one: meterpost users create … --key, or "
            f"meterpost keys create --user {name} --save.",
        )
    return resolve_secret(SecretReference(file=f"{_FOLDER}/{name}"), root).reveal()


def save_token(root: Path, user: str, token: str) -> Path:
    """The file (0600) the token was written to; an older one is replaced whole."""
    if not _USER.fullmatch(user):
        raise InvalidInput(f"{user!r} cannot be a user's id.")
    folder = root / _FOLDER
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path, aside = folder / user, folder / f".{user}.{os.getpid()}"
    handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(token + "\n")
        aside.replace(path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise
    return path


def _only_user(root: Path) -> str:
    folder = root / _FOLDER
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    names = [name for name in names if _USER.fullmatch(name)]
    if len(names) == 1:
        return names[0]
    known = f"Key files: {', '.join(names)}." if names else f"{folder} holds no key."
    raise NeedsPerson(
        "Say who you are: with --as USER, METERPOST_USER, or a key in METERPOST_API_KEY.",
        hint=known,
    )
