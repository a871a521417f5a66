"""`GET /v1/history`: what the probes measured, as JSON, for people and their tools."""

from __future__ import annotations

import re
import time

from aiohttp import web

from agent.readiness.guards.slope import thin
from agent.readiness.history import COARSE_S, FULL_S, MAX_SAMPLES, History
from shared.durations import parse_duration
from shared.errors import BadInputError, NotFoundError
from shared.http import Handler

PATH = "/v1/history"
MAX_ASKED = 16
MAX_NUMBERS = 20_000
"""Of samples or buckets in one answer: 600 kB of JSON."""
NAME = re.compile(r"[a-z0-9_]{1,40}")


def history_route(history: History) -> Handler:
    """`series`: names with commas between, all of them if absent. `since`: `10m` for that long ago, or wall
    seconds; an hour if absent. `points`: at most so many of each, medians of equal stretches of time where there are
    more. `coarse=1`: buckets of five minutes, up to a week of them."""

    async def handler(request: web.Request) -> web.StreamResponse:
        names = _names(history, request.query.get("series"))
        coarse = request.query.get("coarse", "0") not in ("", "0", "false")
        since = _since(request.query.get("since"), time.time(), COARSE_S if coarse else FULL_S)
        points = _points(request.query.get("points"))
        found = {
            name: _buckets(history, name, since)
            if coarse
            else _samples(history, name, since, points)
            for name in names
        }
        if sum(map(len, found.values())) > MAX_NUMBERS:
            raise BadInputError(
                "that is more than one answer takes",
                remedy="ask for fewer series or points",
            )
        kind = "buckets" if coarse else "samples"
        return web.json_response({"since": since, kind: found})

    return handler


def _names(history: History, asked: str | None) -> list[str]:
    known = history.names()
    if asked is None:
        return known
    names = asked.split(",")
    if len(names) > MAX_ASKED or not all(NAME.fullmatch(name) for name in names):
        raise BadInputError(
            f"series is a list of at most {MAX_ASKED} names", remedy="such as series=memory_bytes"
        )
    missing = [name for name in names if name not in known]
    if missing:
        raise NotFoundError(
            f"nothing was measured under the name {missing[0]!r}",
            remedy=f"there are: {', '.join(known) or 'none yet'}",
        )
    return names


def _since(text: str | None, now: float, longest: float) -> float:
    """Wall seconds."""
    if text is None:
        return now - FULL_S
    wall = re.fullmatch(r"\d{9,11}(\.\d{1,6})?", text)
    try:
        since = float(text) if wall else now - parse_duration(text)
    except ValueError as error:
        raise BadInputError(f"since: {error}", remedy="say 10m, or seconds since 1970") from error
    return max(since, now - longest)


def _points(text: str | None) -> int:
    if text is None:
        return MAX_SAMPLES
    if not re.fullmatch(r"\d{1,4}", text) or not 1 <= int(text) <= MAX_SAMPLES:
        raise BadInputError(f"points is a number from 1 to {MAX_SAMPLES}, not {text[:20]!r}")
    return int(text)


def _samples(history: History, name: str, since: float, points: int) -> list[list[float]]:
    samples = history.since(name, since)
    kept = samples if len(samples) <= points else thin(samples, points)
    return [[each.at, each.value] for each in kept]


def _buckets(history: History, name: str, since: float) -> list[dict[str, float]]:
    return [
        {"at": each.at, "min": each.low, "mean": each.mean, "max": each.high, "count": each.count}
        for each in history.coarse(name, since)
    ]
