"""`alerts.toml` in the coordinator's home: which channels there are. Secrets stand in files beside it."""

from __future__ import annotations

import ipaddress
import tomllib
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from coordinator.alerts.model import Alert, Severity
from coordinator.alerts.rules import RULES
from shared.durable import read_secret
from shared.durations import Duration
from shared.errors import ConfigError, RollcallError
from shared.wire import describe

MAX_CONFIG_BYTES = 1 << 18
CHANNEL_NAME = r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?"
LEAST_SECRET = 16


def _url(text: str) -> str:
    """Secrets and alerts go over TLS; without it only to this very host."""
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
        raise ValueError(f"{text!r} is not an address such as https://host/path")
    if parts.scheme == "http" and not _is_here(parts.hostname):
        raise ValueError(f"{text!r} is not under TLS; http:// is only for this host")
    return text


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _known(name: str) -> str:
    if name not in RULES:
        raise ValueError(f"{name!r} is no rule; there are {', '.join(sorted(RULES))}")
    return name


Url = Annotated[str, Field(max_length=2000), AfterValidator(_url)]


class _Channel(BaseModel):
    """Which alerts go there: from a severity on, and of these rules; of all where none is named."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=f"^{CHANNEL_NAME}$")]
    min_severity: Severity = Severity.LOW
    rules: Annotated[list[Annotated[str, AfterValidator(_known)]], Field(max_length=64)] = []

    def wants(self, alert: Alert) -> bool:
        """Whether it begins there. Its own failing is never told to a channel."""
        if alert.rule == "channel-failing" and alert.subject == self.name:
            return False
        enough = alert.severity.rank <= self.min_severity.rank
        return enough and (not self.rules or alert.rule in self.rules)


class WebhookChannel(_Channel):
    """CloudEvents, signed with the bytes of `secret_file`."""

    type: Literal["webhook"]
    url: Url
    secret_file: Path
    ca_file: Path | None = None


class AlertmanagerChannel(_Channel):
    """`url` is Alertmanager's own, without `/api`."""

    type: Literal["alertmanager"]
    url: Url
    bearer_file: Path | None = None
    ca_file: Path | None = None
    resend: Annotated[Duration, Field(ge=1, le=3600)] = 60.0
    """How often what has not ended is sent again. It is good for four times as long."""


class PagerDutyChannel(_Channel):
    type: Literal["pagerduty"]
    routing_key_file: Path
    url: Url = "https://events.pagerduty.com/v2/enqueue"
    ca_file: Path | None = None


class AppriseChannel(_Channel):
    """`urls_file` holds one address of Apprise's in each line; they contain secrets."""

    type: Literal["apprise"]
    urls_file: Path


ChannelConfig = Annotated[
    WebhookChannel | AlertmanagerChannel | PagerDutyChannel | AppriseChannel,
    Field(discriminator="type"),
]


class AlertsConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    channel: Annotated[list[ChannelConfig], Field(max_length=32)] = []


def load_alerts_config(path: Path) -> AlertsConfig:
    """No channels where there is no file. Raises ConfigError that names the file and the place in it. Blocking."""
    if not path.exists():
        return AlertsConfig()
    try:
        text = read_secret(path, max_bytes=MAX_CONFIG_BYTES).decode()
        config = AlertsConfig.model_validate(tomllib.loads(text))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    except ValidationError as error:
        raise ConfigError(f"{path}: {describe(error)}") from error
    except RollcallError as error:
        raise ConfigError(error.message, remedy=error.remedy) from error
    names = [each.name for each in config.channel]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{path}: two channels are called {name!r}")
    return config


def channel_secret(home: Path, file: Path, channel: str) -> bytes:
    """A file that the configuration names; relatively it lies in the home. Raises ConfigError. Blocking."""
    path = home / file
    try:
        secret = read_secret(path).strip()
    except RollcallError as error:
        raise ConfigError(f"channel {channel}: {error.message}", remedy=error.remedy) from error
    if len(secret) < LEAST_SECRET:
        raise ConfigError(
            f"channel {channel}: {path} holds fewer than {LEAST_SECRET} characters",
            remedy="make a secret with: openssl rand -hex 32",
        )
    return secret
