"""Which operating-system user runs the server, and what that user can reach."""

from __future__ import annotations

import os
import pwd
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from meterpost.core.errors import NeedsPerson

#: Tried in this order when root starts the server and names nobody in particular.
PREFERRED_USERS = ("meterpost", "nobody")


class Identity(TypedDict, total=False):
    """The arguments of `subprocess.Popen` that change the user."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True, slots=True)
class Account:
    """The user that owns the cluster's files and runs its processes."""

    name: str
    uid: int
    gid: int

    @property
    def switched(self) -> bool:
        """Whether this is another user than ours (only root can do that)."""
        return self.uid != os.geteuid()

    def identity(self) -> Identity:
        """Arguments for `subprocess.Popen` that run a program as this user."""
        if not self.switched:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own(self, path: Path) -> None:
        """Make this user the owner of one file or directory; links are not followed."""
        if self.switched:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def own_tree(self, root: Path) -> None:
        """Make this user the owner of everything below and including ``root``."""
        if not self.switched:
            return
        for folder, folders, files in os.walk(root, followlinks=False):
            for name in (*folders, *files):
                os.chown(Path(folder, name), self.uid, self.gid, follow_symlinks=False)
        self.own(root)

    def can_enter(self, directory: Path) -> bool:
        """Whether this user can change into the directory, asked of the kernel itself.

        Mode bits alone would miss access control lists, user namespaces and mount options.
        """
        if not self.switched:
            return os.access(directory, os.X_OK)
        answer = subprocess.run(
            ["/bin/sh", "-c", 'cd -P -- "$1"', "sh", str(directory)],
            cwd="/",
            env={"PATH": os.defpath},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=30,
            **self.identity(),
        )
        return answer.returncode == 0


def server_account(cluster: Path, run_as: str | None) -> Account:
    """The user to run the server as: ours, or an unprivileged one where we are root.

    PostgreSQL refuses to run as root. An existing cluster is run by its owner, so that root can
    start what a plain user made.

    Raises: NeedsPerson where root has no unprivileged user to switch to, or the cluster is
    another user's.
    """
    owner = cluster.stat().st_uid if (cluster / "PG_VERSION").exists() else None
    if os.geteuid() != 0:
        if owner is not None and owner != os.geteuid():
            raise NeedsPerson(
                f"The database {cluster} belongs to user {_name(owner)}, not to {_name()}.",
                hint=f"Run meterpost as {_name(owner)}, or as root.",
            )
        return Account(_name(), os.geteuid(), os.getegid())
    if owner:
        return _lookup_uid(owner)
    for name in (run_as,) if run_as else PREFERRED_USERS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    wanted = run_as or " or ".join(PREFERRED_USERS)
    raise NeedsPerson(
        f"PostgreSQL cannot run as root and there is no unprivileged user {wanted}.",
        hint="Create one (`useradd --system meterpost`) or run meterpost as a plain user.",
    )


def secure_directory(path: Path, mode: int, owner: int | None = None) -> Path:
    """The directory, made where missing, that only its owner can change.

    A directory someone else prepared in a shared place (a link, another owner, writable by
    others) is refused, not repaired: its content cannot be trusted.

    Raises: NeedsPerson naming what is wrong with it.
    """
    expected = os.geteuid() if owner is None else owner
    try:
        path.mkdir(mode=0o700)
        if expected != os.geteuid():
            os.chown(path, expected, -1, follow_symlinks=False)
    except FileExistsError:
        pass
    found = path.lstat()
    wrong = None
    if not stat.S_ISDIR(found.st_mode):
        wrong = "is no directory"
    elif found.st_uid != expected:
        wrong = f"belongs to user {_name(found.st_uid)}, not to {_name(expected)}"
    elif found.st_mode & 0o022:
        wrong = "can be changed by other users"
    if wrong is not None:
        raise NeedsPerson(f"{path} {wrong}.", hint="Remove it, then start again.")
    if stat.S_IMODE(found.st_mode) != mode:
        path.chmod(mode)
    return path


def _lookup_uid(uid: int) -> Account:
    try:
        entry = pwd.getpwuid(uid)
    except KeyError as exc:
        raise NeedsPerson(
            f"The database belongs to user id {uid}, which this machine does not know.",
            hint="Give the data directory to an existing user (chown -R).",
        ) from exc
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _name(uid: int | None = None) -> str:
    number = os.geteuid() if uid is None else uid
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)
