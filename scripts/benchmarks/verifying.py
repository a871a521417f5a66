"""Our side of `verify`: `verifying TREE RELEASE LOCK_SHA256` prints the seconds that `verify_tree` took.
Imports are not counted: an agent has them behind it."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from agent.openclaw.tree import verify_tree

if __name__ == "__main__":
    began = time.perf_counter()
    verify_tree(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
    sys.stdout.write(f"{time.perf_counter() - began:.4f}\n")
