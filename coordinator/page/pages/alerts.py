"""`/alerts`: what people must see to, and who has taken it on."""

from __future__ import annotations

from coordinator.alerts.rules import RULES
from coordinator.api.alerts import (
    AckRequest,
    AlertDetail,
    AlertList,
    ChannelList,
    SilenceList,
    SilenceRequest,
)
from coordinator.page.deeds import MUST_REASON, REASON, Answer, Deed, Field, Told
from coordinator.page.pages.fleet import LOOK_MS
from coordinator.page.visit import Drawn, Goes, Group, PageRoute, Visit
from shared.durations import parse_duration
from shared.errors import BadInputError
from shared.wire import Wire

MENU = "/alerts"


class AlertPages(Group):
    async def listing(self, visit: Visit) -> Drawn:
        values = {
            "alerts": (await visit.read(AlertList, "GET /v1/alerts")).alerts,
            "ended": (
                await visit.read(AlertList, "GET /v1/alert-history", query={"limit": "30"})
            ).alerts,
            "silences": (await visit.read(SilenceList, "GET /v1/alert-silences")).silences,
            "channels": (await visit.read(ChannelList, "GET /v1/alert-channels")).channels,
            "every_ms": LOOK_MS,
        }
        return Drawn("alerts.html", "Alerts", values, active=MENU)

    async def show(self, visit: Visit) -> Drawn:
        detail = await visit.read(AlertDetail, "GET /v1/alerts/{id}", visit.path)
        values = {"detail": detail, "every_ms": LOOK_MS}
        return Drawn("alert.html", f"Alert: {detail.alert.summary[:60]}", values, active=MENU)

    routes = (PageRoute("GET", "/alerts", listing), PageRoute("GET", "/alerts/{id}", show))


class AckDeed(Deed):
    active = MENU
    path = "/alerts/{id}/ack"
    action = "POST /v1/alerts/{id}/ack"

    async def tell(self, visit: Visit) -> Told:
        alert = (await visit.read(AlertDetail, "GET /v1/alerts/{id}", visit.path)).alert
        lines = [
            f"{alert.summary}",
            "It is marked as taken on by you, and receivers are told so. It ends by itself when its cause does.",
        ]
        return Told("Acknowledge the alert", lines, "Acknowledge", MENU, (REASON,))

    def body(self, visit: Visit) -> Wire:
        return AckRequest.from_value({"reason": visit.typed("reason")})

    def after(self, visit: Visit, answer: Answer) -> Goes:
        return Goes(MENU, "Acknowledged.")


class SilenceDeed(Deed):
    active = MENU
    path = "/alert-silences/new"
    action = "POST /v1/alert-silences"

    async def tell(self, visit: Visit) -> Told:
        rules = (("", "any rule"), *((name, name) for name in sorted(RULES)))
        return Told(
            title="Silence alerts",
            lines=[
                "Nobody is told of the alerts that fit while it lasts. They stand on this page all the same.",
                "Nothing about rollouts changes: a red freezes as before.",
            ],
            button="Silence",
            back=MENU,
            fields=(
                Field("rule", "Rule", "select", visit.asked("rule"), options=rules),
                Field(
                    "subject",
                    "About",
                    value=visit.asked("subject"),
                    hint="a node or a rollout; empty is any",
                ),
                Field("for", "For", value="1h", hint="30m, 4h, 2d", required=True),
                MUST_REASON,
            ),
        )

    def body(self, visit: Visit) -> Wire:
        form = visit.form
        try:
            seconds = parse_duration(form.get("for", ""))
        except ValueError as error:
            raise BadInputError(f"for: {error}") from error
        named = {"rule": form.get("rule", ""), "subject": visit.typed("subject")}
        if not any(named.values()):
            raise BadInputError("neither a rule nor a subject is named", remedy="name one, or both")
        reason = visit.typed("reason")
        return SilenceRequest.from_value({**named, "for_s": seconds, "reason": reason})

    def after(self, visit: Visit, answer: Answer) -> Goes:
        return Goes(MENU, "Silenced.")


class LiftDeed(Deed):
    active = MENU
    path = "/alert-silences/{id}/lift"
    action = "DELETE /v1/alert-silences/{id}"

    async def tell(self, visit: Visit) -> Told:
        lines = ["The silence ends now, and people are told again of what it covered."]
        return Told("Lift the silence", lines, "Lift", MENU)

    def after(self, visit: Visit, answer: Answer) -> Goes:
        return Goes(MENU, "Lifted.")


class TryDeed(Deed):
    active = MENU
    path = "/alert-channels/{channel}/test"
    action = "POST /v1/alert-channels/{channel}/test"

    async def tell(self, visit: Visit) -> Told:
        name = visit.path["channel"]
        lines = [f"A test goes to the channel {name} now, and the answer says whether it arrived."]
        return Told(f"Test the channel {name}", lines, "Send it", MENU)

    def after(self, visit: Visit, answer: Answer) -> Goes:
        return Goes(MENU, f"The channel {visit.path['channel']} took the test.")


DEEDS: tuple[Deed, ...] = (AckDeed(), SilenceDeed(), LiftDeed(), TryDeed())
