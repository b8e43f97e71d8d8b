"""One parent, several processes: started in order, restarted when they die, stopped in reverse.

Here: what `meterpost up` and `meterpost status` need of the operating system. Not here: what
the processes do; nothing in this package knows a room, a database or a setting.
"""

from meterpost.supervise.child import ChildSpec, ProcessChild, Supervised
from meterpost.supervise.leash import die_with_parent
from meterpost.supervise.lock import WorkspaceLock
from meterpost.supervise.model import RestartPolicy
from meterpost.supervise.probe import http_probe, ready_file
from meterpost.supervise.server_child import ManagedServer, ServerChild
from meterpost.supervise.state import ChildState, SupervisorState, read_state
from meterpost.supervise.supervisor import Supervisor

__all__ = [
    "ChildSpec",
    "ChildState",
    "ManagedServer",
    "ProcessChild",
    "RestartPolicy",
    "ServerChild",
    "Supervised",
    "Supervisor",
    "SupervisorState",
    "WorkspaceLock",
    "die_with_parent",
    "http_probe",
    "read_state",
    "ready_file",
]
