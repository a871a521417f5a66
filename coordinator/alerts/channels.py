"""Receivers of alerts. Each sends one delivery, or raises what kept it from that; queues and retries are courier's."""

from __future__ import annotations

import asyncio
import importlib
import ssl
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import aiohttp

from coordinator.alerts.config import (
    AlertmanagerChannel,
    AlertsConfig,
    AppriseChannel,
    ChannelConfig,
    PagerDutyChannel,
    WebhookChannel,
    channel_secret,
)
from coordinator.alerts.formats import (
    Origin,
    alertmanager_alert,
    cloud_event,
    pagerduty_event,
    plain_text,
)
from coordinator.alerts.model import Alert
from coordinator.store.alerts import Delivery
from shared.canonical import canonical_json
from shared.clock import Clock
from shared.errors import ConfigError, UnavailableError
from shared.http import call, session
from shared.webhook import sign_webhook

SEND_TIMEOUT_S = 10.0
MAX_ANSWER = 64 << 10
LASTS = 4
"""So many times the pause between two sendings an alert is good for at Alertmanager."""
MAX_BATCH = 500
PER_HOST = 2


class Channel(Protocol):
    """`resend_s` is how often `refresh` is wanted; None for never."""

    name: str
    resend_s: float | None

    async def send(self, delivery: Delivery) -> None:
        """Raises RollcallError when the receiver did not take it."""
        ...

    async def refresh(self, alerts: Sequence[Alert]) -> None:
        """Say again what has not ended. Raises as `send` does."""
        ...

    async def close(self) -> None: ...


class _Http:
    """One session for each channel: receivers that hang hold up nobody else's connections."""

    resend_s: float | None = None

    def __init__(self, name: str, url: str, context: ssl.SSLContext) -> None:
        self.name, self._url, self._context = name, url, context
        self._client: aiohttp.ClientSession | None = None

    async def post(self, body: bytes, headers: dict[str, str], path: str = "") -> None:
        """TLS is verified, redirects are not followed, answers and time are bounded."""
        if self._client is None:
            self._client = session(context=self._context, per_host=PER_HOST, speaks=None)
        await call(
            self._client,
            "POST",
            self._url + path,
            data=body,
            headers=headers,
            timeout_s=SEND_TIMEOUT_S,
            max_answer=MAX_ANSWER,
        )

    async def refresh(self, _: Sequence[Alert]) -> None:
        """Nothing to say again."""

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()


class Webhook(_Http):
    def __init__(
        self,
        config: WebhookChannel,
        secret: bytes,
        context: ssl.SSLContext,
        origin: Origin,
        clock: Clock,
    ) -> None:
        super().__init__(config.name, config.url, context)
        self._secret, self._origin, self._clock = secret, origin, clock

    async def send(self, delivery: Delivery) -> None:
        event = cloud_event(
            self._origin, delivery.event, delivery.change, delivery.alert, delivery.queued
        )
        body = canonical_json(event)
        signed = sign_webhook(self._secret, body, self._clock.now())
        await self.post(body, {"Content-Type": "application/cloudevents+json", **signed})


class Alertmanager(_Http):
    def __init__(
        self,
        config: AlertmanagerChannel,
        bearer: bytes | None,
        context: ssl.SSLContext,
        origin: Origin,
        clock: Clock,
    ) -> None:
        super().__init__(config.name, config.url.rstrip("/"), context)
        self.resend_s = config.resend
        self._lasts_s = LASTS * config.resend
        self._bearer, self._origin, self._clock = bearer, origin, clock

    async def send(self, delivery: Delivery) -> None:
        await self._say([delivery.alert])

    async def refresh(self, alerts: Sequence[Alert]) -> None:
        for start in range(0, len(alerts), MAX_BATCH):
            await self._say(alerts[start : start + MAX_BATCH])

    async def _say(self, alerts: Sequence[Alert]) -> None:
        now = self._clock.now()
        value = [alertmanager_alert(self._origin, each, now, self._lasts_s) for each in alerts]
        headers = {"Content-Type": "application/json"}
        if self._bearer is not None:
            headers["Authorization"] = f"Bearer {self._bearer.decode()}"
        await self.post(canonical_json(value), headers, "/api/v2/alerts")


