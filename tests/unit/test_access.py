"""Who may call what (fault 35): roles, expiry, revocation, certificates, and failed logins."""

from __future__ import annotations

import asyncio
import sqlite3
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from coordinator.api.access import (
    FAILURE_WINDOW_S,
    LEAST_ROLE,
    MAX_FAILURES,
    Allows,
    network_of,
)
from coordinator.api.routes import Route
from coordinator.api.table import RESOURCES
from coordinator.cli import app
from coordinator.operators import OperatorRole, TokenText, make_token
from shared.clock import SystemClock
from shared.errors import ConflictError, RollcallError
from shared.http import RefusedError
from tests.support.coordinatorkit import Running, joined, secret_of

ROUTES = [route for resource in RESOURCES for route in resource.routes]
GUARDED = [route for route in ROUTES if route.allows is not Allows.ANYONE]
RANKED = (Allows.VIEWER, Allows.OPERATOR, Allows.ADMIN)


class LaterClock(SystemClock):
    """The wall clock, moved by so many seconds."""

    def __init__(self, ahead: float) -> None:
        self._ahead = ahead

    def now(self) -> float:
        return super().now() + self._ahead


def path_of(route: Route) -> str:
    """The route with parameters of the right form."""
    path = route.path
    for name, pattern in route.parameters.items():
        path = path.replace(f"{{{name}}}", "0" * (64 if "64" in pattern else 8))
    waits = any(each.name == "wait_s" for each in route.query)
    return f"{path}?wait_s=0" if waits else path


async def status(running: Running, route: Route, token: str | None = None) -> int:
    return (await running.reply(route.method, path_of(route), token=token)).status


def cli(running: Running, *words: str) -> Result:
    """`rollcall WORDS --config` of the first admin."""
    config = str(running.settings.paths.client)
    return CliRunner().invoke(app, [*words, "--config", config])


def change_database(running: Running, statement: str) -> None:
    with sqlite3.connect(running.settings.paths.database, timeout=10) as database:
        database.execute(statement)
    database.close()


async def test_without_a_token_every_guarded_route_answers_401(running: Running) -> None:
    for route in GUARDED:
        reply = await running.reply(route.method, path_of(route))
        assert reply.status == 401, route.action
        assert reply.headers["WWW-Authenticate"] == "Bearer"
        assert reply.body["code"] == "unauthenticated"


async def test_each_role_may_do_what_its_routes_say_and_no_more(running: Running) -> None:
    for role in OperatorRole:
        token = (await running.operator(role))["token"]
        for route in GUARDED:
            needed = LEAST_ROLE.get(route.allows)
            allowed = needed is not None and role.covers(needed)
            found = await status(running, route, token)
            assert (found not in (401, 403)) == allowed, (role, route.action, found)


async def test_what_changes_something_is_never_for_viewers() -> None:
    """But for the link by which they see the page themselves."""
    for route in ROUTES:
        mine = route.action == "POST /v1/page-links"
        if route.is_recorded and route.allows is not Allows.ANYONE and not mine:
            assert route.allows in (Allows.NODE, Allows.OPERATOR, Allows.ADMIN), route.action


async def test_a_nodes_certificate_opens_no_operators_route(running: Running) -> None:
    node = await joined(running, "a")
    for route in GUARDED:
        if route.allows in RANKED:
            reply = await running.reply(route.method, path_of(route), node=node)
            assert (reply.status, reply.body["code"]) == (403, "forbidden"), route.action
    assert (await running.reply("GET", "/v1/releases", node=node)).status == 200


async def test_an_operators_token_does_not_report_for_a_node(running: Running) -> None:
    token = (await running.operator("admin"))["token"]
    reply = await running.reply("POST", "/v1/sync", token=token, body=b"{}")
    assert (reply.status, reply.body["code"]) == (403, "forbidden")


async def test_a_certificate_outside_of_the_roster_opens_nothing(running: Running) -> None:
    """Its signature is the fleet's own, and still it is no node (any more)."""
    node = await joined(running, "a")
    await asyncio.to_thread(change_database, running, "UPDATE nodes SET revoked = 1")
    await running.restart()
    for route in GUARDED:
        reply = await running.reply(route.method, path_of(route), node=node, body=b"{}")
        assert (reply.status, reply.body["code"]) == (403, "untrusted"), route.action


