"""A HOME for one run of npm: new, private to the account that npm runs as, gone afterwards."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from shared.account import Account
from shared.errors import ConfigError, UntrustedError
from shared.untrusted import open_regular

PREFIX = "rollcall-home-"
USER_RC, GLOBAL_RC = "user.npmrc", "global.npmrc"
MAX_NPMRC_BYTES = 64 << 10


def make_scratch(parent: Path | None, account: Account | None, npmrc: Path | None) -> Path:
    """Blocking; whoever asked for it removes it. The package.json keeps npm from looking for a project,
    and for a .npmrc beside it, in the folders above. Holds a copy of `npmrc`, if one is named, that the
    account can read: the original may hold a registry's token, and stays the agent's."""
    home = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    files = {"package.json": b"{}"}
    if npmrc is not None:
        files[USER_RC] = read_npmrc(npmrc)
    for name, body in files.items():
        path = home / name
        path.touch(mode=0o600)
        path.write_bytes(body)
        give(path, account)
    give(home, account)
    return home


def sweep_scratch(parent: Path) -> None:
    """Homes of an agent that was killed: a registry's token may lie in one. Blocking."""
    for path in parent.glob(f"{PREFIX}*"):
        shutil.rmtree(path, ignore_errors=True)


def refuse_project_rc(project: Path) -> None:
    """npm obeys a .npmrc beside package.json above all others. Raises UntrustedError."""
    path = project / ".npmrc"
    if os.path.lexists(path):
        raise UntrustedError(f"npm would obey {path}", remedy="remove it")


def give(path: Path, account: Account | None) -> None:
    """Make an entry of a folder of ours the account's; without one it stays as it is."""
    if account is not None:
        os.chown(path, account.uid, account.gid, follow_symlinks=False)


def read_npmrc(path: Path) -> bytes:
    """Raises ConfigError for what others could have written: it decides where packages come from."""
    try:
        file = open_regular(str(path), None, path)
    except OSError as error:
        raise ConfigError(f"openclaw.npmrc: {path} cannot be opened: {error.strerror}") from error
    except UntrustedError as error:
        raise ConfigError(f"openclaw.npmrc: {error}") from error
    with file:
        info = os.fstat(file.fileno())
        if info.st_mode & 0o022 or info.st_uid not in (0, os.geteuid()):
            raise ConfigError(
                f"openclaw.npmrc: {path} may be written by others",
                remedy=f"chmod 600 {path}, and make it the agent's",
            )
        if info.st_size > MAX_NPMRC_BYTES:
            raise ConfigError(f"openclaw.npmrc: {path} is larger than {MAX_NPMRC_BYTES} bytes")
        return file.read(MAX_NPMRC_BYTES)
