"""Settings: file, then environment, then command line; and where a missing one was looked for."""

from __future__ import annotations

import re
from dataclasses import MISSING
from pathlib import Path

import pytest

from meterpost.config import read_settings
from meterpost.config.settings import SETTINGS_FILE, setting_names, variable_of
from meterpost.core.errors import InvalidInput
from meterpost.posting.config import SecretReference

DOCS = Path(__file__).parents[3] / "docs" / "configuration.md"


def problems(
    root: Path, environ: dict[str, str] | None = None, overrides: dict[str, str] | None = None
) -> list[str]:
    with pytest.raises(InvalidInput) as raised:
        read_settings(root, environ or {}, overrides)
    return [str(problem) for problem in raised.value.problems]


def test_the_later_place_wins(root: Path) -> None:
    """The command line beats the environment, which beats the file, which beats the default."""
    assert read_settings(root, {}).edge.port == 8420
    environ = {"METERPOST_EDGE__PORT": "9001", "METERPOST_EDGE__LIMITS__BATCH_EVENTS_MAX": "7"}
    settings = read_settings(root, environ)
    assert (settings.edge.port, settings.edge.limits.batch_events_max) == (9001, 7)
    settings = read_settings(root, environ, {"edge.port": "9002"})
    assert (settings.edge.port, settings.edge.limits.batch_events_max) == (9002, 7)


def test_the_database_is_embedded_or_behind_a_secret(root: Path) -> None:
    """A URL holds a password, so it is given by reference, from outside too."""
    assert read_settings(root, {}).database.embedded
    outside = {"METERPOST_DATABASE__URL__ENV": "PGURL"}
    database = read_settings(root, outside).database
    assert (database.embedded, database.url) == (False, SecretReference(env="PGURL"))
    (root / SETTINGS_FILE).write_text(
        "installation: acme\nenvironment: sandbox\ndatabase:\n  url: {file: secrets/url}\n"
    )
    assert read_settings(root, {}).database.url == SecretReference(file="secrets/url")
    assert read_settings(root, {"METERPOST_DATABASE": "embedded"}).database.embedded
    assert "is not `embedded`" in problems(root, {"METERPOST_DATABASE": "postgres://x"})[0]


def test_a_missing_value_names_every_place_searched(root: Path) -> None:
    """Whoever reads the error knows all the ways to give the value."""
    (root / SETTINGS_FILE).write_text("environment: sandbox\n")
    assert problems(root) == [
        "meterpost.yaml:1: `installation` is missing. Looked in: `installation:` in "
        "meterpost.yaml, the environment variable METERPOST_INSTALLATION, the command line's "
        "`--set installation=…`."
    ]
    assert read_settings(root, {"METERPOST_INSTALLATION": "acme"}).installation == "acme"
    assert read_settings(root, {}, {"installation": "acme"}).installation == "acme"


def test_a_wrong_value_names_the_place_that_set_it(root: Path) -> None:
    """File and line, variable, or option: each problem points to its own origin."""
    environ = {"METERPOST_EDGE__PORT": "http", "METERPOST_ENGINE__THREAD": "2", "METERPOST_X": "1"}
    found = problems(root, environ, {"logging.level": "loud", "Edge.port": "1"})
    assert sorted(found) == [
        "command line, Edge.port: 'Edge.port' names no setting.",
        "command line, logging.level: `logging.level` is 'loud', which is none of: debug, info, "
        "warning, error.",
        "environment variable METERPOST_EDGE__PORT: `edge.port` is 'http': must be a valid "
        "integer, unable to parse string as an integer.",
        "environment variable METERPOST_ENGINE__THREAD: `engine.thread` is not a key here. "
        "Did you mean `threads`?",
    ]


def test_limits_that_contradict_each_other_are_refused(root: Path) -> None:
    """What a room checks about its own values comes out with its sentence."""
    (found,) = problems(root, {"METERPOST_EDGE__LIMITS__EVENT_BYTES_MAX": "100000000"})
    assert "limits must rise from event_bytes_max" in found


def test_settings_that_are_no_mapping_are_a_problem(root: Path) -> None:
    """A file with something else in it is said so, whatever is set from outside."""
    (root / SETTINGS_FILE).write_text("- installation\n")
    assert "must be `key: value` lines" in problems(root, {"METERPOST_EDGE__PORT": "1"})[0]


def test_every_setting_is_documented_with_its_default() -> None:
    """The table in docs/configuration.md lists exactly the settings there are."""
    row = r"^\| `([a-z_.]+)` \| ([^|]+) \| `([A-Z_]+)` \|"
    rows = re.findall(row, DOCS.read_text(), re.MULTILINE)
    documented = {name: (default.strip(" `"), variable) for name, default, variable in rows}
    expected = {}
    for name, default in setting_names():
        shown = "required" if default is MISSING else "none" if default is None else str(default)
        expected[name] = (shown, variable_of(tuple(name.split("."))))
    assert documented == expected