async def test_a_wrong_token_beside_a_good_certificate_counts_as_wrong(running: Running) -> None:
    node = await joined(running, "a")
    reply = await running.reply("GET", "/v1/releases", node=node, token="x")
    assert reply.status == 401


async def test_an_expired_token_is_told_so_only_with_the_right_secret(running: Running) -> None:
    made = await running.operator("viewer", ttl_s=60)
    await running.restart(LaterClock(61))
    reply = await running.reply("GET", "/v1/nodes", token=made["token"])
    assert reply.status == 401
    assert "has expired" in reply.body["detail"]
    guessed = f"rollcall_op_{made['id']}_{'x' * 43}"
    reply = await running.reply("GET", "/v1/nodes", token=guessed)
    assert (reply.status, reply.body["detail"]) == (401, "this token is not known")


async def test_a_revoked_token_is_out_at_once_and_for_ever(running: Running) -> None:
    made = await running.operator("operator")
    assert (await running.reply("GET", "/v1/nodes", token=made["token"])).status == 200
    first = await running.reply("DELETE", f"/v1/operator-tokens/{made['id']}", token=admin(running))
    again = await running.reply("DELETE", f"/v1/operator-tokens/{made['id']}", token=admin(running))
    assert first.status == again.status == 200
    assert first.body["revoked"] == again.body["revoked"]
    reply = await running.reply("GET", "/v1/nodes", token=made["token"])
    assert (reply.status, "was revoked" in reply.body["detail"]) == (401, True)


def admin(running: Running) -> str:
    return running.settings.paths.token.read_text()


async def test_the_last_valid_admin_token_stays(running: Running) -> None:
    first = TokenText.parse(admin(running)).id
    short_lived = await running.operator("admin", ttl_s=60)
    await running.operator("operator")
    await running.restart(LaterClock(61))
    with pytest.raises(RefusedError, match="last valid admin"):
        await running.client.ask("DELETE", f"/v1/operator-tokens/{first}")
    await running.restart()
    await running.client.ask("DELETE", f"/v1/operator-tokens/{first}")
    reply = await running.reply("GET", "/v1/audit", token=short_lived["token"])
    assert reply.status == 200


async def test_a_start_without_any_valid_admin_makes_one(running: Running) -> None:
    """Otherwise a fleet whose last admin token has run out could never have operators again."""
    old = admin(running)
    await asyncio.to_thread(change_database, running, "UPDATE operator_tokens SET expires = 1")
    assert (await running.reply("GET", "/v1/nodes", token=old)).status == 401
    await running.restart()
    assert admin(running) != old
    rows = (await running.get("/v1/audit"))["rows"]
    assert rows[-1]["detail"] == "no admin's token was valid any more"
    assert await running.get("/v1/nodes") == {"nodes": []}
    assert (await running.reply("GET", "/v1/nodes", token=old)).status == 401


async def test_a_token_from_before_tokens_had_roles_stays_good(running: Running) -> None:
    old = "a-token-as-homes-had-it-before-43-characters"
    await running.stop()
    await asyncio.to_thread(change_database, running, "DELETE FROM operator_tokens")
    running.settings.paths.token.write_text(old)
    await running.restart()
    listed = (await running.get("/v1/operator-tokens"))["tokens"]
    assert [(each["name"], each["role"]) for each in listed] == [("first", "admin")]
    assert old not in str(listed)


async def test_the_database_has_no_secret(running: Running) -> None:
    made = await running.operator("admin")
    await running.stop()
    stored = await asyncio.to_thread(running.settings.paths.database.read_bytes)
    for text in (made["token"], admin(running)):
        secret = secret_of(text)
        assert secret.encode() not in stored
    assert running.settings.paths.token.stat().st_mode & 0o777 == 0o600


async def test_guessing_is_slowed_down_and_locks_nobody_out(running: Running) -> None:
    replies = [
        await running.reply("GET", "/v1/nodes", token=make_token()) for _ in range(MAX_FAILURES + 5)
    ]
    assert [reply.status for reply in replies] == [401] * MAX_FAILURES + [429] * 5
    assert 1 <= int(replies[-1].headers["Retry-After"]) <= FAILURE_WINDOW_S
    assert (await running.reply("GET", "/v1/nodes", token=admin(running))).status == 200
    assert (await running.reply("GET", "/v1/nodes")).status == 401, "shows no token: no login"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.2", False),
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%en0", "fe80::2%en0", True),
        ("-", "-", True),
    ],
)
def test_failures_are_counted_for_whoever_has_the_addresses(
    one: str, other: str, same: bool
) -> None:
    assert (network_of(one) == network_of(other)) is same


