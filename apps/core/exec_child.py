"""Run a program that ends when its parent ends: ``exec_child.py <parent pid> <signal> <program> [argument ...]``.

A file of its own, run with ``python -I -S``, because it must start in a few milliseconds: it asks the kernel for a
signal at the parent's death (Linux, prctl(2) PR_SET_PDEATHSIG, kept over exec) and then becomes the program.
"""

import os
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent_pid, death_signal, *command = sys.argv[1:]
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != int(parent_pid):  # it died before the kernel knew our wish
            sys.exit(1)
    os.execv(command[0], command)  # noqa: S606 - no shell is what we want


if __name__ == "__main__":
    main()
