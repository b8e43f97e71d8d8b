"""A workspace to begin with: commented, small, and correct."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template

from meterpost.config.settings import SETTINGS_FILE
from meterpost.config.workspace import Places
from meterpost.core.errors import Conflict, InvalidInput
from meterpost.core.problem import Problem

#: Names under which a template cannot lie in our package.
_RENAMED = {"gitignore": ".gitignore"}
_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")


def init_workspace(path: Path, installation: str, environment: str = "sandbox") -> Places:
    """The places of a new workspace at ``path``, which passes `check`.

    The folder may exist and hold other things. Raises: Conflict, before anything is written,
    when a file of ours is there already; InvalidInput for names that cannot be used.
    """
    problems = [
        Problem(
            "invalid",
            f"{value!r} cannot name an {word}.",
            word,
            "Use up to 40 lower-case letters, digits and hyphens, a letter first.",
        )
        for word, value in (("installation", installation), ("environment", environment))
        if not _NAME.fullmatch(value)
    ]
    if problems:
        raise InvalidInput("The workspace cannot be made:", problems)
    root = path.resolve()
    words = {"installation": installation, "environment": environment}
    texts = {
        root / name: Template(source.read_text(encoding="utf-8")).substitute(words)
        for name, source in _templates(files("meterpost.config") / "templates", Path())
    }
    existing = sorted(str(target.relative_to(root)) for target in texts if target.exists())
    if existing:
        raise Conflict(
            f"{root} holds {', '.join(existing)} already; nothing was written.",
            hint="Choose another folder, or go on with that workspace."
            if SETTINGS_FILE in existing
            else "Choose another folder, or move those files away.",
        )
    places = Places(root)
    root.mkdir(parents=True, exist_ok=True)
    for target, text in texts.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        # "x": a file that appeared meanwhile is not overwritten either.
        with target.open("x", encoding="utf-8") as file:
            file.write(text)
    for private in (root / "secrets", places.state):
        private.mkdir(exist_ok=True)
        private.chmod(0o700)
    return places


def _templates(folder: Traversable, under: Path) -> Iterator[tuple[Path, Traversable]]:
    for each in sorted(folder.iterdir(), key=lambda item: item.name):
        if each.is_dir():
            yield from _templates(each, under / each.name)
        else:
            yield under / _RENAMED.get(each.name, each.name), each
