"""The operators' command line against a real coordinator: two of three sign, from the first root on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from coordinator.ceremony import add_release
from coordinator.cli import app
from coordinator.cli.client import Client
from coordinator.cli.desk import Desk
from shared.canonical import sha256_hex
from shared.clock import SystemClock
from shared.errors import RollcallError
from tests.support.coordinatorkit import LOCK, Running, joined, run_coordinator, sync
from tests.support.tufkit import manifest_of
from tests.unit.test_red_api import red_of


class Office:
    """Three people, each with a folder of keys, at one coordinator."""

    def __init__(self, running: Running) -> None:
        self.running, self.root = running, running.root
        self.passphrase = self.root / "passphrase"
        self.passphrase.write_text("a long passphrase\n")
        self.passphrase.chmod(0o600)

    def folder(self, name: str) -> Path:
        return self.root / name

    async def run(self, who: str, *words: str) -> Result:
        options = [*words, "--folder", str(self.folder(who))]
        if words[:2] not in (("keys", "show"), ("keys", "trust"), ("release", "show")):
            options += ["--passphrase-file", str(self.passphrase)]
        return await self.plain(*options)

    async def plain(self, *words: str) -> Result:
        offline = words[:2] in (("keys", "make"), ("keys", "sign"), ("red", "sign"))
        config = [] if offline else ["--config", str(self.running.settings.paths.client)]
        return await asyncio.to_thread(CliRunner().invoke, app, [*words, *config])

    async def ok(self, who: str, *words: str) -> dict[str, Any]:
        result = await self.run(who, *words, "--json")
        assert result.exit_code == 0, (words, result.exception, result.stderr)
        return dict(json.loads(result.stdout))

    async def refused(self, who: str, *words: str) -> str:
        result = await self.run(who, *words)
        assert isinstance(result.exception, RollcallError), (words, result.exception)
        return str(result.exception)

    async def first_root(self) -> str:
        for name in ("alice", "bob", "carol"):
            await self.ok(name, "keys", "make", "--name", name)
        bundle = str(self.root / "fleet.bundle")
        others = [f"--with={self.folder(name) / name}.pub" for name in ("bob", "carol")]
        drafted = await self.ok(
            "alice", "keys", "init", *others, "--threshold", "2", "--out", bundle, "--yes"
        )
        assert drafted["missing"] == 1
        return bundle

    async def draft(self, name: str) -> str:
        """A release that `release create` would have resolved, in a bundle."""
        desk = Desk(self.folder("alice"), None, None)
        client = await asyncio.to_thread(Client, self.running.settings.paths.client)
        published = await asyncio.to_thread(desk.published, client)
        now = SystemClock().now()
        manifest = manifest_of(name, LOCK, now)
        bundle = add_release(published, manifest, {sha256_hex(LOCK): LOCK}, now)
        folder = self.root / f"{name}.bundle"
        await asyncio.to_thread(bundle.save, folder)
        return str(folder)


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    async with run_coordinator(tmp_path, signed=False) as running:
        yield await asyncio.to_thread(Office, running)


async def test_two_of_three_sign_a_fleet_and_a_release(office: Office) -> None:
    bundle = await office.first_root()
    assert "lacks 1 signature" in str((await office.plain("keys", "publish", bundle)).exception)
    assert (await office.ok("bob", "keys", "sign", bundle, "--yes"))["missing"] == 0
    assert (await office.plain("keys", "publish", bundle)).exit_code == 0
    shown = await office.ok("alice", "keys", "show")
    assert (shown["threshold"], shown["operators"]) == (2, ["alice", "bob", "carol"])
    assert "trusts no root yet" in await office.refused("carol", "keys", "show")
    wrong = await office.refused("carol", "keys", "trust", "--sha256", "0" * 64)
    assert shown["root_sha256"] in wrong
    await office.ok("carol", "keys", "trust", "--sha256", shown["root_sha256"])
    assert (await office.ok("carol", "keys", "show"))["root"] == 1

    release = await office.draft("2026.9.6")
    first = await office.ok("alice", "release", "sign", release, "--yes")
    again = await office.ok("alice", "release", "sign", release, "--yes")
    assert (first["missing"], again["missing"]) == (1, 1)
    published = await office.plain("release", "publish", release)
    assert "lacks 1 signature" in str(published.exception)
    assert (await office.ok("carol", "release", "sign", release, "--yes"))["missing"] == 0
    assert (await office.plain("release", "publish", release)).exit_code == 0
    assert (await office.ok("bob", "release", "show", "2026.9.6"))["signed_by"] == [
        "alice",
        "carol",
    ]


async def test_a_release_that_was_overtaken_is_signed_again_on_top(office: Office) -> None:
    bundle = await office.first_root()
    await office.ok("bob", "keys", "sign", bundle, "--yes")
    await office.plain("keys", "publish", bundle)
    late, early = await office.draft("2026.8.1"), await office.draft("2026.9.6")
    for folder in (late, early):
        for who in ("alice", "bob"):
            await office.ok(who, "release", "sign", folder, "--yes")
    assert (await office.plain("release", "publish", early)).exit_code == 0
    overtaken = await office.plain("release", "publish", late)
    assert "release sign --rebase" in str(overtaken.exception)
    await office.ok("bob", "keys", "show")
    await office.ok("alice", "release", "sign", late, "--rebase", "--yes")
    await office.ok("bob", "release", "sign", late, "--yes")
    assert (await office.plain("release", "publish", late)).exit_code == 0
    out = str(office.root / "w.bundle")
    drafted = await office.ok("alice", "release", "withdraw", "2026.9.6", "--out", out, "--yes")
    assert drafted["missing"] == 1
    await office.ok("bob", "keys", "show")
    await office.ok("bob", "release", "sign", out, "--yes")
    await office.plain("release", "publish", out)
    listed = json.loads((await office.plain("release", "list", "--json")).stdout)
    assert [each["name"] for each in listed["releases"]] == ["2026.8.1"]


async def test_an_operator_is_replaced_and_old_signatures_count_no_more(office: Office) -> None:
    bundle = await office.first_root()
    await office.ok("bob", "keys", "sign", bundle, "--yes")
    await office.plain("keys", "publish", bundle)
    await office.ok("dave", "keys", "make", "--name", "dave")
    pub = str(office.folder("dave") / "dave.pub")
    out = str(office.root / "r.bundle")
    shown = await office.ok("alice", "keys", "show")
    words = ["--without", "carol", "--with", pub, "--out", out, "--yes"]
    await office.ok("alice", "keys", "rotate", *words)
    assert "rollcall keys show" in await office.refused("bob", "keys", "sign", out, "--yes")
    await office.ok("bob", "keys", "show")
    assert (await office.ok("bob", "keys", "sign", out, "--yes"))["missing"] == 0
    await office.ok("dave", "keys", "trust", "--sha256", shown["root_sha256"])
    assert (await office.plain("keys", "publish", out)).exit_code == 0
    for who in ("alice", "dave"):
        assert (await office.ok(who, "keys", "show"))["operators"] == ["alice", "bob", "dave"]
    release = await office.draft("2026.9.6")
    shown = await office.ok("alice", "keys", "show")
    await office.ok("carol", "keys", "trust", "--sha256", shown["root_sha256"])
    assert "not among those" in await office.refused("carol", "release", "sign", release, "--yes")
    await office.ok("dave", "release", "sign", release, "--yes")
    await office.ok("alice", "release", "sign", release, "--yes")
    assert (await office.plain("release", "publish", release)).exit_code == 0


async def test_nobody_signs_what_was_changed_or_cannot_be_read(office: Office) -> None:
    bundle = Path(await office.first_root())
    root = bundle / "root.json"
    text = await asyncio.to_thread(root.read_text)
    year = str(json.loads(text)["signed"]["expires"])[:4]
    await asyncio.to_thread(root.write_text, text.replace(year, str(int(year) + 5)))
    said = await office.refused("bob", "keys", "sign", str(bundle), "--yes")
    assert "alice's signature does not fit" in said
    await asyncio.to_thread(root.write_text, text)
    document = bundle / "files" / "fleet.json"
    await asyncio.to_thread(document.unlink)
    said = await office.refused("bob", "keys", "sign", str(bundle), "--yes")
    assert "lacks files/fleet.json" in said
    assert json.loads(await asyncio.to_thread(root.read_text)) == json.loads(text), "not signed"


async def test_what_an_operator_gets_wrong(office: Office) -> None:
    bundle = await office.first_root()
    for words, said in (
        (("keys", "init", "--threshold", "5", "--out", str(office.root / "x")), "can never sign"),
        (("keys", "make", "--name", "alice"), "keep it: nodes may trust it"),
        (("keys", "init", "--with", "nobody.pub"), "nobody.pub does not exist"),
        (("keys", "init", "--out", bundle, "--yes"), "holds a bundle already"),
        (("keys", "sign", str(office.root)), "not a bundle"),
        (("keys", "sign", bundle), "say it with --yes"),
        (("keys", "rotate", "--without", "mallory"), "not published yet"),
    ):
        assert said in await office.refused("alice", *words), words
    await asyncio.to_thread(office.passphrase.write_text, "another passphrase")
    assert "does not open this key" in await office.refused("bob", "keys", "sign", bundle, "--yes")
    await asyncio.to_thread(office.passphrase.chmod, 0o644)
    assert "may be read by others" in await office.refused("bob", "keys", "sign", bundle, "--yes")


async def test_witnesses_are_named_by_operators_and_shown_before_they_sign(office: Office) -> None:
    bundle = await office.first_root()
    await office.ok("bob", "keys", "sign", bundle, "--yes")
    assert (await office.plain("keys", "publish", bundle)).exit_code == 0
    for wrong in ([], ["one"], ["--everyone", "one", "two"], ["../x", "two"]):
        result = await office.run("alice", "keys", "witnesses", *wrong, "--yes")
        assert result.exit_code != 0, wrong
    out = str(office.root / "witnesses.bundle")
    drafted = await office.run(
        "alice", "keys", "witnesses", "two", "one", "--out", out, "--yes", "--json"
    )
    assert "whose green is the quorum: one, two" in drafted.stderr
    await office.ok("bob", "keys", "show")
    second = await office.run("bob", "keys", "sign", out, "--yes")
    assert "whose green is the quorum: one, two" in second.stderr
    assert (await office.plain("keys", "publish", out)).exit_code == 0
    assert (await office.ok("alice", "keys", "show"))["witnesses"] == ["one", "two"]
    back = str(office.root / "back.bundle")
    drafted = await office.run("alice", "keys", "witnesses", "--everyone", "--out", back, "--yes")
    assert "whose green is the quorum: every live peer" in drafted.stderr


async def test_two_of_three_end_a_red_and_one_does_not(office: Office) -> None:
    bundle = await office.first_root()
    await office.ok("bob", "keys", "sign", bundle, "--yes")
    assert (await office.plain("keys", "publish", bundle)).exit_code == 0
    await office.ok("bob", "keys", "show")
    node = await joined(office.running, "a")
    red = await asyncio.to_thread(red_of, node)
    await sync(node, messages=[red.raw])
    assert "needs --reason" in await office.refused("alice", "red", "clear", red.key)
    out = str(office.root / "a.clear")
    words = ["red", "clear", red.key, "--reason", "seen to", "--out", out, "--yes"]
    first = await office.run("alice", *words, "--json")
    assert first.exit_code == 0, first.exception
    assert json.loads(first.stdout)["missing"] == 1
    assert "no way back" in first.stderr, "shows what it ends"
    assert red.key in first.stderr
    early = await office.plain("red", "clear", red.key, "--signature", out)
    assert "2 of the keys" in str(early.exception)
    again = await office.ok("alice", "red", "sign", out, "--yes")
    assert again["missing"] == 1, "the same hand twice"
    assert (await office.ok("bob", "red", "sign", out, "--yes"))["missing"] == 0
    wrong = await office.plain("red", "clear", "a:1:9", "--signature", out)
    assert f"a clear of {red.key}" in str(wrong.exception)
    assert (await office.plain("red", "clear", red.key, "--signature", out)).exit_code == 0
    shown = await office.plain("red", "show", red.key)
    assert "is over (cleared by operator)" in shown.stdout
    listed = await office.plain("red", "list", "--all", "--json")
    assert json.loads(listed.stdout)["reds"][0]["ended_by"] == "operator"
    assert json.loads((await office.plain("red", "list", "--json")).stdout)["reds"] == []
