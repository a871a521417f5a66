"""Makes `.venv` from the hash-locked requirements. Standard library only: it runs before anything is there."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "rollcall-locks.json"
LOCKS = ROOT / "scripts" / "locks"
COVERS = {"dev": ("dev", "demo"), "demo": ("demo",)}
"""`demo.txt` is compiled under the constraints of `dev.txt`, so the larger one covers the smaller."""


def ensure_venv(lock: str) -> Path:
    """The environment's python, with everything in `scripts/locks/<lock>.txt` and this project."""
    if sys.version_info < (3, 11):  # noqa: UP036 - run by whatever python3 there is
        sys.exit(
            f"Python 3.11 or later is needed; this is {sys.version.split()[0]}. Try: python3.12 {sys.argv[0]}"
        )
    python = VENV / "bin" / "python"
    if _stamp().get(lock) == _hash(lock) and python.exists():
        return python
    print(f"making {VENV} (once)", file=sys.stderr)
    if not python.exists():
        venv.create(VENV, with_pip=True, clear=VENV.exists())
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    _run([*pip, "--require-hashes", "-r", str(LOCKS / f"{lock}.txt")])
    _run([*pip, "--no-deps", "--no-build-isolation", "-e", str(ROOT)])
    STAMP.write_text(json.dumps({**_stamp(), **{name: _hash(name) for name in COVERS[lock]}}))
    return python


def run_in_venv(lock: str, *argv: str) -> None:
    """Replace this process by `python argv…` of the environment."""
    python = ensure_venv(lock)
    os.chdir(ROOT)
    os.execv(python, [str(python), *argv])  # noqa: S606 - no shell is what we want


def _run(argv: list[str]) -> None:
    done = subprocess.run(argv, check=False)
    if done.returncode != 0:
        sys.exit(
            f"installing failed ({done.returncode}); check that PyPI can be reached, then run this again"
        )


def _stamp() -> dict[str, str]:
    try:
        return dict(json.loads(STAMP.read_text()))
    except (OSError, ValueError):
        return {}


def _hash(lock: str) -> str:
    return hashlib.sha256((LOCKS / f"{lock}.txt").read_bytes()).hexdigest()
