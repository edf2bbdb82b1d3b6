"""What runs for each browser: a `topoctl` with a screen. It ends when the server does, however that ends."""

import ctypes
import os
import signal
import sys
from typing import Final

PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h


def main() -> int:
    """Run the `topoctl` of the arguments after the first, which is the process that must live."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(sys.argv[1]):
        return 1  # it was gone before it could be watched
    from topoctl.main import run  # noqa: PLC0415 - only once it is sure to end

    return run(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
