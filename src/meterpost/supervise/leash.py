"""A process that ends with its parent, however the parent ends.

As a program (``python leash.py PARENT_PID ARGV...``) it asks the kernel for a signal at the
parent's death and then becomes ARGV; the request survives that. It is run by path, without
site-packages, so that it costs a few milliseconds.

A `preexec_fn` would do the same between fork and exec, where Python code of a threaded parent
can deadlock.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_EXIT_NO_PROGRAM = 127


def die_with_parent(parent: int | None = None, number: int = signal.SIGKILL) -> None:
    """Be sent the signal when the thread that started this process ends.

    For workers of a child (a web server's, say): the request is not inherited by fork. Where
    the parent is gone already the process ends at once. Only Linux can do this; elsewhere it
    does nothing.
    """
    if not sys.platform.startswith("linux"):
        return
    expected = os.getppid() if parent is None else parent
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != expected:  # it died before the request
        os.kill(os.getpid(), number)


def _main(parent: str, *argv: str) -> None:
    die_with_parent(int(parent))
    try:
        os.execvp(argv[0], argv)  # noqa: S606  (the argument list is the supervisor's own)
    except OSError as exc:
        sys.stderr.write(f"{argv[0]} cannot be run: {exc.strerror}\n")
        sys.exit(_EXIT_NO_PROGRAM)


if __name__ == "__main__":
    _main(*sys.argv[1:])
