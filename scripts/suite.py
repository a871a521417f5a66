"""`scripts/test`, once its environment is there."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from dataclasses import dataclass

KINDS = {"--fast": "not openclaw and not slow", "--all": "slow or not slow"}
CI = "not slow"
TESTS_OF_A_CORE = 2
"""Most of them wait for most of their time."""
FEWEST, MOST = 2, 12
NO_TESTS = 5
"""pytest's exit code where none was chosen."""
INTERRUPTED = 130


@dataclass(frozen=True)
class Part:
    name: str
    words: list[str]


def parts(kind: str, processes: int) -> list[Part]:
    together = ["-n", str(processes), "--dist", "loadscope", "--no-loadscope-reorder"]
    return [
        Part(f"together, in {processes} processes", ["-m", f"({kind}) and not alone", *together]),
        Part("one by one", ["-m", f"({kind}) and alone"]),
    ]


def run(part: Part) -> int:
    """pytest's exit code. Ctrl-C reaches pytest too, which ends what its tests have started."""
    pytest = subprocess.Popen([sys.executable, "-m", "pytest", *part.words])
    while True:
        with contextlib.suppress(KeyboardInterrupt):
            return pytest.wait()


def main(words: list[str]) -> int:
    named = next((word for word in words if word in KINDS), None)
    kind = CI if named is None else KINDS[named]
    others = [word for word in words if word not in KINDS]
    if others:
        os.execv(  # noqa: S606 - no shell is what we want
            sys.executable, [sys.executable, "-m", "pytest", "-m", kind, *others]
        )
    processes = min(MOST, max(FEWEST, TESTS_OF_A_CORE * (os.cpu_count() or 1)))
    ended = []
    for part in parts(kind, processes):
        print(f"== {part.name}", flush=True)
        began = time.monotonic()
        code = run(part)
        ended.append((part.name, 0 if code == NO_TESTS else code, time.monotonic() - began))
        if code == 2:  # pytest was interrupted
            break
    print()
    for name, code, seconds in ended:
        print(f"{name}: {'passed' if code == 0 else f'FAILED ({code})'} in {seconds / 60:.1f} min")
    codes = [code for _, code, _ in ended]
    return INTERRUPTED if 2 in codes else max(codes)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
