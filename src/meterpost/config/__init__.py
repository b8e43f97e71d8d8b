"""The workspace: YAML files in, checked values out, every complaint with file and line.

Lives here: reading YAML exactly, settings and where they come from, references to secrets,
checks across files, the digest a close depends on, the starter workspace. It is, beside
`bootstrap`, the one place that knows every room's `model`; no room knows it.
"""

from meterpost.config.check import check, open_workspace
from meterpost.config.secret import Secret, resolve_secret
from meterpost.config.settings import Settings, read_settings
from meterpost.config.snapshot import Snapshot, from_snapshot
from meterpost.config.starter import init_workspace
from meterpost.config.workspace import Places, Workspace, find_workspace

__all__ = [
    "Places",
    "Secret",
    "Settings",
    "Snapshot",
    "Workspace",
    "check",
    "find_workspace",
    "from_snapshot",
    "init_workspace",
    "open_workspace",
    "read_settings",
    "resolve_secret",
]
