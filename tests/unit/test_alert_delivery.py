"""Alerts on their way to receivers: real HTTP on loopback, a real database, and the real Alertmanager."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import trustme

from coordinator.alerts.channels import (
    Apprise,
    Channel,
    make_channels,
)
from coordinator.alerts.courier import GIVE_UP_S, Courier
from coordinator.alerts.formats import pagerduty_event
from coordinator.alerts.ledger import Step
from coordinator.alerts.model import Acknowledgement, Alert, AlertState, Change, Severity
from coordinator.store.alerts import MAX_QUEUED, AlertStore, Delivery
from coordinator.store.database import Database
from scripts.debian import need
from shared.clock import SystemClock
from shared.errors import (
    BadInputError,
    ExpiredError,
    RollcallError,
    UnavailableError,
    UntrustedError,
)
from shared.http import RefusedError
from shared.webhook import SIGNATURE, TIMESTAMP, sign_webhook, verify_webhook
from tests.conftest import ManualClock
from tests.support.alertkit import (
    HOOK,
    ORIGIN,
    SECRET,
    Receiver,
    configured,
    firing,
    real_alertmanager,
    receiving,
)

PAGER = '[[channel]]\nname = "duty"\ntype = "pagerduty"\nurl = "{url}/v2/enqueue"\nrouting_key_file = "ops.secret"\n'
MANAGER = '[[channel]]\nname = "am"\ntype = "alertmanager"\nurl = "{url}"\nresend = "1s"\n'


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[AlertStore]:
    database = await Database.open(tmp_path / "coordinator.db")
    yield AlertStore(database)
    await database.close()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as made:
        yield made


@contextlib.asynccontextmanager
async def channel(home: Path, text: str, clock: Any) -> AsyncIterator[Channel]:
    config = await asyncio.to_thread(configured, home, text)
    (made,) = await asyncio.to_thread(make_channels, config, home, ORIGIN, clock)
    yield made
    await made.close()


async def queue(store: AlertStore, *told: tuple[Change, Alert], to: str = "ops") -> None:
    tells = [(to, change, alert) for change, alert in told]
    await store.apply(Step(changed=[alert for _, alert in told], told=tells), 1.8e9)


def over(alert: Alert) -> Alert:
    return alert.with_(state=AlertState.ENDED, ended=alert.seen + 60)


async def test_a_webhook_is_a_signed_cloud_event(
    tmp_path: Path, store: AlertStore, receiver: Receiver, clock: ManualClock
) -> None:
    async with channel(tmp_path, HOOK.format(url=receiver.url), clock) as made:
        await queue(store, (Change.FIRING, firing()))
        assert await Courier(made, store, clock).step()
    (got,) = receiver.received
    assert got.path == "/hook"
    assert got.headers["Content-Type"] == "application/cloudevents+json"
    verify_webhook(SECRET, got.headers, got.body, clock.now())
    event = got.json
    assert {key: event[key] for key in ("specversion", "type", "source", "subject")} == {
        "specversion": "1.0",
        "type": "io.rollcall.alert.firing",
        "source": f"urn:rollcall:fleet:{'f' * 64}",
        "subject": "red-open/canary",
    }
    assert event["data"]["summary"] == "canary is red"
    assert event["time"].startswith("2027-01-15T08:00:00")
    assert await store.queued() == {}


def test_a_webhook_of_somebody_else_or_another_time_is_refused() -> None:
    body = b"{}"
    headers = sign_webhook(SECRET, body, 1000)
    verify_webhook(SECRET, headers, body, 1299)
    verify_webhook(SECRET, {key.lower(): value for key, value in headers.items()}, body, 1000)
    for secret, said, text in (
        (b"other", headers, body),
        (SECRET, headers, b"{ }"),
        (SECRET, {**headers, TIMESTAMP: "1001"}, body),
        (SECRET, {TIMESTAMP: "1000"}, body),
        (SECRET, {**headers, SIGNATURE: "v1=\udcff"}, body),
    ):
        with pytest.raises(UntrustedError, match="signature"):
            verify_webhook(secret, said, text, 1000)
    with pytest.raises(ExpiredError):
        verify_webhook(SECRET, headers, body, 1301)


async def test_what_fails_is_tried_again_in_order_with_the_same_id(
    tmp_path: Path, store: AlertStore, receiver: Receiver, clock: ManualClock
) -> None:
    receiver.answers = [503, 429, 404]
    async with channel(tmp_path, HOOK.format(url=receiver.url), clock) as made:
        courier = Courier(made, store, clock)
        await queue(store, (Change.FIRING, firing()), (Change.RESOLVED, over(firing())))
        for _ in range(3):
            with pytest.raises(RefusedError):
                await courier.step()
        waiting = await store.next_for("ops")
        assert waiting is not None
        assert (waiting.attempts, waiting.error) == (3, "HTTP 404")
        while await courier.step():
            pass
    types = [got.json["type"].rpartition(".")[2] for got in receiver.received]
    assert types == ["firing"] * 4 + ["resolved"]
    assert len({got.json["id"] for got in receiver.received}) == 2


async def test_the_queue_is_there_after_a_restart(
    tmp_path: Path, receiver: Receiver, clock: ManualClock
) -> None:
    async with channel(tmp_path, HOOK.format(url=receiver.url), clock) as made:
        for delivers in (False, True):
            database = await Database.open(tmp_path / "coordinator.db")
            store = AlertStore(database)
            if delivers:
                assert await Courier(made, store, clock).step()
            else:
                await queue(store, (Change.FIRING, firing()))
            await database.close()
    assert len(receiver.received) == 1


async def test_what_the_receiver_cannot_read_is_given_up_at_once(
    tmp_path: Path, store: AlertStore, receiver: Receiver, clock: ManualClock
) -> None:
    receiver.answers = [400]
    async with channel(tmp_path, HOOK.format(url=receiver.url), clock) as made:
        await queue(store, (Change.FIRING, firing()))
        courier = Courier(made, store, clock)
        assert await courier.step()
        assert not await courier.step()
    assert len(receiver.received) == 1


async def test_what_is_a_day_old_is_given_up(
    tmp_path: Path, store: AlertStore, receiver: Receiver, clock: ManualClock
) -> None:
    receiver.answers = [503]
    async with channel(tmp_path, HOOK.format(url=receiver.url), clock) as made:
        await queue(store, (Change.FIRING, firing()))
        clock.advance(GIVE_UP_S + 1)
        with pytest.raises(RefusedError):
            await Courier(made, store, clock).step()
    assert await store.next_for("ops") is None


async def test_a_receiver_is_believed_under_an_authority_that_is_named_and_no_other(
    tmp_path: Path, store: AlertStore, clock: ManualClock
) -> None:
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    async with receiving(tls) as receiver:
        text = HOOK.format(url=receiver.url)
        await queue(store, (Change.FIRING, firing()))
        async with channel(tmp_path, text, clock) as made:
            with pytest.raises(UnavailableError, match="certificate"):
                await Courier(made, store, clock).step()
        async with channel(tmp_path, text + 'ca_file = "ca.pem"\n', clock) as made:
            assert await Courier(made, store, clock).step()
        assert len(receiver.received) == 1


@pytest.mark.parametrize(
    ("status", "error"), [(302, "redirect"), (299, "more than")], ids=["redirect", "large"]
)
async def test_answers_that_lead_elsewhere_or_have_no_end_count_as_failures(
    tmp_path: Path,
    store: AlertStore,
    receiver: Receiver,
    clock: ManualClock,
    status: int,
    error: str,
) -> None:
    receiver.answers = [status]
    async with channel(tmp_path, HOOK.format(url=receiver.url), clock) as made:
        await queue(store, (Change.FIRING, firing()))
        with pytest.raises(BadInputError, match=error):
            await Courier(made, store, clock).step()
    assert len(receiver.received) == 1, "nobody went where it pointed"


async def test_a_dead_receiver_holds_up_nobody_else(
    tmp_path: Path, store: AlertStore, receiver: Receiver
) -> None:
    """One hangs in the middle of an answer; the other has its alert while that goes on."""
    receiver.answers = [0]
    clock = SystemClock()
    async with (
        receiving() as other,
        channel(tmp_path, HOOK.format(url=receiver.url), clock) as hangs,
    ):
        good = HOOK.format(url=other.url).replace('"ops"', '"good"')
        async with channel(tmp_path, good, clock) as works:
            alert = firing()
            both = [(name, Change.FIRING, alert) for name in ("ops", "good")]
            await store.apply(Step(changed=[alert], told=both), clock.now())
            tasks = [
                asyncio.create_task(Courier(each, store, clock).run()) for each in (hangs, works)
            ]
            await receiver.hangs.wait()
            async with asyncio.timeout(60):
                while await store.queued() != {"ops": 1}:
                    await asyncio.sleep(0.01)
            assert len(other.received) == 1
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def test_the_courier_waits_longer_each_time_and_says_that_it_is_broken(
    tmp_path: Path, store: AlertStore, receiver: Receiver, clock: ManualClock
) -> None:
    receiver.answers = [503, 503]
    async with channel(tmp_path, HOOK.format(url=receiver.url), clock) as made:
        courier = Courier(made, store, clock)
        await queue(store, (Change.FIRING, firing()))
        task = asyncio.create_task(courier.run())
        for number, pause in ((1, 1.3), (2, 2.5)):
            await receiver.until(number)
            await until(lambda: clock.awaited)
            assert courier.broken is not None
            assert courier.broken.reason == "HTTP 503"
            clock.advance(pause)
        await receiver.until(3)
        await until(lambda: courier.broken is None)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Odd:
    """A channel with a fault of its own."""

    name = "ops"
    resend_s: float | None = None

    async def send(self, _: Delivery) -> None:
        raise ValueError("cannot be")

    async def refresh(self, _: Sequence[Alert]) -> None:
        raise AssertionError("never wanted")

    async def close(self) -> None:
        raise AssertionError("never opened")


async def test_a_fault_of_a_channel_ends_nothing_else(
    store: AlertStore, clock: ManualClock
) -> None:
    await queue(store, (Change.FIRING, firing()))
    with pytest.raises(RollcallError, match="ValueError: cannot be"):
        await Courier(Odd(), store, clock).step()
    waiting = await store.next_for("ops")
    assert waiting is not None
    assert (waiting.attempts, waiting.error) == (1, "ValueError: cannot be")


async def until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.01)


async def test_a_queue_has_a_bound_and_keeps_the_ends(store: AlertStore) -> None:
    await queue(store, (Change.RESOLVED, over(firing())))
    alert = firing()
    for start in range(0, MAX_QUEUED, 100):
        ends = min(start + 100, MAX_QUEUED)
        await queue(store, *[(Change.FIRING, alert)] * (ends - start))
    assert await store.queued() == {"ops": MAX_QUEUED}
    first = await store.next_for("ops")
    assert first is not None
    assert first.change is Change.RESOLVED


async def test_channels_that_are_gone_leave_nothing_behind(store: AlertStore) -> None:
    await queue(store, (Change.FIRING, firing()))
    assert await store.keep_channels(["other"]) == 1
    assert await store.queued() == {}


async def test_pagerduty_has_one_incident_from_trigger_to_resolve(
    tmp_path: Path, store: AlertStore, receiver: Receiver, clock: ManualClock
) -> None:
    alert = firing()
    taken = alert.with_(acknowledged=Acknowledgement(at=1.8e9, by="me"))
    async with channel(tmp_path, PAGER.format(url=receiver.url), clock) as made:
        changes = (
            (Change.FIRING, alert),
            (Change.ACKNOWLEDGED, taken),
            (Change.RESOLVED, over(taken)),
        )
        await queue(store, *changes, to="duty")
        while await Courier(made, store, clock).step():
            pass
    events = [got.json for got in receiver.received]
    assert [each["event_action"] for each in events] == ["trigger", "acknowledge", "resolve"]
    assert len({each["dedup_key"] for each in events}) == 1
    assert {each["routing_key"] for each in events} == {SECRET.decode()}
    payload = events[0]["payload"]
    assert (payload["severity"], payload["source"]) == ("critical", "canary")
    assert "payload" not in events[2]


@pytest.mark.parametrize(
    ("severity", "theirs"),
    [
        (Severity.CRITICAL, "critical"),
        (Severity.HIGH, "error"),
        (Severity.MEDIUM, "warning"),
        (Severity.LOW, "info"),
    ],
)
def test_pagerduty_has_other_words_for_severities(severity: Severity, theirs: str) -> None:
    alert = firing().with_(severity=severity)
    event = pagerduty_event(ORIGIN, "key", Change.FIRING, alert)
    assert event["payload"]["severity"] == theirs


async def test_the_real_alertmanager_knows_the_alert_from_begin_to_end(
    tmp_path: Path, store: AlertStore
) -> None:
    """It is sent again before it times out, and its end is at once an end."""
    await asyncio.to_thread(need, "prometheus-alertmanager", "prometheus-alertmanager")
    clock = SystemClock()
    alert = firing(now=clock.now())
    async with (
        real_alertmanager(tmp_path) as manager,
        channel(tmp_path, MANAGER.format(url=manager.url), clock) as made,
    ):
        courier = Courier(made, store, clock)
        await queue(store, (Change.FIRING, alert), to="am")
        task = asyncio.create_task(courier.run())
        first = await held(manager.alerts, 1)
        assert first["labels"]["alertname"] == "red-open"
        assert first["annotations"]["summary"] == "canary is red"
        assert first["status"]["state"] == "active"
        await asyncio.sleep(2.5)
        again = await held(manager.alerts, 1)
        assert again["endsAt"] > first["endsAt"], "it was sent again"
        ended = alert.with_(state=AlertState.ENDED, ended=clock.now())
        await queue(store, (Change.RESOLVED, ended), to="am")
        courier.wake()
        await held(manager.alerts, 0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_alertmanager_ends_by_itself_what_is_not_sent_again(
    tmp_path: Path, store: AlertStore
) -> None:
    """The coordinator is gone: nobody is left with an alert for ever."""
    await asyncio.to_thread(need, "prometheus-alertmanager", "prometheus-alertmanager")
    clock = SystemClock()
    async with (
        real_alertmanager(tmp_path) as manager,
        channel(tmp_path, MANAGER.format(url=manager.url), clock) as made,
    ):
        await queue(store, (Change.FIRING, firing(now=clock.now())), to="am")
        assert await Courier(made, store, clock).step()
        await held(manager.alerts, 1)
        await held(manager.alerts, 0)


async def held(ask: Callable[[], Any], number: int) -> dict[str, Any]:
    async with asyncio.timeout(60):
        while len(found := await ask()) != number:
            await asyncio.sleep(0.05)
    return found[0] if found else {}


async def test_apprise_is_asked_in_a_thread_of_its_own() -> None:
    said: list[tuple[str, str]] = []

    def notify(title: str, body: str) -> bool:
        said.append((title, body))
        return len(said) > 1

    made = Apprise("phone", notify, ORIGIN)
    delivery = Delivery(1, "e", "phone", Change.FIRING, firing(), 1.8e9)
    with pytest.raises(UnavailableError, match="could not reach"):
        await made.send(delivery)
    await made.send(delivery)
    await made.close()
    assert said[1] == ("[test] firing: canary is red", "critical red-open [0000000a]\nwhy")


async def test_nobody_answers(tmp_path: Path, store: AlertStore, clock: ManualClock) -> None:
    async with channel(tmp_path, HOOK.format(url="http://127.0.0.1:1"), clock) as made:
        await queue(store, (Change.FIRING, firing()))
        with pytest.raises(RollcallError, match="no answer"):
            await Courier(made, store, clock).step()
