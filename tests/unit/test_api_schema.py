"""The coordinator's API against its own description: made-up requests to the real one, over real TLS.

schemathesis makes requests that fit the description, and requests that do not, for every operation,
and judges the answers by it. Faults 1 and 2 follow, at every operation that takes a body.
"""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass, replace
from functools import cache
from typing import Any
from urllib.parse import quote

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from requests.adapters import HTTPAdapter
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks
from schemathesis.specs.openapi.schemas import OpenApiSchema
from typer.testing import CliRunner

from agent.layout import Layout
from coordinator.api.access import Allows
from coordinator.api.routes import BINARY, Route
from coordinator.api.table import RESOURCES, description
from coordinator.cli import app
from shared.canonical import canonical_json, sha256_hex
from shared.envelope import JOIN, OPERATOR_CLEAR, RENEWAL, seal
from shared.keys import SigningKey
from shared.messages import Message, Verdict
from shared.metadata import FLEET, new_targets, read_targets, sign, to_bytes
from shared.nodes import Cohort
from shared.report import NodeReport, ReadinessSummary
from shared.roster import COORDINATOR_HOST, Role
from shared.tls import client_context, make_key, request_certificate
from tests.support.coordinatorkit import LOCK, Reply, Running, joined, sync
from tests.unit.test_capability_api import signed
from tests.unit.test_red_api import red_of

EXAMPLES = 20
EVIL = "1.0;rm -rf ~"
ROUTES = [route for resource in RESOURCES for route in resource.routes]
WITH_INPUT = [route for route in ROUTES if route.body or route.query or route.parameters]
WITH_JSON = [route for route in ROUTES if route.body not in (None, BINARY)]
OF_ROLLOUTS = {route.path for route in ROUTES if route.path.startswith("/v1/rollouts/{id}")}
WITH_VERB = {route.path for route in WITH_JSON if route.path in OF_ROLLOUTS}


MANIFEST = {
    "name": "2026.9.6",
    "openclaw": "2026.9.6",
    "dependencies": {"openclaw": "2026.9.6"},
    "lock_sha256": sha256_hex(LOCK),
    "node_engine": ">=24",
    "created": 0,
    "expires": 2e9,
}