async def test_the_last_use_of_a_token_is_written_once_a_minute(running: Running) -> None:
    made = await running.operator("viewer")

    async def last_used() -> float | None:
        listed = (await running.get("/v1/operator-tokens"))["tokens"]
        found: list[float | None] = [
            each["last_used"] for each in listed if each["id"] == made["id"]
        ]
        return found[0]

    assert await last_used() is None
    await running.reply("GET", "/v1/nodes", token=made["token"])
    first = await last_used()
    await running.reply("GET", "/v1/nodes", token=made["token"])
    assert await last_used() == first is not None
    await running.restart(LaterClock(120))
    await running.reply("GET", "/v1/nodes", token=made["token"])
    assert (await last_used() or 0) > (first or 0)


@pytest.mark.parametrize(
    "name", ["", "1.0;rm -rf ~", "a b", "-", "x" * 33, "a\n", "alice [00000000]"]
)
async def test_a_tokens_name_has_a_form(running: Running, name: str) -> None:
    body = {"name": name, "role": "viewer"}
    with pytest.raises(RefusedError, match="name") as caught:
        await running.post("/v1/operator-tokens", body)
    assert caught.value.status == 400


@given(st.text())
def test_any_text_is_a_claim_that_can_be_looked_up(text: str) -> None:
    parsed = TokenText.parse(text)
    assert len(parsed.id) == 8
    assert len(parsed.sha256) == 64


@given(st.binary(min_size=1, max_size=80))
def test_any_header_is_a_claim_that_can_be_looked_up(raw: bytes) -> None:
    TokenText.parse(raw.decode("utf-8", "surrogateescape"))


async def test_the_command_line_makes_lists_and_revokes(running: Running, tmp_path: Path) -> None:
    file = tmp_path / "alice.toml"
    create = ("operator", "token", "create", "--name", "alice", "--role", "operator")
    made = await asyncio.to_thread(cli, running, *create, "--write-config", str(file), "--json")
    assert made.exit_code == 0, made.output
    written = tomllib.loads(file.read_text())
    assert not Path(written["token_file"]).is_absolute(), "the folder can be carried"
    assert (tmp_path / written["token_file"]).stat().st_mode & 0o777 == 0o600
    as_alice = await asyncio.to_thread(
        CliRunner().invoke, app, ["node", "list", "--json", "--config", str(file)]
    )
    assert as_alice.exit_code == 0
    again = await asyncio.to_thread(cli, running, *create, "--write-config", str(file))
    assert isinstance(again.exception, ConflictError)
    listed = await asyncio.to_thread(cli, running, "operator", "token", "list")
    line = next(each for each in listed.stdout.splitlines() if "alice" in each)
    revoked = await asyncio.to_thread(
        cli, running, "operator", "token", "revoke", line.split("\t")[0]
    )
    assert revoked.exit_code == 0
    after = await asyncio.to_thread(
        CliRunner().invoke, app, ["node", "list", "--config", str(file)]
    )
    assert isinstance(after.exception, RefusedError)
    assert "was revoked" in after.exception.message


async def test_the_command_line_shows_a_token_once(running: Running) -> None:
    made = await asyncio.to_thread(
        cli, running, "operator", "token", "create", "--name", "bob", "--ttl", "2h"
    )
    text = made.stdout.strip()
    assert text.startswith("rollcall_op_")
    assert (await running.reply("GET", "/v1/nodes", token=text)).status == 200
    listed = await asyncio.to_thread(cli, running, "operator", "token", "list", "--json")
    assert secret_of(text) not in listed.stdout


@pytest.mark.parametrize(
    "words",
    [
        ("operator", "token", "create", "--name", "x", "--ttl", "soon"),
        ("operator", "token", "create", "--name", "x", "--write-config", "/nowhere/x.toml"),
        ("operator", "token", "create", "--name", "x", "--write-config", "x.token"),
        ("operator", "token", "revoke", "../nodes"),
    ],
)
async def test_wrong_usage_is_said(running: Running, words: tuple[str, ...]) -> None:
    result = await asyncio.to_thread(cli, running, *words)
    assert isinstance(result.exception, RollcallError)
    assert result.exception.exit_code == 2
