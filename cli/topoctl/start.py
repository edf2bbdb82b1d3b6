"""Where the `topoctl` script begins: Ctrl-C is answered from the first moment on, also while Python imports.

Rule: nothing is imported at the top but what Python has loaded already.
"""

import os
import sys

INTERRUPTED = 130
"""As `topoctl.exit_codes` has it, which is not loaded yet."""


def main() -> None:
    """Run `topoctl` and end the process with its exit status."""
    try:
        import signal

        # Python's own handler only: who ignores interrupts (a background job of a script) goes on doing so.
        ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if ours:
            # Nothing is begun yet, and an exception inside an import may be swallowed or turned into another.
            signal.signal(signal.SIGINT, _leave)
        from topoctl.main import run

        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        status = run()
        if ours:
            signal.signal(signal.SIGINT, _leave)  # Python's way out prints a traceback when interrupted
    except KeyboardInterrupt:
        os._exit(INTERRUPTED)
    sys.exit(status)


def _leave(*_: object) -> None:
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
