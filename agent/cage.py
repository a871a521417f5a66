"""Whether the gateway can be kept apart from its agent as agent.toml says: found out before anything starts."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from agent.config import AgentConfig
from agent.layout import Layout
from shared.account import Account
from shared.errors import ConfigError, NotFoundError
from shared.scratch import give, read_npmrc


def gateway_account(user: str | None, path: Path, euid: int | None = None) -> Account | None:
    """None where npm, Doctor and the gateway run as the agent does. `path` is the agent.toml that is
    named in errors. Raises ConfigError when the account is unknown, missing, or cannot be taken on.
    """
    mine = os.geteuid() if euid is None else euid
    if user is None:
        if mine == 0:
            raise ConfigError(
                f"{path}: gateway.user is missing, and the agent is root",
                remedy='name the account OpenClaw runs as; user = "root" if it really is root',
            )
        return None
    try:
        account = Account.find(user)
    except NotFoundError as error:
        raise ConfigError(f"{path}: gateway.user: {error}") from error
    if account.uid == mine:
        return None
    if mine != 0:
        raise ConfigError(
            f"{path}: gateway.user is {user!r}, and the agent runs as {_name(mine)}",
            remedy="run the agent as root, or leave gateway.user out",
        )
    return account


def prepare_cage(config: AgentConfig, layout: Layout, account: Account | None) -> None:
    """Let the account reach what it runs, and check that it can and owns what it writes. Raises
    ConfigError."""
    openclaw = config.openclaw
    if openclaw.npmrc is not None:
        read_npmrc(openclaw.npmrc)
    if account is None:
        return
    layout.share()
    _check_owner(config.gateway.home, account, "gateway.home")
    if openclaw.npm_cache is not None:
        if not openclaw.npm_cache.exists():
            openclaw.npm_cache.mkdir(mode=0o700, parents=True)
            give(openclaw.npm_cache, account)
        _check_owner(openclaw.npm_cache, account, "openclaw.npm_cache")
    for path in (openclaw.node, openclaw.npm, layout.releases, layout.scratch, config.gateway.home):
        _check_reach(path, account)


def _check_owner(path: Path, account: Account, key: str) -> None:
    if not path.is_dir() or path.stat().st_uid != account.uid:
        raise ConfigError(
            f"{key}: {path} is not a folder of {account.name}",
            remedy=f"make it, and: chown -R {account.name} {path}",
        )


def _check_reach(path: Path, account: Account) -> None:
    try:
        closed = account.unreachable(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be used: {error.strerror}") from error
    if closed is not None:
        raise ConfigError(
            f"{account.name} may not enter {closed}, on the way to {path}",
            remedy=f"chmod o+x {closed}, or move it elsewhere",
        )


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
