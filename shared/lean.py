"""What libraries import for comforts that no daemon of ours has, kept out of its memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def kept_out(*names: str) -> Iterator[None]:
    """Within, these modules cannot be imported, unless they were before. Whoever does so afterwards can."""
    absent = [name for name in names if name not in sys.modules]
    known: dict[str, Any] = sys.modules
    known.update(dict.fromkeys(absent))
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]
