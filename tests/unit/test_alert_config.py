"""`alerts.toml`: what is taken, and what is said of the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.alerts.channels import apprise_notify, make_channels
from coordinator.alerts.config import load_alerts_config
from coordinator.alerts.model import Severity
from shared.clock import SystemClock
from shared.durable import write_durable
from shared.errors import ConfigError
from tests.support.alertkit import HOOK, ORIGIN, configured, firing


def test_apprise_that_is_not_installed_is_named() -> None:
    with pytest.raises(ConfigError, match="there-is-no-such-module is not installed"):
        apprise_notify("phone", ["mailto://x"], "there-is-no-such-module")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("channel = 3", "channel"),
        ("[[channel", "is not TOML"),
        ('[[channel]]\nname = "x"\ntype = "fax"\n', "fax"),
        (HOOK.replace("{url}/hook", "http://example.org/"), "is not under TLS"),
        (HOOK.replace("{url}/hook", "file:///etc/passwd"), "is not an address"),
        (HOOK.format(url="https://user:pw@example.org"), "is not an address"),
        (HOOK.format(url="https://x.org") + "retries = 3\n", "retries"),
        (HOOK.format(url="https://x.org") + 'rules = ["rain"]\n', "'rain' is no rule"),
        (HOOK.format(url="https://x.org") * 2, "two channels are called 'ops'"),
        (HOOK.format(url="https://x.org").replace("ops.secret", "none"), "none does not exist"),
    ],
)
def test_a_configuration_that_is_wrong_says_where(tmp_path: Path, text: str, error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        make_channels(configured(tmp_path, text), tmp_path, ORIGIN, SystemClock())


def test_a_configuration_that_others_may_read_is_refused(tmp_path: Path) -> None:
    configured(tmp_path, HOOK.format(url="https://x.org"))
    (tmp_path / "alerts.toml").chmod(0o644)
    with pytest.raises(ConfigError, match="may be read by others"):
        load_alerts_config(tmp_path / "alerts.toml")


def test_a_secret_that_is_too_short_is_refused(tmp_path: Path) -> None:
    config = configured(tmp_path, HOOK.format(url="https://x.org"))
    write_durable(tmp_path / "ops.secret", b"short")
    with pytest.raises(ConfigError, match="fewer than 16"):
        make_channels(config, tmp_path, ORIGIN, SystemClock())


def test_a_channel_takes_what_it_wants(tmp_path: Path) -> None:
    text = HOOK.format(url="https://x.org") + 'min_severity = "high"\nrules = ["disk"]\n'
    (wants,) = (each.wants for each in configured(tmp_path, text).channel)
    disk = firing("disk").with_(severity=Severity.MEDIUM)
    assert not wants(disk)
    assert wants(disk.with_(severity=Severity.HIGH))
    assert not wants(firing("clock"))


def test_a_channel_is_not_told_that_it_fails_itself(tmp_path: Path) -> None:
    (made,) = configured(tmp_path, HOOK.format(url="https://x.org")).channel
    failing = firing("channel-failing")
    assert made.wants(failing)
    assert not made.wants(failing.with_(subject="ops"))
