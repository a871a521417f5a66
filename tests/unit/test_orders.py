"""The life of an order: the table by itself, then the API of a real coordinator with real certificates."""

from __future__ import annotations

import asyncio
import itertools
import json
import sqlite3
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from agent.layout import Layout
from coordinator.cli import app
from coordinator.cli.client import Client
from coordinator.orders.lifecycle import MOVES, OrderMove, Step, apply, is_due
from coordinator.orders.turns import why_not_now
from shared.errors import ConflictError, UnavailableError
from shared.messages import Verdict
from shared.orders import MAX_OPEN, OPEN, OrderKind, OrderState, OrderTerms, OrderView
from shared.report import NodeReport, ReadinessSummary
from shared.rollout import NodeView
from shared.roster import Role
from tests.support.coordinatorkit import Reply, Running, joined, sync

NOW = 1_800_000_000.0


def an_order(**changes: Any) -> OrderView:
    base = OrderView(
        id="0123abcd:a",
        node="a",
        kind=OrderKind.RESTART,
        created=NOW,
        created_by="ann",
        since=NOW,
        expires=NOW + 3600,
    )
    return base.model_copy(update=changes)


@pytest.mark.parametrize(("state", "move"), list(itertools.product(OrderState, OrderMove)))
def test_only_the_moves_of_the_table_are_made(state: OrderState, move: OrderMove) -> None:
    order = an_order(state=state, claimed=NOW)
    step = Step(move, "a", "because", eta_s=60)
    if (state, move) not in MOVES:
        with pytest.raises(ConflictError, match=f"is {state}"):
            apply(order, step, NOW + 5)
        return
    after = apply(order, step, NOW + 5)
    assert after.state is MOVES[state, move]
    assert after.revision == order.revision + 1
    assert after.since == (NOW if after.state is state else NOW + 5)
    assert (after.ended is None) == (after.state in OPEN)
    assert after.reason == "because"


def test_every_open_order_can_be_ended_by_operator_and_time() -> None:
    for state in OPEN:
        assert MOVES[state, OrderMove.CANCEL] is OrderState.CANCELLED
        assert MOVES[state, OrderMove.EXPIRE] is OrderState.EXPIRED
    assert is_due(an_order(), NOW + 3600)
    assert not is_due(an_order(), NOW + 3599)
    assert not is_due(an_order(state=OrderState.FAILED), NOW + 9999)


def test_the_outcome_of_what_expired_counts_only_of_a_node_that_had_claimed_it() -> None:
    done = Step(OrderMove.COMPLETE, "a")
    late = an_order(state=OrderState.EXPIRED, claimed=NOW)
    assert apply(late, done, NOW).state is OrderState.COMPLETED
    with pytest.raises(ConflictError):
        apply(an_order(state=OrderState.EXPIRED), done, NOW)


def test_a_claim_said_again_moves_the_eta_and_not_the_claim() -> None:
    first = apply(an_order(), Step(OrderMove.CLAIM, "a", eta_s=60), NOW + 1)
    again = apply(first, Step(OrderMove.CLAIM, "a", eta_s=90), NOW + 30)
    assert (again.claimed, again.eta, again.since) == (NOW + 1, NOW + 120, NOW + 1)


async def create(running: Running, **asked: Any) -> dict[str, Any]:
    return await running.post("/v1/orders", {"kind": "restart", "node": "a", **asked})


async def say(
    running: Running, node: Layout, order: str, verb: str, key: str | None = None, **body: Any
) -> Reply:
    return await running.reply(
        "POST",
        f"/v1/orders/{order}/{verb}",
        node=node,
        body=json.dumps(body).encode(),
        headers={} if key is None else {"Idempotency-Key": key},
    )


async def test_an_order_from_the_request_to_its_result(running: Running) -> None:
    node = await joined(running, "a")
    order = (await create(running, terms={"reason": "it leaks"}))["id"]
    claimed = await say(running, node, order, "claim", eta_s=60)
    assert (claimed.status, claimed.body["state"]) == (200, "claimed")
    assert claimed.body["eta"] == pytest.approx(claimed.body["claimed"] + 60)
    moving = await say(running, node, order, "update", reason="drained")
    assert (moving.body["state"], moving.body["reason"]) == ("in_progress", "drained")
    ended = await say(running, node, order, "complete", result="pid 7")
    assert (ended.body["state"], ended.body["revision"]) == ("completed", 4)
    shown = await running.get(f"/v1/orders/{order}")
    assert shown["result"] == "pid 7"
    who = [(each["event"], each["who"].split(" ")[0], each["reason"]) for each in shown["events"]]
    assert who == [
        ("create", "first", "it leaks"),
        ("claim", "a", ""),
        ("update", "a", "drained"),
        ("complete", "a", ""),
    ]
    refused = await say(running, node, order, "update", reason="again")
    assert (refused.status, refused.body["code"]) == (409, "conflict")