def every(routes: list[Route]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("route", routes, ids=lambda route: route.action)


@dataclass(frozen=True)
class Stage:
    """A coordinator with one of everything, so that answers have something in them."""

    url: str
    session: requests.Session
    parameters: dict[str, dict[str, str]]
    """By the route's path: path parameters that name something there is."""


class ToTheCoordinator(HTTPAdapter):
    """TLS with the fleet's authority, the coordinator's name, and a node's certificate if one is given."""

    def __init__(self, running: Running, node: Layout | None) -> None:
        tls = running.settings.paths.tls
        self._context = client_context(tls.ca, None if node is None else node.tls)
        super().__init__()

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(
            *args,
            **options,
            ssl_context=self._context,
            server_hostname=COORDINATOR_HOST,
            assert_hostname=COORDINATOR_HOST,
        )

    def cert_verify(self, *_: Any) -> None:
        """The context does it; requests would put its own list of authorities in its place."""


async def set_stage(running: Running, route: Route) -> Stage:
    """The caller is a node where only nodes are served, else the first admin."""
    node = await joined(running, "a", Role.CANARY)
    await sync(node, worker_of(route))
    release = await running.publish()
    rollout = await running.post("/v1/targets", {"release": release})
    red = await asyncio.to_thread(red_of, node)
    if route.path.startswith("/v1/reds"):
        await sync(node, messages=[red.raw])
    alerts = await alerts_of(running, node, red) if route.path.startswith("/v1/alert") else {}
    operator = await running.operator("viewer")
    order = await running.post("/v1/orders", {"kind": "collect_logs", "node": "a"})
    if route.path.endswith(("/update", "/complete")):
        claim = f"/v1/orders/{order['id']}/claim"
        await running.reply("POST", claim, node=node, body=b'{"eta_s": 60}')
    session = requests.Session()
    session.trust_env = False
    only_nodes = route.allows is Allows.NODE
    session.mount("https://", ToTheCoordinator(running, node if only_nodes else None))
    if not only_nodes:
        session.headers["Authorization"] = f"Bearer {running.settings.paths.token.read_text()}"
    await running.post("/v1/traffic/snapshots", {"name": "before"})
    run = ""
    if route.path.startswith("/v1/capabilit"):
        await signed(running)
        asked = {"capability": "hello-fleet"}
        run = (await running.post("/v1/capabilities/publish", asked))["id"]
    named = {
        "/v1/capabilities/{name}": {"name": "hello-fleet"},
        "/v1/capability-runs/{id}": {"id": run},
        "/v1/traffic/nodes/{name}": {"name": "a"},
        "/v1/traffic/rollouts/{id}": {"id": rollout["id"]},
        "/v1/traffic/snapshots/{name}": {"name": "before"},
        "/v1/traffic/snapshots/{name}/restore": {"name": "before"},
        "/tuf/{path}": {"path": "timestamp.json"},
        "/tuf/targets/{sha256}.fleet.json": {"sha256": await listed(running, FLEET)},
        "/tuf/targets/{name}": {"name": f"{release}.2026.9.6.release.json"},
        "/v1/nodes/{name}/revoke": {"name": "a"},
        "/v1/blobs/{sha256}": {"sha256": sha256_hex(LOCK)},
        **{path: {"id": rollout["id"]} for path in OF_ROLLOUTS},
        "/v1/releases/{id}/unblock": {"id": release},
        "/v1/rollouts/{id}/evidence": {"id": rollout["id"]},
        "/v1/operator-tokens/{id}": {"id": operator["id"]},
        "/v1/reds/{key}": {"key": red.key},
        **alerts,
        "/v1/nodes/{name}": {"name": "a"},
        "/v1/nodes/{name}/attributes": {"name": "a"},
        "/v1/nodes/{name}/upgrades": {"name": "a"},
        "/v1/cohorts/{queue}": {"queue": "orders"},
        "/v1/cohorts/{queue}/drain": {"queue": "orders"},
        "/v1/cohorts/{queue}/resume": {"queue": "orders"},
        "/v1/settings/{key}": {"key": "soak"},
        "/v1/settings/{key}/history": {"key": "soak"},
        "/v1/orders/{id}": {"id": order["id"]},
        **{
            f"/v1/orders/{{id}}/{verb}": {"id": order["id"]}
            for verb in ("cancel", "claim", "update", "complete")
        },
    }
    async with asyncio.timeout(60):
        while not (await running.get("/v1/rollouts"))["rollouts"][0]["nodes"][0]["reason"]:
            await asyncio.sleep(0.05)
    return Stage(running.url, session, named)


def worker_of(route: Route) -> NodeReport | None:
    """A report with a cohort where the route is about those."""
    if not route.path.startswith("/v1/cohorts"):
        return None
    return NodeReport(
        node="a",
        agent_version="0",
        readiness=ReadinessSummary(status=Verdict.GREEN),
        cohort=Cohort(queue="orders", build_id="b"),
    )


async def alerts_of(running: Running, node: Layout, red: Message) -> dict[str, dict[str, str]]:
    """An alert that is firing, and a silence of something else."""
    await sync(node, messages=[red.raw])
    asked = {"subject": "nobody", "for_s": 600, "reason": "a test"}
    silence = await running.post("/v1/alert-silences", asked)
    async with asyncio.timeout(60):
        while not (found := (await running.get("/v1/alerts"))["alerts"]):
            await asyncio.sleep(0.05)
    return {
        "/v1/alerts/{id}": {"id": found[0]["id"]},
        "/v1/alerts/{id}/ack": {"id": found[0]["id"]},
        "/v1/alert-silences/{id}": {"id": silence["id"]},
    }


async def listed(running: Running, path: str) -> str:
    """The SHA-256 of a target."""
    targets = read_targets(await running.client.ask("GET", "/tuf/2.targets.json"))
    return str(targets.signed.targets[path].hashes["sha256"])


@cache
def schema() -> OpenApiSchema:
    return schemathesis.openapi.from_dict(description())


def exercise(stage: Stage, route: Route, mode: GenerationMode) -> set[int]:
    """Returns the statuses that were seen. Raises what schemathesis found."""
    operation = schema()[route.path][route.method]
    fixed = stage.parameters.get(route.path) if mode is GenerationMode.POSITIVE else None
    judged_by = [
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_headers_conformance,
        checks.response_schema_conformance,
    ]
    seen: set[int] = set()

    @given(case=operation.as_strategy(generation_mode=mode, path_parameters=fixed))
    @settings(max_examples=EXAMPLES, database=None, suppress_health_check=list(HealthCheck))
    def ask(case: schemathesis.Case[Any]) -> None:
        make_it_count(case)
        answer = case.call_and_validate(
            base_url=stage.url, session=stage.session, checks=judged_by, timeout=30
        )
        seen.add(answer.status_code)

    ask()
    stage.session.close()
    return seen


def make_it_count(case: schemathesis.Case[Any]) -> None:
    """Long polls answer at once, and a node reports in its own name: else little would be reached."""
    if case.path in ("/v1/watch", "/v1/events"):
        case.query["wait_s"] = 0
    if case.path == "/v1/sync" and isinstance(case.body, dict):
        case.body.update(wait_s=0)
        report = case.body.get("report")
        if isinstance(report, dict):
            report["node"] = "a"


@every(ROUTES)
async def test_answers_are_as_described(running: Running, route: Route) -> None:
    """To good requests, then to bad ones where something can be said wrongly."""
    stage = await set_stage(running, route)
    seen = await asyncio.to_thread(exercise, stage, route, GenerationMode.POSITIVE)
    if route.method == "GET":
        assert seen == {200}
    if route in WITH_INPUT:
        seen = await asyncio.to_thread(exercise, stage, route, GenerationMode.NEGATIVE)
        assert seen & {400, 401}


async def test_the_description_is_of_what_runs(running: Running) -> None:
    """Readable without a token, the same offline, and each operation is served."""
    described = await running.reply("GET", "/v1/openapi.json")
    assert described.body == description()
    printed = await asyncio.to_thread(CliRunner().invoke, app, ["coordinator", "openapi"])
    assert json.loads(printed.stdout) == described.body
    assert described.body["openapi"] == "3.1.0"
    for path, operations in described.body["paths"].items():
        for method in operations:
            reply = await running.reply(method.upper(), re.sub(r"\{\w+\}", "0" * 8, path))
            assert reply.status in (200, 400, 401, 404), (method, path)
            assert reply.body.get("code") != "http", "aiohttp knows no such route"


def test_each_operation_has_its_own_id_and_says_for_whom_it_is() -> None:
    operations = [each for path in description()["paths"].values() for each in path.values()]
    assert len({each["operationId"] for each in operations}) == len(operations) == len(ROUTES)
    for each in operations:
        assert each["description"].startswith("For ")
        assert ("401" in each["responses"]) == bool(each["security"])


def test_a_route_without_a_pattern_for_its_parameter_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="pattern"):
        replace(ROUTES[0], path="/v1/things/{id}")