class PagerDuty(_Http):
    def __init__(
        self, config: PagerDutyChannel, key: bytes, context: ssl.SSLContext, origin: Origin
    ) -> None:
        super().__init__(config.name, config.url, context)
        self._key, self._origin = key.decode(), origin

    async def send(self, delivery: Delivery) -> None:
        event = pagerduty_event(self._origin, self._key, delivery.change, delivery.alert)
        await self.post(canonical_json(event), {"Content-Type": "application/json"})


class Apprise:
    """`notify` blocks, and returns False when somebody did not take it. It has a thread of its own: one that hangs
    leaves the coordinator's threads alone."""

    resend_s: float | None = None

    def __init__(self, name: str, notify: Callable[[str, str], bool], origin: Origin) -> None:
        self.name, self._notify, self._origin = name, notify, origin
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"alerts-{name}")

    async def send(self, delivery: Delivery) -> None:
        title, body = plain_text(self._origin, delivery.change, delivery.alert)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                taken = await loop.run_in_executor(self._thread, self._notify, title, body)
        except TimeoutError:
            raise UnavailableError(f"apprise did not return in {SEND_TIMEOUT_S:g} s") from None
        except Exception as error:  # its plug-ins raise what they like
            raise UnavailableError(f"apprise failed: {error}") from error
        if not taken:
            raise UnavailableError("apprise could not reach all its addresses")

    async def refresh(self, _: Sequence[Alert]) -> None:
        """Nothing to say again."""

    async def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)


def make_channels(config: AlertsConfig, home: Path, origin: Origin, clock: Clock) -> list[Channel]:
    """Raises ConfigError that names the channel. Blocking: it reads the secrets."""
    return [_make(each, home, origin, clock) for each in config.channel]


def _make(config: ChannelConfig, home: Path, origin: Origin, clock: Clock) -> Channel:
    if isinstance(config, AppriseChannel):
        lines = channel_secret(home, config.urls_file, config.name).decode().splitlines()
        return Apprise(config.name, apprise_notify(config.name, lines), origin)
    context = _context(home, config)
    if isinstance(config, WebhookChannel):
        secret = channel_secret(home, config.secret_file, config.name)
        return Webhook(config, secret, context, origin, clock)
    if isinstance(config, PagerDutyChannel):
        key = channel_secret(home, config.routing_key_file, config.name)
        return PagerDuty(config, key, context, origin)
    bearer = config.bearer_file
    token = None if bearer is None else channel_secret(home, bearer, config.name)
    return Alertmanager(config, token, context, origin, clock)


def _context(
    home: Path, config: WebhookChannel | AlertmanagerChannel | PagerDutyChannel
) -> ssl.SSLContext:
    """The host's own authorities, or only those of `ca_file`."""
    file = None if config.ca_file is None else home / config.ca_file
    try:
        return ssl.create_default_context(cafile=file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"channel {config.name}: {file} cannot be used: {error}") from error


def apprise_notify(
    channel: str, urls: Sequence[str], module: str = "apprise"
) -> Callable[[str, str], bool]:
    """Raises ConfigError where Apprise is not installed, or does not know an address."""
    try:
        apprise: Any = importlib.import_module(module)
    except ImportError:
        raise ConfigError(
            f"channel {channel}: {module} is not installed",
            remedy="install rollcall with the extra: rollcall[coordinator,apprise]",
        ) from None
    told = apprise.Apprise()
    for number, url in enumerate((each.strip() for each in urls), start=1):
        if url and not told.add(url):
            raise ConfigError(f"channel {channel}: line {number} is no address that Apprise knows")

    def notify(title: str, body: str) -> bool:
        return bool(told.notify(title=title, body=body))

    return notify