async def test_only_the_assignee_claims_updates_and_ends(running: Running) -> None:
    await joined(running, "a")
    other = await joined(running, "b")
    order = (await create(running))["id"]
    steps: dict[str, dict[str, Any]] = {"claim": {"eta_s": 60}, "update": {}, "complete": {}}
    for verb, body in steps.items():
        reply = await say(running, other, order, verb, **body)
        assert (reply.status, reply.body["code"]) == (403, "not-assignee")
    admin = running.settings.paths.token.read_text()
    reply = await running.reply(
        "POST", f"/v1/orders/{order}/claim", token=admin, body=b'{"eta_s": 60}'
    )
    assert reply.status == 403
    assert (await running.get(f"/v1/orders/{order}"))["order"]["state"] == "pending"


async def test_each_step_repeated_under_its_key_is_made_once(running: Running) -> None:
    node = await joined(running, "a")
    order = (await create(running))["id"]
    for verb, body in (("claim", {"eta_s": 60.0}), ("update", {"reason": "x"}), ("complete", {})):
        first = await say(running, node, order, verb, key=f"{verb}-1", **body)
        again = await say(running, node, order, verb, key=f"{verb}-1", **body)
        assert (again.status, again.body) == (200, first.body)
        assert again.headers["Idempotency-Replayed"] == "true"
    assert len((await running.get(f"/v1/orders/{order}"))["events"]) == 4


async def test_a_step_whose_answer_was_never_kept_is_found_in_the_order_itself(
    running: Running,
) -> None:
    """As after a crash between the change and the note of its answer."""
    node = await joined(running, "a")
    order = (await create(running))["id"]
    await say(running, node, order, "claim", key="c", eta_s=60.0)
    await forget_answers(running)
    again = await say(running, node, order, "claim", key="c", eta_s=60.0)
    assert (again.status, again.body["revision"]) == (200, 2)
    assert "Idempotency-Replayed" not in again.headers
    assert len((await running.get(f"/v1/orders/{order}"))["events"]) == 2


async def forget_answers(running: Running) -> None:
    await running.stop()
    with sqlite3.connect(running.settings.paths.database) as database:
        database.execute("UPDATE replays SET status = NULL, body = NULL")
    database.close()
    await running.restart()


async def test_an_order_is_made_once_however_often_it_is_asked_for(running: Running) -> None:
    await joined(running, "a")
    body = json.dumps({"kind": "restart", "node": "a"}).encode()

    async def ask() -> Reply:
        token = running.settings.paths.token.read_text()
        return await running.reply(
            "POST", "/v1/orders", token=token, body=body, headers={"Idempotency-Key": "o"}
        )

    made = list(await asyncio.gather(ask(), ask(), ask()))
    await forget_answers(running)
    made.append(await ask())
    assert {each.status for each in made} == {201}
    assert len({each.body["id"] for each in made}) == 1
    assert len((await running.get("/v1/orders"))["orders"]) == 1


async def test_a_node_is_told_its_open_orders_and_nobody_elses(running: Running) -> None:
    node, other = await joined(running, "a"), await joined(running, "b")
    assert (await sync(node, orders="")).orders is None
    order = (await create(running, terms={"drain": False}))["id"]
    told = (await sync(node, orders="")).orders
    assert told is not None
    assert [(each.id, each.kind, each.terms.drain) for each in told.orders] == [
        (order, "restart", False)
    ]
    assert (await sync(node, orders=told.tag)).orders is None
    assert (await sync(node)).orders is None, "an agent from before orders is told none"
    assert (await sync(other, orders="")).orders is None
    await running.restart()
    assert (await sync(node, orders="")).orders == told
    await running.post(f"/v1/orders/{order}/cancel", {"reason": "no need"})
    told = (await sync(node, orders=told.tag)).orders
    assert told is not None
    assert (told.tag, told.orders) == ("", [])


