"""`/v1/alerts` and beside it: what people must see to, who has taken it on, what is silenced, and whom it reaches.
Channels are configured in the coordinator's home and nowhere else: whoever has a token cannot send alerts away."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import Field, StringConstraints, field_validator

from coordinator.alerts.book import AlertBook, new_id, sample_alert
from coordinator.alerts.channels import Channel
from coordinator.alerts.config import CHANNEL_NAME, ChannelConfig
from coordinator.alerts.model import Alert, AlertEvent, AlertState, Change, Silence
from coordinator.alerts.rules import RULES
from coordinator.api.access import Allows
from coordinator.api.routes import SHORT_ID, Call, Number, Resource, Route
from coordinator.orders.book import request_id
from coordinator.store.alerts import AlertStore, Delivery
from shared.clock import Clock
from shared.errors import NotFoundError
from shared.wire import Reason, Wire

LONGEST_SILENCE_S = 30 * 86400.0
MAX_PAGE = 500

Because = Annotated[Reason, StringConstraints(min_length=1, max_length=500)]


class AlertList(Wire):
    alerts: list[Alert]


class AlertDetail(Wire):
    alert: Alert
    says: str
    """What its rule looks for."""
    history: list[AlertEvent]


class AckRequest(Wire):
    reason: Annotated[Reason, StringConstraints(max_length=500)] = ""


class SilenceRequest(Wire):
    """Of one rule, of one subject, or of both; at least one is named."""

    rule: Annotated[str, StringConstraints(pattern=r"^[a-z-]{0,40}$")] = ""
    subject: Annotated[str, StringConstraints(pattern=r"^[a-z0-9._-]{0,64}$")] = ""
    for_s: Annotated[float, Field(ge=1, le=LONGEST_SILENCE_S)]
    reason: Because

    @field_validator("rule")
    @classmethod
    def _is_known(cls, rule: str) -> str:
        if rule and rule not in RULES:
            raise ValueError(f"no rule is called {rule!r}; there are {', '.join(sorted(RULES))}")
        return rule


class SilenceList(Wire):
    silences: list[Silence]


class ChannelView(Wire):
    """`queued` is how many alerts wait to be delivered; `failing` why, while they cannot be."""

    name: str
    type: str
    queued: int
    failing: str = ""
    failing_since: float | None = None


class ChannelList(Wire):
    channels: list[ChannelView]


class Tested(Wire):
    channel: str
    took_ms: float


def _acknowledged(call: Call, alert: Alert) -> None:
    call.subject = f"alert {alert.id}: {alert.rule} {alert.subject}"


class AlertsApi(Resource):
    def __init__(
        self,
        book: AlertBook,
        store: AlertStore,
        configured: Sequence[ChannelConfig],
        channels: Mapping[str, Channel],
        clock: Clock,
    ) -> None:
        self._book, self._store, self._clock = book, store, clock
        self._configured, self._channels = configured, channels

    async def listing(self, _: Call) -> AlertList:
        open_ = [a for a in await self._store.open() if a.state is AlertState.FIRING]
        return AlertList(alerts=sorted(open_, key=lambda each: (each.severity.rank, each.since)))

    async def ended(self, call: Call) -> AlertList:
        return AlertList(alerts=await self._store.ended(call.query["limit"]))

    async def show(self, call: Call) -> AlertDetail:
        alert = await self._store.find(call.parameters["id"])
        if alert is None:
            raise NotFoundError(
                f"there is no alert {call.parameters['id']}",
                remedy="list them: rollcall alert list, or rollcall alert history",
            )
        rule = RULES.get(alert.rule)
        return AlertDetail(
            alert=alert,
            says="" if rule is None else rule.says,
            history=await self._store.events_of(alert.id),
        )

    async def acknowledge(self, call: Call) -> Alert:
        reason = call.wire(AckRequest).reason
        call.detail = reason
        return await self._book.acknowledge(call.parameters["id"], call.caller.who, reason)

    async def silences(self, _: Call) -> SilenceList:
        now = self._clock.now()
        return SilenceList(silences=[s for s in await self._store.silences() if s.ends > now])

    async def silence(self, call: Call) -> Silence:
        asked, now = call.wire(SilenceRequest), self._clock.now()
        call.subject, call.detail = f"{asked.rule or '*'} {asked.subject or '*'}", asked.reason
        made = Silence(
            id=new_id(),
            rule=asked.rule,
            subject=asked.subject,
            reason=asked.reason,
            by=call.caller.who,
            begins=now,
            ends=now + asked.for_s,
        )
        return await self._book.silence(made)

    async def lift(self, call: Call) -> Silence:
        return await self._book.lift(call.parameters["id"], call.caller.who)

    async def channels(self, _: Call) -> ChannelList:
        queued, broken = await self._store.queued(), self._book.broken()
        return ChannelList(
            channels=[
                ChannelView(
                    name=each.name,
                    type=each.type,
                    queued=queued.get(each.name, 0),
                    failing=broken[each.name].reason if each.name in broken else "",
                    failing_since=broken[each.name].since if each.name in broken else None,
                )
                for each in self._configured
            ]
        )

    async def test(self, call: Call) -> Tested:
        """Past the queue: the answer says whether the receiver took it."""
        name = call.parameters["channel"]
        channel = self._channels.get(name)
        if channel is None:
            raise NotFoundError(
                f"no channel is called {name!r}",
                remedy="channels stand in alerts.toml in the coordinator's home: rollcall alert channels",
            )
        now, began = self._clock.now(), self._clock.monotonic()
        alert, event = sample_alert(now), request_id(call.caller.who, call.key)
        event = secrets.token_hex(16) if event is None else event[:32]
        await channel.send(Delivery(0, event, name, Change.TEST, alert, now))
        return Tested(channel=name, took_ms=round(1000 * (self._clock.monotonic() - began), 1))

    routes = (
        Route(
            "GET",
            "/v1/alerts",
            listing,
            Allows.VIEWER,
            "What people must see to, the worst first.",
            answer=AlertList,
        ),
        Route(
            "GET",
            "/v1/alerts/{id}",
            show,
            Allows.VIEWER,
            "One alert and its history.",
            parameters={"id": SHORT_ID},
            answer=AlertDetail,
            refusals=(404,),
        ),
        Route(
            "POST",
            "/v1/alerts/{id}/ack",
            acknowledge,
            Allows.OPERATOR,
            "Say that somebody has taken it on.",
            parameters={"id": SHORT_ID},
            body=AckRequest,
            answer=Alert,
            refusals=(404, 409),
            about=_acknowledged,
        ),
        Route(
            "GET",
            "/v1/alert-history",
            ended,
            Allows.VIEWER,
            "Alerts that are over, the latest first.",
            answer=AlertList,
            query=(Number("limit", 50, MAX_PAGE, "At most so many.", lowest=1),),
        ),
        Route(
            "GET",
            "/v1/alert-silences",
            silences,
            Allows.VIEWER,
            "Silences that are not over.",
            answer=SilenceList,
        ),
        Route(
            "POST",
            "/v1/alert-silences",
            silence,
            Allows.OPERATOR,
            "Do not tell of alerts of a rule or a subject for a time.",
            body=SilenceRequest,
            answer=Silence,
            success=(201,),
        ),
        Route(
            "DELETE",
            "/v1/alert-silences/{id}",
            lift,
            Allows.OPERATOR,
            "End a silence before its time.",
            parameters={"id": SHORT_ID},
            answer=Silence,
            refusals=(404, 409),
        ),
        Route(
            "GET",
            "/v1/alert-channels",
            channels,
            Allows.VIEWER,
            "Where alerts go, and whether they arrive.",
            answer=ChannelList,
        ),
        Route(
            "POST",
            "/v1/alert-channels/{channel}/test",
            test,
            Allows.OPERATOR,
            "Send a test to one channel, now.",
            parameters={"channel": CHANNEL_NAME},
            answer=Tested,
            refusals=(404, 502, 503),
        ),
    )
