"""`/rollouts`: what there was, one that runs, and starting the next by its plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from coordinator.api.attestations import Looks
from coordinator.api.inside import Ask, read_answer
from coordinator.api.releases import ReleaseList
from coordinator.api.rollouts import History, RolloutList
from coordinator.page.deeds import REASON, Answer, Deed, Field, Told, chosen
from coordinator.page.pages.fleet import SELDOM_MS, every_ms, nodes_of, settings_of
from coordinator.page.views import rollout as views
from coordinator.page.visit import (
    Drawn,
    Goes,
    Group,
    PageRoute,
    Visit,
    may_be_mended,
    status_of,
)
from shared.errors import BadInputError, RollcallError
from shared.rollout import Rollout, RolloutRequest, VerbRequest
from shared.rolloutplan import Plan, StartRequest
from shared.settingkeys import as_text
from shared.traffic import TrafficView
from shared.wire import Wire

OPTIONS = ("batch", "max_unavailable", "max_per_site", "soak", "settle", "steps", "step_for")
FIELDS = (*OPTIONS, "release", "undo", "strategy", "only", "stop_the_world", "yes_really")
LATEST_HISTORY = 200
MENU = "/rollouts"


class RolloutPages(Group):
    async def listing(self, visit: Visit) -> Drawn:
        found = (await visit.read(RolloutList, "GET /v1/rollouts")).rollouts
        shown = [views.past(each, visit.now) for each in found]
        return Drawn(
            "rollouts.html", "Rollouts", {"past": shown, "every_ms": SELDOM_MS}, active=MENU
        )

    async def show(self, visit: Visit) -> Drawn:
        id_ = visit.path["id"]
        rollout = await visit.read(Rollout, "GET /v1/rollouts/{id}", {"id": id_})
        looks = await visit.read(Looks, "GET /v1/rollouts/{id}/attestations", {"id": id_})
        nodes = await nodes_of(visit)
        traffic = await visit.read(TrafficView, "GET /v1/traffic")
        history = await visit.read(History, "GET /v1/rollouts/{id}/history", {"id": id_})
        page = views.rollout_page(
            rollout,
            looks.looks,
            {node.name: node for node in nodes},
            {each.node: each for each in traffic.nodes},
            visit.now,
        )
        values = {
            "page": page,
            "history": history.history[: -LATEST_HISTORY - 1 : -1],
            "history_length": len(history.history),
            "every_ms": every_ms(len(nodes)),
        }
        return Drawn("rollout.html", f"Rollout {rollout.id}", values, active=MENU)

    async def evidence(self, visit: Visit) -> web.StreamResponse:
        id_ = visit.path["id"]
        answer = await visit.inside.ask(
            visit.signed.caller, Ask("GET /v1/rollouts/{id}/evidence", {"id": id_})
        )
        if not isinstance(answer, web.Response):
            raise TypeError("the evidence is a file")
        answer.headers["Content-Disposition"] = f'attachment; filename="rollout-{id_}.tar.gz"'
        return answer

    async def new(self, visit: Visit) -> Drawn:
        """The form with the fleet's settings filled in."""
        visit.inside.must(visit.signed.caller, "POST /v1/plans")
        return await self._form(visit, {name: visit.asked(name) for name in FIELDS})

    async def _form(
        self, visit: Visit, asked: Mapping[str, str], refused: RollcallError | None = None
    ) -> Drawn:
        settings = await settings_of(visit)
        usual = {name: as_text(name, settings[name]) for name in OPTIONS}
        values = {
            "releases": (await visit.read(ReleaseList, "GET /v1/releases")).releases,
            "strategies": views.STRATEGIES,
            "settings": settings,
            "form": {
                **dict.fromkeys(FIELDS, ""),
                **usual,
                "release": settings["latest"] or "",
                "strategy": settings["strategy"],
                **{name: asked[name] for name in FIELDS if asked.get(name)},
            },
            "refused": refused,
        }
        status = 200 if refused is None else status_of(refused)
        return Drawn("start.html", "Start a rollout", values, active=MENU, status=status)

    async def plan(self, visit: Visit) -> Drawn:
        """The plan object, as `rollcall rollout plan` prints it."""
        try:
            answer = await visit.change("POST /v1/plans", {}, request_of)
        except RollcallError as error:
            if not may_be_mended(error):
                raise
            return await self._form(visit, visit.form, error)
        plan = read_answer(Plan, answer)
        again = {
            name: value
            for name, value in visit.form.items()
            if name not in ("csrf", "key") and value
        }
        values = {"plan": plan, "again": again, "document": plan.model_dump_json(indent=2)}
        return Drawn("plan.html", f"Plan {plan.sha256[:12]}", values, active=MENU)

    async def start(self, visit: Visit) -> Goes:
        answer = await visit.change("POST /v1/rollouts", {}, start_of)
        rollout = read_answer(Rollout, answer)
        return Goes(
            f"/rollouts/{rollout.id}", f"Rollout {rollout.id} to {rollout.label} has begun."
        )

    routes = (
        PageRoute("GET", "/rollouts", listing),
        PageRoute("GET", "/rollouts/new", new),
        PageRoute("POST", "/rollouts/plan", plan),
        PageRoute("POST", "/rollouts", start),
        PageRoute("GET", "/rollouts/{id}", show),
        PageRoute("GET", "/rollouts/{id}/evidence", evidence),
    )


