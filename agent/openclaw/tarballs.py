"""The tarballs of a release's plugins, kept inside of its sealed tree.

OpenClaw trusts only plugins that its own npm installs (OPENCLAW.md, 1), so npm must be able to fetch them
once more, when there may be no network and nothing but the signed lock may decide what arrives.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import shutil
import tempfile
from pathlib import Path

from shared.errors import BadInputError, UntrustedError
from shared.lock import Lock, LockedPackage
from shared.npm import Npm
from shared.scratch import give
from shared.untrusted import open_regular

TARBALLS = "tarballs"
MAX_TARBALL = 256 << 20
FETCH_AT_ONCE = 40


def integrity_of(body: bytes) -> str:
    """As npm's lock writes it (W3C Subresource Integrity)."""
    return f"sha512-{base64.b64encode(hashlib.sha512(body).digest()).decode()}"


def tarball_name(integrity: str) -> str:
    """Raises BadInputError for anything but one SHA-512."""
    try:
        raw = base64.b64decode(integrity.removeprefix("sha512-"), validate=True)
    except ValueError:
        raw = b""
    if len(raw) != 64:
        raise BadInputError(f"{integrity[:100]!r} is not one sha512 integrity")
    return f"{raw.hex()[:64]}.tgz"


async def fetch_tarballs(npm: Npm, lock: Lock, plugins: list[str], tree: Path) -> None:
    """What `plugins` need, by integrity, into `<tree>/tarballs`. Raises UntrustedError when the registry
    has other bytes under a name than the lock."""
    wanted = {each.integrity: each for each in lock.closure(plugins) if each.integrity}
    await asyncio.to_thread(_take_artifacts, tree, wanted)
    missing = [each for each in wanted.values() if each.local is None]
    for start in range(0, len(missing), FETCH_AT_ONCE):
        some = missing[start : start + FETCH_AT_ONCE]
        arrived = await asyncio.to_thread(_arrivals, npm)
        try:
            await npm.fetch([f"{each.name}@{each.version}" for each in some], arrived)
            await asyncio.to_thread(_sort, arrived, tree, some)
        finally:
            await asyncio.to_thread(shutil.rmtree, arrived, True)


def _arrivals(npm: Npm) -> Path:
    """A folder that npm's account can write."""
    folder = Path(tempfile.mkdtemp(prefix="rollcall-tarballs-", dir=npm.tools.scratch))
    give(folder, npm.tools.account)
    return folder


def _take_artifacts(tree: Path, wanted: dict[str, LockedPackage]) -> None:
    for integrity, package in wanted.items():
        if package.local is not None:
            _keep(tree, integrity, (tree / package.local).read_bytes())


def _sort(arrived: Path, tree: Path, wanted: list[LockedPackage]) -> None:
    """Only what the lock names by its hash is taken over."""
    found: dict[str, bytes] = {}
    for path in sorted(arrived.iterdir()):
        with open_regular(str(path), None, path) as file:
            body = file.read(MAX_TARBALL + 1)
        found[integrity_of(body)] = body
    for package in wanted:
        body = found.get(package.integrity or "", b"")
        if not body:
            raise UntrustedError(
                f"the registry's {package.name}@{package.version} is not the one in openclaw.lock",
                remedy="freeze the release anew, and find out who published other bytes",
            )
        _keep(tree, str(package.integrity), body)


def _keep(tree: Path, integrity: str, body: bytes) -> None:
    path = tree / TARBALLS / tarball_name(integrity)
    path.parent.mkdir(exist_ok=True)
    path.parent.chmod(0o755)
    path.write_bytes(body)
    path.chmod(0o644)


def read_tarball(tree: Path, integrity: str) -> bytes:
    """Checked against the lock's hash again. Raises UntrustedError when it is missing or another."""
    path = tree / TARBALLS / tarball_name(integrity)
    try:
        with open_regular(str(path), None, path) as file:
            body = file.read(MAX_TARBALL + 1)
    except FileNotFoundError:
        raise UntrustedError(f"{path} is gone") from None
    if integrity_of(body) != integrity:
        raise UntrustedError(f"{path} is not what openclaw.lock says")
    return body