def some(path: str, *, name: str) -> str:
    """The path with something in place of its parameters, of their form where that is an id."""
    id_ = "0" * (64 if path.startswith("/v1/releases") else 8)
    id_ += ":a" * path.startswith("/v1/orders")
    found = path.replace("{name}", name).replace("{id}", id_)
    return found.replace("{key}", "soak").replace("{queue}", "orders")


@dataclass(frozen=True)
class Door:
    """Who asks: a node where only nodes are served, else the first admin."""

    running: Running
    node: Layout
    token: str

    @classmethod
    async def of(cls, running: Running) -> Door:
        token = await asyncio.to_thread(running.settings.paths.token.read_text)
        return cls(running, await joined(running, "a"), token)

    async def knock(self, route: Route, path: str, body: bytes) -> Reply:
        of_nodes = route.allows is Allows.NODE
        who: dict[str, Any] = {"node": self.node} if of_nodes else {"token": self.token}
        return await self.running.reply(route.method, path, body=body, **who)


BROKEN = {
    "deep": (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "nested deeper"),
    "unclosed": (b"[" * 10_000, "nested deeper"),
    "nan": (b'{"a": NaN}', "not a JSON number"),
    "twice": (b'{"a": 1, "a": 2}', "'a' twice"),
    "latin-1": ('{"a": "é"}'.encode("latin-1"), "not UTF-8"),
    "utf-16": ('{"a": 1}'.encode("utf-16"), "not UTF-8"),
    "surrogate": (b'{"a": "\\ud800"}', "surrogate"),
    "empty": (b"", "not JSON"),
}