async def test_a_new_order_ends_a_long_poll(running: Running) -> None:
    node = await joined(running, "a")
    first = await sync(node, orders="")
    loop = asyncio.get_running_loop()
    began = loop.time()
    waiting = asyncio.create_task(sync(node, orders="", wait_s=20, after=first))
    await asyncio.sleep(0.3)
    assert not waiting.done()
    order = (await create(running))["id"]
    told = (await waiting).orders
    assert told is not None
    assert told.orders[0].id == order
    assert loop.time() - began < 10


async def test_what_cannot_be_ordered_is_refused_with_what_to_do(running: Running) -> None:
    await joined(running, "a")
    token = running.settings.paths.token.read_text()

    async def refused(**asked: Any) -> tuple[int, str]:
        body = json.dumps({"kind": "restart", "node": "a", **asked}).encode()
        reply = await running.reply("POST", "/v1/orders", token=token, body=body)
        return reply.status, f"{reply.body['detail']} {reply.body['remedy']}"

    assert await refused(node="zz") == (404, "no node is called 'zz' there are: a")
    assert await refused(kind="upgrade") == (
        400,
        "an order to upgrade is not made by hand begin a rollout",
    )
    for _ in range(MAX_OPEN):
        await create(running)
    status, words = await refused()
    assert (status, words.startswith(f"a has {MAX_OPEN} open orders")) == (409, True)


def seen(name: str, status: Verdict, release: str | None = "a" * 64) -> NodeView:
    return NodeView(
        name=name, role=Role.STABLE, joined=0, status=status, release=release, heard=NOW
    )


def test_no_more_nodes_are_taken_out_than_may_be_out() -> None:
    green = {name: seen(name, Verdict.GREEN) for name in "abc"}
    order = an_order()
    assert why_not_now(order, green, [], 1) == ""
    assert why_not_now(order, green, ["b"], 1) == "at most 1 may be out at once, and these are: b"
    assert why_not_now(order, green, ["a"], 1) == ""
    assert why_not_now(order, green, ["b"], 2) == ""
    sick = {**green, "c": seen("c", Verdict.UNKNOWN)}
    assert why_not_now(order, sick, [], 1).endswith(": c")
    assert why_not_now(order, {**green, "c": seen("c", Verdict.UNKNOWN, None)}, [], 1) == ""
    assert why_not_now(order, {**sick, "a": seen("a", Verdict.RED)}, [], 1) == "", (
        "it can be mended"
    )
    assert why_not_now(an_order(terms=OrderTerms(urgent=True)), sick, ["b"], 1) == ""
    assert why_not_now(an_order(kind=OrderKind.COLLECT_LOGS), sick, ["b"], 1) == ""


async def test_of_two_restarts_at_once_the_second_waits_for_the_first(running: Running) -> None:
    nodes = {name: await joined(running, name) for name in ("a", "b")}
    for name, node in nodes.items():
        ready = ReadinessSummary(status=Verdict.GREEN)
        report = NodeReport(node=name, agent_version="0", release="a" * 64, readiness=ready)
        await sync(node, report)
    orders = {name: (await create(running, node=name))["id"] for name in nodes}
    replies = await asyncio.gather(
        *(say(running, nodes[name], order, "claim", eta_s=60) for name, order in orders.items())
    )
    assert sorted(reply.status for reply in replies) == [200, 409]
    won = next(name for name, reply in zip(orders, replies, strict=True) if reply.status == 200)
    lost = "b" if won == "a" else "a"
    refused = next(reply for reply in replies if reply.status == 409)
    assert refused.body["detail"].endswith(f"these are: {won}")
    await say(running, nodes[won], orders[won], "complete")
    assert (await say(running, nodes[lost], orders[lost], "claim", eta_s=60)).status == 200


