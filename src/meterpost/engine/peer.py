"""Who is at the other end of a local socket, as the kernel says."""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass

_CREDENTIALS = struct.Struct("3i")


@dataclass(frozen=True, slots=True)
class Peer:
    """The process that connected, at the moment it did."""

    pid: int
    uid: int

    def trusted_by(self, uid: int) -> bool:
        """Whether it runs as that user, or as root, who could become that user anyway."""
        return self.uid in (0, uid)


def peer_of(connection: socket.socket) -> Peer | None:
    """The other end; None where this system cannot say (then the directory's mode alone guards).

    Raises: OSError when it is gone.
    """
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return None
    pid, uid, _ = _CREDENTIALS.unpack(
        connection.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size)
    )
    return Peer(pid, uid)


def is_trusted(peer: Peer | None) -> bool:
    """Whether to talk to it: it is our own user, or root."""
    return peer is None or peer.trusted_by(os.geteuid())
