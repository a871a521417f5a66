"""Plugins out of a signed lock: a real npm, the stand-in's own `plugins install`, a registry on loopback."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agent.openclaw.cli import OpenClaw
from agent.openclaw.installed import check_installed
from agent.openclaw.plugins import plugins_of
from agent.openclaw.registry import LockedRegistry
from agent.openclaw.tarballs import (
    TARBALLS,
    fetch_tarballs,
    integrity_of,
    read_tarball,
    tarball_name,
)
from agent.openclaw.tree import LOCK
from agent.readiness.probes.plugins import judge_drifts
from scripts.minifleet.packages import SUPPORT, pack_plugin, pack_standin
from shared.archive import file_digests
from shared.canonical import sha256_hex
from shared.errors import BadInputError, CommandError, UntrustedError
from shared.lock import Lock, parse_lock
from shared.npm import Npm, find_tools
from shared.readiness import CheckStatus
from shared.release import Artifact, Release, parse_release
from tests.unit.test_release import manifest

VERSION, PLUGIN = "2026.9.6", "@rollcall/demo-hang"


class Site:
    """A staged tree with one plugin, and a gateway's home beside it."""

    def __init__(self, place: Path, release: Release, lock: Lock) -> None:
        self.tree, self.home, self.release, self.lock = (
            place / "tree",
            place / "home",
            release,
            lock,
        )
        self.state = self.home / ".openclaw"
        self.openclaw = OpenClaw(find_tools(), self.tree, self.home)

    def write(self, **changes: Any) -> None:
        settings = {"gateway": {"mode": "local", "port": 1, "auth": {"token": "t"}}, **changes}
        (self.state / "openclaw.json").write_text(json.dumps(settings))

    def settings(self) -> Any:
        return json.loads((self.state / "openclaw.json").read_text())

    @property
    def folder(self) -> Path:
        (found,) = self.state.glob(f"npm/projects/*/node_modules/{PLUGIN}")
        return found

    async def install(self) -> dict[str, Any]:
        async with plugins_of(self.release, self.tree, self.openclaw) as plugins:
            return {**await plugins.install(timeout_s=60), "others": await plugins.others()}


async def stage(place: Path, npm: Npm) -> Site:
    packages, tree = place / "packages", place / "tree"
    for folder in (packages, tree / "artifacts", place / "home" / ".openclaw"):
        folder.mkdir(parents=True)
    core = await pack_standin(npm, VERSION, packages)
    plugin = await pack_plugin(npm, "hang", packages)
    bodies = {path.name: path.read_bytes() for path in (core, plugin)}
    for name, body in bodies.items():
        (tree / "artifacts" / name).write_bytes(body)
    draft = manifest(
        plugins={PLUGIN: "1.0.0"},
        dependencies={
            "openclaw": f"file:artifacts/{core.name}",
            PLUGIN: f"file:artifacts/{plugin.name}",
        },
        artifacts=[
            Artifact(file=name, sha256=sha256_hex(body), size=len(body))
            for name, body in bodies.items()
        ],
    )
    (tree / "package.json").write_text(json.dumps(draft.package_json()))
    await npm.lock(tree)
    raw = (tree / "package-lock.json").read_bytes()
    (tree / LOCK).write_bytes(raw)
    whole = draft.model_copy(update={"lock_sha256": sha256_hex(raw)})
    await npm.install_locked(tree)
    lock = parse_lock(raw)
    await fetch_tarballs(npm, lock, [PLUGIN], tree)
    return Site(place, parse_release(whole.canonical()), lock)


@pytest.fixture
async def site(tmp_path: Path) -> Site:
    made = await stage(tmp_path, Npm(find_tools()))
    made.write()
    return made


async def test_a_plugin_is_installed_once_and_found_again(site: Site) -> None:
    assert await site.install() == {"installed": ["demo-hang"], "kept": [], "others": []}
    assert site.settings()["plugins"]["entries"]["demo-hang"] == {"enabled": True}
    assert await site.install() == {"installed": [], "kept": ["demo-hang"], "others": []}
    _, status = await site.openclaw.run_json("gateway", "status", "--deep", "--json", timeout_s=30)
    assert status["pluginVersionDrift"]["drifts"] == []


