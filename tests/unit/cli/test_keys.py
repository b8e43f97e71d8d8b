"""Whose key a command speaks with."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from meterpost.cli.keys import save_token, token_of
from meterpost.core.errors import InvalidInput, NeedsPerson


def test_the_named_user_comes_before_the_environments_key(tmp_path: Path) -> None:
    """--as is what the person wrote just now; then the key, then the user of the environment."""
    save_token(tmp_path, "ada", "mp_A")
    save_token(tmp_path, "bob", "mp_B")
    environ = {"METERPOST_API_KEY": "mp_E", "METERPOST_USER": "bob"}
    assert token_of(tmp_path, "ada", environ) == "mp_A"
    assert token_of(tmp_path, None, environ) == "mp_E"
    assert token_of(tmp_path, None, {"METERPOST_USER": "bob"}) == "mp_B"


def test_the_only_key_is_the_one_meant(tmp_path: Path) -> None:
    """With one key file nothing needs to be said; with two somebody has to be named."""
    save_token(tmp_path, "ada", "mp_A")
    assert token_of(tmp_path, None, {}) == "mp_A"
    save_token(tmp_path, "bob", "mp_B")
    with pytest.raises(NeedsPerson, match="ada, bob"):
        token_of(tmp_path, None, {})


def test_a_key_file_is_private_and_replaced_whole(tmp_path: Path) -> None:
    """Mode 0600; nothing is left beside it."""
    save_token(tmp_path, "ada", "mp_old")
    path = save_token(tmp_path, "ada", "mp_new")
    assert path.read_text() == "mp_new\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["ada"]


@pytest.mark.parametrize("user", ["../../etc/passwd", "Ada", "", ".hidden", "a/b"])
def test_a_user_is_no_path(tmp_path: Path, user: str) -> None:
    """Ids that could lead out of the folder are refused before anything is opened."""
    if user:
        with pytest.raises(InvalidInput):
            token_of(tmp_path, user, {})
    with pytest.raises(InvalidInput):
        save_token(tmp_path, user, "mp_A")


def test_a_missing_key_says_how_to_make_one(tmp_path: Path) -> None:
    """The hint names the commands."""
    with pytest.raises(NeedsPerson, match="keys create --user ada --save"):
        token_of(tmp_path, "ada", {})
