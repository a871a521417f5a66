"""The account that untrusted programs run as: npm, Doctor and the gateway, when the agent is root."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path
from typing import TypedDict

from shared.errors import NotFoundError
from shared.wire import Wire

UMASK = 0o077


class Identity(TypedDict, total=False):
    """Arguments of `subprocess.Popen` and `asyncio.create_subprocess_exec`."""

    user: int
    group: int
    extra_groups: list[int]
    umask: int


class Account(Wire):
    """One line of the system's user database, with the groups that the account is in."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...] = ()

    @classmethod
    def find(cls, name: str) -> Account:
        """Raises NotFoundError when this host has no such account."""
        try:
            entry = pwd.getpwnam(name)
        except (KeyError, ValueError):
            raise NotFoundError(f"this host has no account {name!r}") from None
        groups = tuple(sorted(os.getgrouplist(name, entry.pw_gid)))
        return cls(name=name, uid=entry.pw_uid, gid=entry.pw_gid, groups=groups)

    def identity(self) -> Identity:
        """To start a child as this account, with files that only it can read."""
        return {
            "user": self.uid,
            "group": self.gid,
            "extra_groups": list(self.groups),
            "umask": UMASK,
        }

    def unreachable(self, path: Path) -> Path | None:
        """The first folder on the way to `path`, itself included, that this account may not enter, by
        mode bits; None when it can go all the way."""
        resolved = path.resolve()
        for folder in [*reversed(resolved.parents), resolved]:
            info = folder.stat()
            if stat.S_ISDIR(info.st_mode) and not info.st_mode & self._search_bit(info):
                return folder
        return None

    def _search_bit(self, info: os.stat_result) -> int:
        if info.st_uid == self.uid:
            return stat.S_IXUSR
        if info.st_gid in (self.gid, *self.groups):
            return stat.S_IXGRP
        return stat.S_IXOTH


def identity_of(account: Account | None) -> Identity:
    """Nothing changes for None: the child runs as this process does."""
    return {} if account is None else account.identity()