async def test_one_that_an_operator_switched_off_stays_off(site: Site) -> None:
    site.write(plugins={"entries": {"demo-hang": {"enabled": False}}})
    await site.install()
    assert site.settings()["plugins"]["entries"]["demo-hang"] == {"enabled": False}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "index.js").write_text("changed"),
        lambda folder: (folder / "more.js").write_text("added"),
        lambda folder: (folder / "index.js").unlink(),
        lambda folder: (folder / "node_modules" / "evil").mkdir(),
    ],
)
async def test_what_was_changed_in_between_is_installed_anew(site: Site, spoil: Any) -> None:
    await site.install()
    spoil(site.folder)
    assert (await site.install())["installed"] == ["demo-hang"]
    assert (site.folder / "index.js").read_bytes() == (
        SUPPORT / "plugins" / "hang" / "index.js"
    ).read_bytes()


async def test_a_plugin_of_another_version_gives_way_and_others_are_reported(site: Site) -> None:
    await site.install()
    records = site.state / "state" / "plugins.json"
    noted = json.loads(records.read_text())
    noted["demo-hang"]["version"] = "0.9.0"
    noted["by-hand"] = {**noted["demo-hang"], "resolvedName": "@a/by-hand"}
    records.write_text(json.dumps(noted))
    done = await site.install()
    assert done["installed"] == ["demo-hang"]
    assert done["others"] == [{"id": "by-hand", "version": "0.9.0", "origin": "global"}]
    assert "by-hand" in json.loads(records.read_text())


async def test_a_release_without_plugins_asks_nothing_and_downloads_nothing(site: Site) -> None:
    bare = parse_release(manifest(lock_sha256=site.release.manifest.lock_sha256).canonical())
    async with plugins_of(bare, site.tree, site.openclaw) as plugins:
        assert await plugins.install(timeout_s=1) == {"installed": [], "kept": []}
        assert await plugins.others() == []
        words = ("plugins", "install", f"npm:{PLUGIN}@1.0.0", "--force", "--accept-capabilities")
        output = await plugins.openclaw.run(*words, timeout_s=60)
    assert output.code == 1
    assert "E404" in output.stderr.decode()


async def test_a_tarball_that_was_changed_is_not_handed_out(site: Site) -> None:
    (package,) = site.lock.closure([PLUGIN])
    path = site.tree / TARBALLS / tarball_name(str(package.integrity))
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(UntrustedError, match=r"is not what openclaw\.lock says"):
        await site.install()
    path.unlink()
    with pytest.raises(UntrustedError, match="is gone"):
        await site.install()


async def test_a_registry_with_other_bytes_is_found_out(site: Site, tmp_path: Path) -> None:
    """npm answers with what its registry has under that name and version."""
    (package,) = site.lock.closure([PLUGIN])
    twisted = package.model_copy(update={"local": None, "integrity": integrity_of(b"signed")})
    body = await asyncio.to_thread(read_tarball, site.tree, str(package.integrity))
    tools = find_tools()

    class OtherBytes(Npm):
        async def fetch(self, specs: list[str], destination: Path) -> None:
            await asyncio.to_thread((destination / "x.tgz").write_bytes, body)

    with pytest.raises(UntrustedError, match=r"is not the one in openclaw\.lock"):
        await fetch_tarballs(OtherBytes(tools), Lock(packages=[twisted]), [PLUGIN], tmp_path / "t")


async def test_the_registry_knows_nothing_else(site: Site) -> None:
    packages = site.lock.closure([PLUGIN])
    async with LockedRegistry(site.tree, packages) as registry, aiohttp.ClientSession() as client:
        async with client.get(f"{registry.url}@rollcall%2fdemo-hang") as answer:
            about = await answer.json()
        assert list(about["versions"]) == ["1.0.0"]
        assert about["versions"]["1.0.0"]["dist"]["integrity"] == packages[0].integrity
        async with client.get(about["versions"]["1.0.0"]["dist"]["tarball"]) as answer:
            assert sha256_hex(await answer.read()) == site.release.manifest.artifacts[1].sha256
        for path in ("openclaw", "-/x.tgz", "-/../package.json", "@rollcall%2fdemo-leak"):
            async with client.get(registry.url + path) as answer:
                assert answer.status == 404, path


