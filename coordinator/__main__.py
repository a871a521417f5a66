"""`rollcall`, as its command and as `python -m coordinator`. Reading the commands in takes a moment, in which Ctrl-C
must not show a traceback either: nothing else is imported here before that."""

from __future__ import annotations

import sys

EXIT_INTERRUPTED = 130


def main() -> None:
    try:
        from coordinator.cli import main as rollcall
    except KeyboardInterrupt:
        sys.stderr.write("rollcall: interrupted\n")
        raise SystemExit(EXIT_INTERRUPTED) from None
    rollcall()


if __name__ == "__main__":
    main()