class Lossy(Client):
    """Every change comes true, and the answers to the first of them are lost."""

    lose = 2

    async def _send(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> bytes:
        answer = await super()._send(method, path, body, headers)
        if self.lose:
            self.lose -= 1
            raise UnavailableError("no answer")
        return answer


async def test_the_command_line_sends_a_change_again_and_it_is_made_once(running: Running) -> None:
    await joined(running, "a")
    client = await asyncio.to_thread(Lossy, running.settings.paths.client)
    asked = {"kind": "restart", "node": "a"}
    made = await asyncio.to_thread(client.post, "/v1/orders", asked)
    orders = (await running.get("/v1/orders"))["orders"]
    assert [order["id"] for order in orders] == [made["id"]]
    assert client.lose == 0


async def test_a_cancel_fits_what_its_sender_has_seen(running: Running) -> None:
    node = await joined(running, "a")
    order = (await create(running))["id"]
    token = running.settings.paths.token.read_text()
    seen = await running.reply("GET", f"/v1/orders/{order}", token=token)
    await say(running, node, order, "claim", eta_s=60)

    async def cancel(tag: str) -> Reply:
        path, headers = f"/v1/orders/{order}/cancel", {"If-Match": tag}
        return await running.reply("POST", path, token=token, body=b"{}", headers=headers)

    stale = await cancel(seen.headers["Etag"])
    assert (stale.status, stale.body["code"]) == (412, "changed")
    fresh = await running.reply("GET", f"/v1/orders/{order}", token=token)
    assert (await cancel(fresh.headers["Etag"])).body["state"] == "cancelled"
    refused = await say(running, node, order, "complete")
    assert refused.status == 409
    assert "cancelled by first" in refused.body["detail"]


async def test_upgrades_of_rollouts_are_orders_too(running: Running) -> None:
    node, other = await joined(running, "a"), await joined(running, "b")
    await sync(node)
    await sync(other)
    release = await running.publish()
    rollout = (await running.post("/v1/targets", {"release": release, "strategy": "immediate"}))[
        "id"
    ]
    order = f"{rollout}:a"
    async with asyncio.timeout(60):
        while not (await running.get("/v1/orders?kind=upgrade&state=pending"))["orders"]:
            await asyncio.sleep(0.05)
    shown = await running.get(f"/v1/orders/{order}")
    assert shown["order"]["terms"] == {
        "drain": True,
        "urgent": False,
        "subject": release,
        "label": f"2026.9.6 ({release[:12]})",
        "reason": "",
    }
    assert (await say(running, node, order, "claim", eta_s=60)).body["state"] == "claimed"
    assert (await say(running, other, order, "claim", eta_s=60)).status == 403
    assert (await say(running, node, f"{'0' * 8}:a", "claim", eta_s=60)).status == 404
    token = running.settings.paths.token.read_text()
    reply = await running.reply("POST", f"/v1/orders/{order}/cancel", token=token, body=b"{}")
    assert (reply.status, reply.body["state"]) == (200, "claimed")
    assert reply.body["reason"].startswith("taken back, cancelled by first")
    assert (await say(running, node, order, "claim", eta_s=60)).status == 409
    said = NodeReport(
        node="a",
        agent_version="0",
        readiness=ReadinessSummary(status=Verdict.GREEN),
        withdrawn=[order],
    )
    await sync(node, said)
    async with asyncio.timeout(60):
        while (await running.get(f"/v1/orders/{order}"))["order"]["state"] != "cancelled":
            await asyncio.sleep(0.05)


def cli(running: Running, *words: str) -> Result:
    """Runs in this thread's loop-free runner: call it in another thread than the coordinator's."""
    return CliRunner().invoke(app, [*words, "--config", str(running.settings.paths.client)])


async def test_the_command_line_makes_shows_and_cancels(running: Running) -> None:
    node = await joined(running, "a")
    made = await asyncio.to_thread(
        cli, running, "order", "create", "restart", "a", "--reason", "it leaks", "--json"
    )
    order = json.loads(made.stdout)["order"]["id"]
    await say(running, node, order, "claim", eta_s=60)
    listed = await asyncio.to_thread(cli, running, "order", "list", "--open", "--node", "a")
    assert listed.stdout.splitlines()[1].startswith(f"{order}\trestart\tclaimed\t")
    cancelled = await asyncio.to_thread(cli, running, "order", "cancel", order, "--reason", "no")
    assert cancelled.exit_code == 0
    shown = await asyncio.to_thread(cli, running, "order", "show", order)
    assert f"{order}: restart, cancelled" in shown.stdout
    assert "cancel -> cancelled by first" in shown.stdout
    dry = await asyncio.to_thread(cli, running, "node", "restart", "a", "--dry-run")
    assert (dry.exit_code, dry.stderr) == (0, "would order restart of a\n")
    late = await asyncio.to_thread(cli, running, "node", "restart", "a", "--wait", "1s")
    assert late.exit_code == 5
    wrong = await asyncio.to_thread(cli, running, "order", "create", "upgrade", "a")
    assert isinstance(wrong.exception, Exception)
    assert "not ordered by hand" in str(wrong.exception)
    assert len((await running.get("/v1/orders"))["orders"]) == 2