async def test_a_plugin_that_cannot_be_installed_says_why(site: Site) -> None:
    (site.state / "openclaw.json").write_text("{")
    with pytest.raises(CommandError, match="Invalid config"):
        await site.install()


def lock_of(packages: dict[str, Any]) -> Lock:
    base = {"version": "1.0.0", "integrity": integrity_of(b"x")}
    entries = {"": {}, **{path: {**base, **more} for path, more in packages.items()}}
    return parse_lock(json.dumps({"lockfileVersion": 3, "packages": entries}).encode())


def test_what_a_plugin_needs_is_found_as_node_finds_it() -> None:
    lock = lock_of(
        {
            "node_modules/openclaw": {"dependencies": {"big": "1"}},
            "node_modules/big": {},
            "node_modules/p": {
                "dependencies": {"inner": "1"},
                "optionalDependencies": {"missing": "1"},
                "peerDependencies": {"openclaw": "*", "peer": "1"},
            },
            "node_modules/p/node_modules/inner": {"integrity": None, "inBundle": True}
            | {"dependencies": {"deep": "1", "peer": "2"}},
            "node_modules/p/node_modules/peer": {"version": "2.0.0"},
            "node_modules/deep": {"dependencies": {"p": "1"}},
            "node_modules/peer": {},
        }
    )
    found = {(each.path, each.version) for each in lock.closure(["p"])}
    assert found == {
        ("node_modules/p", "1.0.0"),
        ("node_modules/p/node_modules/peer", "2.0.0"),
        ("node_modules/deep", "1.0.0"),
    }


@pytest.mark.parametrize("text", ["", "sha1-AAAA", "sha512-AAAA", "sha512-../../x", "sha512-"])
def test_a_tarball_is_named_by_one_whole_hash(text: str) -> None:
    with pytest.raises(BadInputError):
        tarball_name(text)


def test_links_in_an_installed_package_are_npms_or_refused(tmp_path: Path) -> None:
    folder = tmp_path / "node_modules" / "p"
    (folder / "node_modules").mkdir(parents=True)
    about = b'{"name": "p", "version": "1.0.0"}'
    (folder / "package.json").write_bytes(about)
    (folder / "node_modules" / "openclaw").symlink_to(tmp_path)
    contents = {("p", "1.0.0"): {"package.json": sha256_hex(about)}}
    check_installed(folder.parent, contents)
    (folder / "lib.js").symlink_to("/etc/passwd")
    with pytest.raises(UntrustedError, match=r"in no tarball"):
        check_installed(folder.parent, contents)
    (folder / "lib.js").unlink()
    (folder.parent / "q").symlink_to(folder)
    with pytest.raises(UntrustedError, match="a link at 'q'"):
        check_installed(folder.parent, contents)


def test_the_files_of_a_tarball_are_known_without_unpacking() -> None:
    with pytest.raises(BadInputError):
        file_digests(b"not a tarball")


@pytest.mark.parametrize(
    ("status", "found"),
    [
        ({}, CheckStatus.PASS),
        ({"pluginVersionDrift": {"drifts": []}}, CheckStatus.PASS),
        ({"pluginVersionDrift": {"drifts": [{"packageName": PLUGIN}]}}, CheckStatus.FAIL),
        ({"pluginVersionDrift": {"drifts": [{"packageName": "@a/by-hand"}]}}, CheckStatus.WARN),
        ({"pluginVersionDrift": {"drifts": [{"pluginId": "x"}]}}, CheckStatus.WARN),
    ],
)
def test_a_plugin_left_behind_fails_the_node_if_the_release_names_it(
    status: dict[str, Any], found: CheckStatus
) -> None:
    assert judge_drifts(status, {PLUGIN}).status is found
