"""Another account for tests that run as root: `nobody`, which every system has."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from agent.layout import Layout
from shared.account import Account, identity_of
from shared.npm import NodeTools, find_tools
from shared.scratch import give

needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can start a process as another account"
)
PATH_ONLY = {"PATH": "/usr/bin:/bin"}


@contextmanager
def open_place() -> Iterator[Path]:
    """A temporary folder that other accounts may enter: pytest's own lets nobody else through."""
    root = Path(tempfile.mkdtemp(prefix="rollcall-cage-")).resolve()
    root.chmod(0o711)
    try:
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


def home_of(account: Account, root: Path) -> Path:
    """A gateway's home with an empty state directory, both the account's."""
    home = root / "home"
    for folder in (home, home / ".openclaw"):
        folder.mkdir(mode=0o700)
        give(folder, account)
    return home


def caged_tools(layout: Layout, account: Account) -> NodeTools:
    return replace(
        find_tools(), account=account, scratch=layout.scratch, empty=layout.empty, extra_ca=None
    )


def shell(account: Account, script: str) -> int:
    """The code that a script of this account ends with."""
    done = subprocess.run(
        ["/bin/sh", "-c", script],
        env=PATH_ONLY,
        timeout=30,
        check=False,
        capture_output=True,
        **identity_of(account),
    )
    return done.returncode
