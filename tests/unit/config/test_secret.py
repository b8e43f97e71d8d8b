"""Secrets by reference: from where they may come, and that they do not show."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from meterpost.config import Secret, resolve_secret
from meterpost.core.errors import NeedsPerson
from meterpost.posting.config import SecretReference


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("geheim \n")
    path.chmod(0o600)
    return path


REFERENCE = SecretReference(file="token")


def test_a_secret_comes_from_a_file_or_a_variable(tmp_path: Path, file: Path) -> None:
    """The file's last line end is not part of it; everything else is."""
    assert resolve_secret(REFERENCE, tmp_path).reveal() == "geheim "
    absolute = SecretReference(file=str(file))
    assert resolve_secret(absolute, Path("/elsewhere")).reveal() == "geheim "
    variable = SecretReference(env="TOKEN")
    assert resolve_secret(variable, tmp_path, {"TOKEN": "geheim"}).reveal() == "geheim"


def test_a_file_that_others_can_read_is_refused(tmp_path: Path, file: Path) -> None:
    """The sentence says how to close it."""
    for mode in (0o640, 0o604, 0o620, 0o666):
        file.chmod(mode)
        with pytest.raises(NeedsPerson, match=r"Others may read .*chmod 600"):
            resolve_secret(REFERENCE, tmp_path)
    file.chmod(0o400)
    assert resolve_secret(REFERENCE, tmp_path).reveal() == "geheim "


def test_a_missing_secret_says_where_it_was_looked_for(tmp_path: Path, file: Path) -> None:
    """Variable or path, missing or empty or unreadable: named, never its content."""
    with pytest.raises(NeedsPerson, match="environment variable TOKEN"):
        resolve_secret(SecretReference(env="TOKEN"), tmp_path, {"TOKEN": ""})
    with pytest.raises(NeedsPerson, match="cannot be read: No such file"):
        resolve_secret(SecretReference(file="nope"), tmp_path)
    with pytest.raises(NeedsPerson, match="cannot be read: Is a directory"):
        resolve_secret(SecretReference(file="."), tmp_path)
    file.write_bytes(b"\n")
    with pytest.raises(NeedsPerson, match="is empty"):
        resolve_secret(REFERENCE, tmp_path)
    file.write_bytes(b"\xff")
    with pytest.raises(NeedsPerson, match="not UTF-8"):
        resolve_secret(REFERENCE, tmp_path)
    file.write_bytes(b"x" * 70_000)
    with pytest.raises(NeedsPerson, match="more than"):
        resolve_secret(REFERENCE, tmp_path)


def test_a_secret_does_not_show() -> None:
    """Printing, formatting and nesting give asterisks; it cannot be pickled by accident."""
    secret = Secret("geheim")
    assert "geheim" not in f"{secret} {secret!r} {[secret]} {{'a': {secret}}}"
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    assert not hasattr(secret, "__dict__")