async def test_json_that_is_none_is_refused_with_a_reason(running: Running) -> None:
    """Fault 2, at every operation that takes JSON: one coordinator meets them all."""
    door = await Door.of(running)
    answers = {
        (route.action, name): (await door.knock(route, some(route.path, name="a"), body), reason)
        for route in WITH_JSON
        for name, (body, reason) in BROKEN.items()
    }
    assert len(answers) == len(WITH_JSON) * len(BROKEN)
    assert not {
        at: reply
        for at, (reply, reason) in answers.items()
        if reply.status != 400 or reason not in reply.body["detail"]
    }


async def bodies_with(running: Running, text: str) -> list[tuple[str, dict[str, Any]]]:
    """Every operation with `text` where a version or a name belongs, and all else in order."""
    report = {"node": "a", "agent_version": "0", "readiness": {"status": "green"}}
    joining = {
        "secret": (await running.token()).secret,
        "name": "b",
        "role": "stable",
        "csr_pem": request_certificate(make_key(), "b"),
        "message_key": SigningKey.generate().public.model_dump(),
    }

    key = SigningKey.generate()
    desk = await running.desk()
    published = await asyncio.to_thread(desk.published, running.client)

    def signed(kind: str, value: dict[str, Any]) -> dict[str, Any]:
        return dict(json.loads(seal(canonical_json(value), kind, key)))

    def release(**changes: Any) -> dict[str, Any]:
        """A release that an operator did sign, with a trick in it."""
        path, raw = "evil.release.json", canonical_json({**MANIFEST, "name": "evil", **changes})
        targets = new_targets([(path, raw)], 2e9, base=published.targets.signed)
        sign(targets, [running.operator_keys.targets])
        return {"targets": to_bytes(targets).decode(), "files": {path: raw.decode()}}

    def clear(**changes: Any) -> dict[str, Any]:
        """An operator's clear, signed by one, with a trick in it."""
        value = {"fleet": "a" * 64, "ref": "a:1:1", "sha256": "b" * 64, "reason": "x", "issued": 1}
        raw = seal(
            canonical_json({**value, **changes}), OPERATOR_CLEAR, running.operator_keys.targets
        )
        return dict(json.loads(raw))

    joining["message_key"] = key.public.model_dump()
    renewing = {**joining, "fleet": published.fleet.fleet, "node": "a"}
    return [
        ("/v1/targets", {"release": text}),
        ("/v1/targets", {"release": "2026.9.6", "strategy": text}),
        ("/v1/plans", {"release": text}),
        ("/v1/plans", {"undo": text}),
        ("/v1/plans", {"release": "2026.9.6", "batch": text}),
        ("/v1/plans", {"release": "2026.9.6", "only": [text]}),
        ("/v1/rollouts", {"plan": text}),
        ("/v1/capabilities/publish", {"capability": text}),
        ("/v1/capabilities/unpublish", {"capability": text}),
        *((path, {"nodes": [text]}) for path in sorted(WITH_VERB)),
        ("/v1/releases/{id}/unblock", {"reason": 1}),
        ("/v1/node-tokens", {"ttl_s": text}),
        ("/v1/operator-tokens", {"name": text, "role": "viewer"}),
        ("/v1/operator-tokens", {"name": "x", "role": text}),
        ("/v1/node-tokens", {"name": text}),
        ("/v1/node-tokens", {"role": text}),
        ("/v1/node-tokens", {"site": text}),
        ("/v1/join", signed(JOIN, {**joining, "name": text})),
        ("/v1/join", signed(JOIN, {**joining, "role": text})),
        ("/v1/join", signed(JOIN, {**joining, "site": text})),
        ("/v1/join", signed(JOIN, {**joining, "csr_pem": text})),
        ("/v1/renew", signed(RENEWAL, {**renewing, "node": text})),
        ("/v1/renew", signed(RENEWAL, {**renewing, "fleet": text})),
        ("/v1/nodes/{name}/revoke", {"reason": 1}),
        ("/v1/traffic/nodes/{name}", {"percent": text, "reason": "x"}),
        ("/v1/traffic/freeze", {"reason": 1}),
        ("/v1/traffic/unfreeze", {"reason": 1}),
        ("/v1/traffic/snapshots", {"name": text}),
        ("/v1/traffic/snapshots/{name}/restore", {"reason": "x", "dry_run": text}),
        ("/v1/trust", {"targets": text}),
        ("/v1/trust", {"roots": [text]}),
        ("/v1/trust", {"files": {text: text}}),
        ("/v1/trust", release(name=text)),
        ("/v1/trust", release(openclaw=text)),
        ("/v1/trust", release(dependencies={"openclaw": "1", text: "1"})),
        ("/v1/trust", release(lock_sha256=text)),
        ("/v1/sync", {"report": {**report, "node": text}}),
        ("/v1/sync", {"report": {**report, "release": text}}),
        ("/v1/sync", {"report": {**report, "agent_version": text}}),
        ("/v1/sync", {"report": {**report, "version_running": text}}),
        ("/v1/sync", {"report": report, "holds": text}),
        ("/v1/capabilities/publish", {"capability": text}),
        ("/v1/capabilities/unpublish", {"capability": text}),
        ("/v1/orders", {"kind": text, "node": "a"}),
        ("/v1/orders", {"kind": "restart", "node": text}),
        ("/v1/orders", {"kind": "restart", "node": "a", "terms": {"subject": text}}),
        ("/v1/orders/{id}/cancel", {"reason": 1}),
        ("/v1/orders/{id}/claim", {"eta_s": text}),
        ("/v1/orders/{id}/update", {"eta_s": text}),
        ("/v1/orders/{id}/complete", {"failed": text}),
        ("/v1/sla/sweeps", {"limit": text}),
        ("/v1/alerts/{id}/ack", {"reason": 1}),
        ("/v1/alert-silences", {"rule": text, "for_s": 60, "reason": "x"}),
        ("/v1/alert-silences", {"subject": text, "for_s": 60, "reason": "x"}),
        ("/v1/reds/clears", clear(ref=text)),
        ("/v1/reds/clears", clear(fleet=text)),
        ("/v1/settings/{key}", {"value": text}),
        ("/v1/nodes/{name}/attributes", {"site": text}),
        ("/v1/nodes/{name}/attributes", {"class_": text}),
        ("/v1/nodes/{name}/attributes", {"labels": {text: text}}),
        ("/v1/capabilities/publish", {"capability": text}),
        ("/v1/capabilities/unpublish", {"capability": text}),
        ("/v1/cohorts/{queue}/drain", {"build_id": text}),
        ("/v1/cohorts/{queue}/resume", {"build_id": text}),
        ("/v1/sync", {"report": {**report, "cohort": {"queue": text, "build_id": "b"}}}),
    ]


async def test_a_version_that_is_a_command_is_refused_everywhere(running: Running) -> None:
    """Fault 1."""
    door = await Door.of(running)
    bodies = await bodies_with(running, EVIL)
    routes = {route.path: route for route in WITH_JSON}
    assert {path for path, _ in bodies} == routes.keys()
    for path, value in bodies:
        named = some(path, name=quote(EVIL))
        reply = await door.knock(routes[path], named, json.dumps(value).encode())
        assert reply.status == 400, (path, value, reply)
        assert reply.body["detail"]


async def test_an_address_that_is_a_command_is_refused(running: Running) -> None:
    """Fault 1, in the path and in the query, wherever there is one."""
    door, evil, passed = await Door.of(running), quote(EVIL, safe=""), {}
    for route in (route for route in ROUTES if route.parameters or route.query):
        path = re.sub(r"\{\w+\}", evil, route.path)
        path += "".join(f"?{each.name}={evil}" for each in route.query[:1])
        reply = await door.knock(route, path, b"")
        if (reply.status, reply.body.get("code")) != (400, "bad-input"):
            passed[route.action] = reply
    assert passed == {}
