"""The coordinator's API against its own description: made-up requests to the real one, over real TLS.

schemathesis makes requests that fit the description, and requests that do not, for every operation,
and judges the answers by it. Faults 1 and 2 follow, at every operation that takes a body.
"""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from requests.adapters import HTTPAdapter
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks
from typer.testing import CliRunner

from agent.layout import Layout
from coordinator.api.access import Allows
from coordinator.api.routes import BINARY, Route
from coordinator.api.table import RESOURCES, description
from coordinator.cli import app
from shared.canonical import canonical_json, sha256_hex
from shared.envelope import JOIN, OPERATOR_CLEAR, RENEWAL, seal
from shared.keys import SigningKey
from shared.metadata import FLEET, new_targets, read_targets, sign, to_bytes
from shared.roster import COORDINATOR_HOST, Role
from shared.tls import client_context, make_key, request_certificate
from tests.support.coordinatorkit import LOCK, Running, joined, sync
from tests.unit.test_red_api import red_of

EXAMPLES = 20
EVIL = "1.0;rm -rf ~"
ROUTES = [route for resource in RESOURCES for route in resource.routes]
WITH_INPUT = [route for route in ROUTES if route.body or route.query or route.parameters]
WITH_JSON = [route for route in ROUTES if route.body not in (None, BINARY)]


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
    await sync(node)
    release = await running.publish()
    rollout = await running.post("/v1/targets", {"release": release})
    red = await asyncio.to_thread(red_of, node)
    if route.path.startswith("/v1/reds"):
        await sync(node, messages=[red.raw])
    operator = await running.operator("viewer")
    session = requests.Session()
    session.trust_env = False
    only_nodes = route.allows is Allows.NODE
    session.mount("https://", ToTheCoordinator(running, node if only_nodes else None))
    if not only_nodes:
        session.headers["Authorization"] = f"Bearer {running.settings.paths.token.read_text()}"
    named = {
        "/tuf/{path}": {"path": "timestamp.json"},
        "/tuf/targets/{sha256}.fleet.json": {"sha256": await listed(running, FLEET)},
        "/tuf/targets/{name}": {"name": f"{release}.2026.9.6.release.json"},
        "/v1/nodes/{name}/revoke": {"name": "a"},
        "/v1/blobs/{sha256}": {"sha256": sha256_hex(LOCK)},
        "/v1/rollouts/{id}/history": {"id": rollout["id"]},
        "/v1/operator-tokens/{id}": {"id": operator["id"]},
        "/v1/reds/{key}": {"key": red.key},
    }
    async with asyncio.timeout(10):
        while not (await running.get("/v1/rollouts"))["rollouts"][0]["nodes"][0]["reason"]:
            await asyncio.sleep(0.05)
    return Stage(running.url, session, named)


async def listed(running: Running, path: str) -> str:
    """The SHA-256 of a target."""
    targets = read_targets(await running.client.ask("GET", "/tuf/2.targets.json"))
    return str(targets.signed.targets[path].hashes["sha256"])


def exercise(stage: Stage, route: Route, mode: GenerationMode) -> set[int]:
    """Returns the statuses that were seen. Raises what schemathesis found."""
    operation = schemathesis.openapi.from_dict(description())[route.path][route.method]
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
    if case.path == "/v1/watch":
        case.query["wait_s"] = 0
    if case.path == "/v1/sync" and isinstance(case.body, dict):
        case.body.update(wait_s=0)
        report = case.body.get("report")
        if isinstance(report, dict):
            report["node"] = "a"


@every(ROUTES)
async def test_answers_to_good_requests_are_as_described(running: Running, route: Route) -> None:
    stage = await set_stage(running, route)
    seen = await asyncio.to_thread(exercise, stage, route, GenerationMode.POSITIVE)
    if route.method == "GET":
        assert seen == {200}


@every(WITH_INPUT)
async def test_answers_to_bad_requests_are_as_described(running: Running, route: Route) -> None:
    stage = await set_stage(running, route)
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


async def status_and_reason(running: Running, route: Route, body: bytes) -> tuple[int, str]:
    node = await joined(running, "a") if route.allows is Allows.NODE else None
    token = None if node else running.settings.paths.token.read_text()
    path = route.path.replace("{name}", "a")
    reply = await running.reply(route.method, path, token=token, node=node, body=body)
    return reply.status, reply.body["detail"]


@every(WITH_JSON)
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "nested deeper"),
        (b"[" * 10_000, "nested deeper"),
        (b'{"a": NaN}', "not a JSON number"),
        (b'{"a": 1, "a": 2}', "'a' twice"),
        ('{"a": "é"}'.encode("latin-1"), "not UTF-8"),
        ('{"a": 1}'.encode("utf-16"), "not UTF-8"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b"", "not JSON"),
    ],
    ids=["deep", "unclosed", "nan", "twice", "latin-1", "utf-16", "surrogate", "empty"],
)
async def test_json_that_is_none_is_refused_with_a_reason(
    running: Running, route: Route, body: bytes, reason: str
) -> None:
    """Fault 2."""
    status, detail = await status_and_reason(running, route, body)
    assert status == 400
    assert reason in detail


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
        ("/v1/reds/clears", clear(ref=text)),
        ("/v1/reds/clears", clear(fleet=text)),
    ]


async def test_a_version_that_is_a_command_is_refused_everywhere(running: Running) -> None:
    """Fault 1."""
    admin = running.settings.paths.token.read_text()
    node = await joined(running, "a")
    bodies = await bodies_with(running, EVIL)
    assert {path for path, _ in bodies} == {route.path for route in WITH_JSON}
    for path, value in bodies:
        who: dict[str, Any] = {"node": node} if path == "/v1/sync" else {"token": admin}
        reply = await running.reply(
            "POST", path.replace("{name}", quote(EVIL)), body=json.dumps(value).encode(), **who
        )
        assert reply.status == 400, (path, value, reply)
        assert reply.body["detail"]


@every([route for route in ROUTES if route.parameters or route.query])
async def test_an_address_that_is_a_command_is_refused(running: Running, route: Route) -> None:
    """Fault 1, in the path and in the query."""
    evil = quote(EVIL, safe="")
    path = re.sub(r"\{\w+\}", evil, route.path)
    path += "".join(f"?{each.name}={evil}" for each in route.query[:1])
    reply = await running.reply(
        route.method, path, token=running.settings.paths.token.read_text(), body=b""
    )
    assert (reply.status, reply.body["code"]) == (400, "bad-input")
