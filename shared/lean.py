"""What libraries load for comforts that a daemon of ours has not, kept out of its memory."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

_CERTIFICATES = {"SSL_CERT_FILE": os.devnull, "SSL_CERT_DIR": os.devnull}
_M_ARENA_MAX = -8


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


@contextmanager
def stands_in(module: str, name: str) -> Iterator[None]:
    """Within, `module` is imported as one that has an empty class of this name and nothing else, unless it was
    imported before."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = ModuleType(module)
    setattr(sys.modules[module], name, type(name, (), {}))
    try:
        yield
    finally:
        del sys.modules[module]


@contextmanager
def no_system_authorities() -> Iterator[None]:
    """aiohttp reads the certificate authorities of the system when it is imported. Whoever trusts none but the
    fleet's own never uses them: 0.8 MiB."""
    before = {name: os.environ.get(name) for name in _CERTIFICATES}
    os.environ.update(_CERTIFICATES)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def keep_for_good() -> None:
    """What is here now stays: no later collection of garbage looks at it again. Half of a daemon's processor time
    went into that."""
    gc.collect()
    gc.freeze()


def one_heap() -> None:
    """glibc gives each thread a heap of its own, and keeps what was once in it: good for programs whose
    threads compute side by side. Nothing where the C library has no such thing."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


def give_back() -> None:
    """glibc keeps what was freed in the middle of its heap, such as all that a start needed. Nothing where the C
    library has no such thing."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
