"""ETag and If-Match: nobody overwrites what somebody else has changed meanwhile. And what is not served says so."""

from __future__ import annotations

import json
from typing import Any

from tests.support.coordinatorkit import Reply, Running, joined, sync
from tests.unit.test_api_schema import ROUTES, worker_of

COHORTS = next(route for route in ROUTES if route.path == "/v1/cohorts")


async def ask(
    running: Running, method: str, path: str, body: Any = None, match: str | None = None
) -> Reply:
    return await running.reply(
        method,
        path,
        token=running.settings.paths.token.read_text(),
        body=None if body is None else json.dumps(body).encode(),
        headers={} if match is None else {"If-Match": match},
    )


async def test_of_two_who_set_a_setting_the_second_is_told(running: Running) -> None:
    path = "/v1/settings/soak"
    seen = (await ask(running, "GET", path)).headers["Etag"]
    first = await ask(running, "PUT", path, {"value": "3h"}, seen)
    assert first.status == 200
    second = await ask(running, "PUT", path, {"value": "4h"}, seen)
    assert (second.status, second.body["code"]) == (412, "changed")
    assert "send its new ETag as If-Match" in second.body["remedy"]
    found = await ask(running, "GET", path)
    assert (found.body["text"], found.headers["Etag"]) == ("3h", first.headers["Etag"])
    assert (await ask(running, "PUT", path, {"value": "4h"})).status == 200, "it may be left out"
    bad = await ask(running, "PUT", path, {"value": "4h"}, "soak")
    assert (bad.status, bad.body["code"]) == (400, "bad-input")
    assert (await ask(running, "GET", "/v1/settings/nothing")).status == 404


async def test_a_dry_run_changes_no_version(running: Running) -> None:
    path = "/v1/settings/soak"
    seen = (await ask(running, "GET", path)).headers["Etag"]
    tried = await ask(running, "PUT", path, {"value": "3h", "dry_run": True}, seen)
    assert (tried.status, tried.headers["Etag"]) == (200, seen)


async def test_a_node_is_described_as_it_was_seen(running: Running) -> None:
    node, path = await joined(running, "a"), "/v1/nodes/a/attributes"
    seen = await ask(running, "GET", path)
    assert (seen.body["role"], seen.body["labels"]) == ("stable", {})
    await sync(node)
    again = await ask(running, "GET", path)
    assert again.headers["Etag"] == seen.headers["Etag"], "a heartbeat is no change of it"
    assert (await ask(running, "PUT", path, {"site": "berlin"}, seen.headers["Etag"])).status == 200
    stale = await ask(running, "PUT", path, {"site": "paris"}, seen.headers["Etag"])
    assert stale.status == 412
    assert (await ask(running, "GET", "/v1/nodes/b/attributes")).status == 404
    assert (await ask(running, "GET", "/v1/nodes/b/upgrades")).status == 404
    assert (await ask(running, "GET", "/v1/nodes/a/upgrades")).body == {"upgrades": []}


async def test_two_drains_of_one_queue_know_of_each_other(running: Running) -> None:
    await sync(await joined(running, "a"), worker_of(COHORTS))
    seen = await ask(running, "GET", "/v1/cohorts/orders")
    assert [each["build_id"] for each in seen.body["cohorts"]] == ["b"]
    tag, body = seen.headers["Etag"], {"build_id": "b"}
    assert (await ask(running, "POST", "/v1/cohorts/orders/drain", body, tag)).status == 200
    assert (await ask(running, "POST", "/v1/cohorts/orders/resume", body, tag)).status == 412
    missing = await ask(running, "GET", "/v1/cohorts/nothing")
    assert (missing.status, missing.body["remedy"]) == (404, "see: rollcall cohort list")


async def test_a_verb_counts_for_the_rollout_that_was_seen(running: Running) -> None:
    await sync(await joined(running, "a"))
    release = await running.publish()
    made = await running.post("/v1/targets", {"release": release, "yes_really": True})
    path = f"/v1/rollouts/{made['id']}"
    seen = (await ask(running, "GET", path)).headers["Etag"]
    paused = await ask(running, "POST", f"{path}/pause", {"reason": "lunch"}, '"other"')
    assert paused.status == 412
    assert (await ask(running, "POST", f"{path}/pause", {"reason": "lunch"})).status == 200
    stale = await ask(running, "POST", f"{path}/abort", {}, seen)
    assert stale.status == 412
    assert (await ask(running, "GET", path)).body["state"] == "paused"


async def test_what_is_not_there_is_said_as_a_problem(running: Running) -> None:
    missing = await ask(running, "GET", "/v2/nodes")
    assert missing.headers["Content-Type"].startswith("application/problem+json")
    assert (missing.status, missing.body["code"]) == (404, "http")
    assert missing.body["detail"] == "there is nothing at GET /v2/nodes"
    method = await ask(running, "DELETE", "/v1/settings/soak")
    assert (method.status, method.headers["Allow"]) == (405, "GET,PUT")
    assert method.body["detail"] == "DELETE /v1/settings/soak is not served"
    assert method.body["remedy"] == "served there: GET,PUT"
    big = await ask(running, "PUT", "/v1/settings/soak", {"value": "x" * (65 << 10)})
    assert (big.status, big.body["code"]) == (413, "too-large")
    coded = await running.reply(
        "PUT",
        "/v1/settings/soak",
        token=running.settings.paths.token.read_text(),
        body=b"{}",
        headers={"Content-Encoding": "gzip"},
    )
    assert (coded.status, coded.body["code"]) == (415, "coded-body")