def request_of(visit: Visit) -> RolloutRequest:
    """What the form asks for: an undo, or a release. Raises BadInputError."""
    form = visit.form
    asked: dict[str, Any] = {
        "undo": form.get("undo") or None,
        "release": None if form.get("undo") else form.get("release") or None,
        "only": chosen(visit, "only"),
        "stop_the_world": visit.ticked("stop_the_world"),
        "yes_really": visit.ticked("yes_really"),
    }
    if not asked["undo"] and not asked["release"]:
        raise BadInputError("no release was chosen", remedy="choose one, then preview the plan")
    for name in ("strategy", *OPTIONS):
        if visit.typed(name):
            asked[name] = visit.typed(name)
    if "steps" in asked:
        asked["steps"] = [each.strip() for each in asked["steps"].split(",")]
    return RolloutRequest.from_value(asked)


def start_of(visit: Visit) -> StartRequest:
    return StartRequest.from_value({"plan": visit.form.get("plan", "")})


class RolloutDeed(Deed):
    """One of a rollout's verbs."""

    active = MENU

    def __init__(self, verb: str) -> None:
        self._verb = verb
        self.path = f"/rollouts/{{id}}/{verb}"
        self.action = f"POST /v1/rollouts/{{id}}/{verb}"

    async def tell(self, visit: Visit) -> Told:
        rollout = await visit.read(Rollout, "GET /v1/rollouts/{id}", visit.path)
        label, danger = views.VERBS[self._verb]
        return Told(
            title=f"{label}: rollout {rollout.id}",
            lines=views.what_verb_does(rollout, self._verb, visit.now),
            button=label,
            back=f"/rollouts/{rollout.id}",
            fields=(*self._choice(rollout), REASON),
            danger=danger,
        )

    def _choice(self, rollout: Rollout) -> tuple[Field, ...]:
        names = {"skip": views.skippable, "retry": views.retriable}
        if self._verb not in names:
            return ()
        options = tuple((name, name) for name in names[self._verb](rollout))
        hint = "none is all that failed" if self._verb == "retry" else ""
        return (Field("nodes", "Nodes", "checks", hint=hint, options=options),)

    def body(self, visit: Visit) -> Wire:
        reason = visit.typed("reason")
        return VerbRequest.from_value({"reason": reason, "nodes": chosen(visit, "nodes")})

    def after(self, visit: Visit, answer: Answer) -> Goes:
        label = views.VERBS[self._verb][0].lower()
        return Goes(f"/rollouts/{visit.path['id']}", f"Done: {label}.")


DEEDS: tuple[Deed, ...] = tuple(RolloutDeed(verb) for verb in views.VERBS)
