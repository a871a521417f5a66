"""OpenAPI 3.1, made from the route table and the wire models."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any, Literal

from pydantic.json_schema import models_json_schema

from coordinator.api import idempotency, versions
from coordinator.api.access import LEAST_ROLE, Allows
from coordinator.api.routes import READING, Media, Number, Resource, Route, Word
from shared.wire import Wire

PROBLEM = "application/problem+json"
Json = dict[str, Any]
Mode = Literal["validation", "serialization"]
Refs = dict[tuple[type[Wire], Mode], Json]


class Problem(Wire):
    """RFC 9457. `code` is stable; `remedy` says what to do next."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    remedy: str | None


def describe(resources: Iterable[type[Resource]], version: str) -> Json:
    routes = [route for resource in resources for route in resource.routes]
    refs, schemas = _schemas(routes)
    paths: dict[str, Json] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, refs)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Rollcall coordinator",
            "version": version,
            "description": "Errors are problem documents (RFC 9457). Unknown fields are ignored. "
            "`Rollcall-Protocol: MIN-MAX` goes with every answer; who sends one that does not "
            "overlap gets 409 with the code `protocol`. A change may carry an `Idempotency-Key`; an "
            "answer that is given again has `Idempotency-Replayed: true`. What has an `ETag` may be "
            "changed with `If-Match`, which is asked for nowhere (no 428): somebody else's change in between "
            "is then a 412. Bodies have no content coding (415). A path that is not listed is a 404, a method "
            "that is not a 405 with `Allow`, both with the code `http`; a 500 says nothing but that the log does.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "operator": {"type": "http", "scheme": "bearer"},
                "node": {"type": "mutualTLS"},
            },
        },
    }


def _schemas(routes: Sequence[Route]) -> tuple[Refs, Json]:
    """A model that is read and written has a schema for each: defaults make a field optional only in
    what is read."""
    wanted: dict[tuple[type[Wire], Mode], None] = {(Problem, "serialization"): None}
    for route in routes:
        body = route.body.shape if isinstance(route.body, Media) else route.body
        if body is not None:
            wanted[(body, "validation")] = None
        if route.answer is not None and not isinstance(route.answer, Media):
            wanted[(route.answer, "serialization")] = None
    refs, document = models_json_schema(list(wanted), ref_template="#/components/schemas/{model}")
    return {(model, mode): ref for (model, mode), ref in refs.items()}, document["$defs"]  # type: ignore[misc]


def _operation(route: Route, refs: Refs) -> Json:
    operation: Json = {
        "operationId": re.sub(r"\W+", "_", route.action).strip("_").lower(),
        "summary": route.summary,
        "description": _audience(route.allows),
        "security": _security(route.allows),
        "responses": _responses(route, refs),
    }
    parameters = [
        *(_path_parameter(name, pattern) for name, pattern in route.parameters.items()),
        *(_query_parameter(each) for each in route.query),
        *_header_parameters(route),
    ]
    if parameters:
        operation["parameters"] = parameters
    if route.body is not None:
        operation["requestBody"] = {
            "required": True,
            "description": f"At most {route.limit} bytes.",
            "content": _content(route.body, "validation", refs),
        }
    return operation


def _audience(allows: Allows) -> str:
    least = LEAST_ROLE.get(allows)
    if allows is Allows.ANYONE:
        return "For anyone."
    if least is None:
        return "For nodes of the roster."
    also = ", and nodes of the roster" if allows is Allows.MEMBER else ""
    return f"For operators with the role {least.value} or above{also}."


def _security(allows: Allows) -> list[dict[str, list[str]]]:
    """Either of the listed ones; the empty list means none."""
    schemes = []
    if allows in LEAST_ROLE:
        schemes.append("operator")
    if allows in (Allows.NODE, Allows.MEMBER):
        schemes.append("node")
    return [{scheme: []} for scheme in schemes]


def _responses(route: Route, refs: Refs) -> Json:
    answers: Json = {}
    for status in route.success:
        answers[str(status)] = {"description": HTTPStatus(status).phrase}
        if route.answer is not None:
            answers[str(status)]["content"] = _content(route.answer, "serialization", refs)
        if route.etag is not None:
            answers[str(status)]["headers"] = {"ETag": {"schema": {"type": "string"}}}
    for status in sorted(_refusals(route)):
        answers[str(status)] = {
            "description": HTTPStatus(status).phrase,
            "content": {PROBLEM: {"schema": refs[(Problem, "serialization")]}},
        }
        if status == HTTPStatus.UNAUTHORIZED:
            answers[str(status)]["headers"] = _header("WWW-Authenticate", {"type": "string"})
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            answers[str(status)]["headers"] = _header("Retry-After", {"type": "integer"})
    return answers


def _refusals(route: Route) -> set[int]:
    found = {409, 415, *route.refusals}
    if route.allows is not Allows.ANYONE:
        found |= {401, 403, 429}
    if route.parameters or route.query:
        found |= {400}
    if route.takes_key:
        found |= {400, 409, 422}
    if route.etag is not None and route.method not in READING:
        found |= {400, 412}
    if route.body is not None:
        found |= {400, 408, 413}
    return found


def _header(name: str, schema: Json) -> Json:
    return {name: {"required": True, "schema": schema}}


def _content(body: type[Wire] | Media, mode: Mode, refs: Refs) -> Json:
    if isinstance(body, Media):
        return {body.type: {} if body.shape is None else {"schema": refs[(body.shape, mode)]}}
    return {"application/json": {"schema": refs[(body, mode)]}}


def _path_parameter(name: str, pattern: str) -> Json:
    schema = {"type": "string", "pattern": f"^{pattern}$"}
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _query_parameter(each: Number | Word) -> Json:
    schema: Json = (
        {"type": "string", "pattern": f"^{each.pattern}$"}
        if isinstance(each, Word)
        else {
            "type": "integer",
            "minimum": each.lowest,
            "maximum": each.highest,
            "default": each.default,
        }
    )
    return {"name": each.name, "in": "query", "description": each.summary, "schema": schema}


def _header_parameters(route: Route) -> list[Json]:
    found = []
    if route.takes_key:
        said = (
            "Names this change. The first answer is kept for a day and given again to the same request; "
            "another request under the same key is a 422, one at the same time waits or is a 409."
        )
        schema = {"type": "string", "pattern": f"^{idempotency.KEY}$"}
        found.append(_header_parameter(idempotency.HEADER, said, schema))
    if route.etag is not None and route.method not in READING:
        said = "The ETag that the caller has seen: with any other version there, nothing changes (412)."
        found.append(_header_parameter(versions.HEADER, said, {"type": "string"}))
    return found


def _header_parameter(name: str, description: str, schema: Json) -> Json:
    return {"name": name, "in": "header", "description": description, "schema": schema}
