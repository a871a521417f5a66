from __future__ import annotations

from pathlib import Path

import pytest

from agent.config import AgentConfig, InstallerKind, load_config, parse_static
from agent.peers.directory import Directory, Found, Hint
from coordinator.cli.client import load_client_config
from shared.durations import parse_duration
from shared.errors import ConfigError

GOOD = """
[gateway]
home = "/Users/fleet"
port = 18789
[openclaw]
node = "/opt/node/bin/node"
npm = "/opt/node/lib/node_modules/npm/bin/npm-cli.js"
[peers]
sync_every = "2m"
"""
COMPOSE = '[openclaw.compose]\ncheckout = "/srv/openclaw"\n'


def load(tmp_path: Path, text: str) -> AgentConfig:
    path = tmp_path / "agent.toml"
    path.write_text(text)
    return load_config(path)


def test_a_small_file_is_enough_and_guards_have_seed_001s_defaults(tmp_path: Path) -> None:
    config = load(tmp_path, GOOD)
    assert config.guards.memory_bytes == 4 << 30
    assert config.peers.sync_every == 120
    assert config.gateway.state == Path("/Users/fleet/.openclaw")


def test_an_installer_has_a_section_with_defaults(tmp_path: Path) -> None:
    text = GOOD.replace("[openclaw]", '[openclaw]\ninstaller = "compose"') + COMPOSE
    config = load(tmp_path, text).openclaw
    assert config.compose is not None
    assert config.compose.tag.format(version="2026.9.6") == "v2026.9.6"
    assert load(tmp_path, GOOD).openclaw.installer is InstallerKind.STAGED


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD + "[guard]\n", "unknown key 'guard'; the nearest known key is 'guards'"),
        (
            GOOD.replace("port =", "prot ="),
            "unknown key 'gateway.prot'; the nearest known key is 'port'",
        ),
        (GOOD.replace("18789", "99999"), "gateway.port"),
        (GOOD.replace('"2m"', '"soon"'), "not a duration"),
        (GOOD + 'static = ["b"]\n', "NAME=HOST:PORT"),
        (GOOD.replace('node = "/opt', 'nodes = "/opt'), "openclaw.node"),
        ("[gateway\n", "not TOML"),
        (GOOD + '[hooks]\nfreeze = ["notify"]\n', "'notify' is not an absolute path"),
        (GOOD + '[hooks]\nfreeze = ["/bin/x"]\nfreeze_timeout = "0s"\n', "hooks.freeze_timeout"),
        (GOOD + "[api]\nagent_check_port = 65536\n", "api.agent_check_port"),
        (GOOD.replace("[openclaw]", '[openclaw]\ninstaller = "brew"'), "openclaw.installer"),
        (GOOD.replace("[openclaw]", '[openclaw]\ninstaller = "native"'), "needs [openclaw.native]"),
        (GOOD.replace("[openclaw]", "[openclaw]\ndisk_watermark = 10"), "write 10%, 500MiB"),
        (GOOD + COMPOSE + 'tag = "--x{version}"\n', "openclaw.compose.tag"),
        (GOOD + COMPOSE + 'tag = "latest"\n', "openclaw.compose.tag"),
        (GOOD + COMPOSE + 'remote = "--upload-pack=x"\n', "openclaw.compose.remote"),
        (GOOD + COMPOSE + 'files = ["../x.yml"]\n', "is not a file in the checkout"),
        (GOOD + COMPOSE + 'files = ["-x"]\n', "is not a file in the checkout"),
    ],
)
def test_a_wrong_file_is_named_with_its_key_and_the_nearest_one(
    tmp_path: Path, text: str, said: str
) -> None:
    """Fault 7."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert said in str(caught.value)
    assert str(tmp_path / "agent.toml") in str(caught.value)


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load_config(tmp_path / "agent.toml")
    with pytest.raises(ConfigError, match=r"operator\.toml"):
        load_client_config(tmp_path / "config.toml")


@pytest.mark.parametrize(
    ("text", "seconds"), [("45s", 45), ("1.5m", 90), ("2h", 7200), ("1d", 86400), (3, 3)]
)
def test_durations(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "-5s", "5 minutes", "1h30m", True])
def test_what_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


def test_hints_are_capped_and_the_last_good_one_is_first() -> None:
    directory = Directory()
    fixed = Hint("10.0.0.9", 7465, Found.STATIC)
    directory.learn("b", fixed)
    for port in range(1, 30):
        directory.learn("b", Hint("10.0.0.1", port, Found.MDNS))
    assert len(directory.candidates("b")) == 9
    assert fixed in directory.candidates("b"), "strangers do not push out what an operator wrote"
    good = directory.candidates("b")[5]
    directory.reached("b", good)
    assert directory.candidates("b")[0] == good
    assert directory.how("b") == "mdns"
    assert directory.how("c") == ""
    for number in range(5000):
        directory.learn(f"n{number}", Hint("10.0.0.1", 1, Found.MDNS))
    assert len(directory._hints) <= 1024


def test_what_peers_are_told_is_an_address(tmp_path: Path) -> None:
    told = GOOD + 'advertise = "fd00::7"\ninterfaces = ["en0", "10.0.0.7"]\n'
    assert load(tmp_path, told).peers.advertise == "fd00::7"
    with pytest.raises(ConfigError, match=r"peers\.advertise"):
        load(tmp_path, told.replace("fd00::7", "node.lan"))


def test_static_peers() -> None:
    assert parse_static("b=[fe80::1]:7465") == ("b", "fe80::1", 7465)
    for text in ("b", "b=host", "=host:1", "b=:1", "b=host:x"):
        with pytest.raises(ValueError, match="NAME=HOST:PORT"):
            parse_static(text)


def test_tenants_are_profiles_of_openclaw(tmp_path: Path) -> None:
    named = GOOD.replace("port =", 'tenants = ["t1", "acme-2"]\nport =')
    assert load(tmp_path, named).gateway.tenants == ["t1", "acme-2"]
    assert load(tmp_path, GOOD).gateway.tenants == []
    for wrong in ("T1", "../t1", "--fix", "", "default", "gateway", "node", "a" * 65):
        with pytest.raises(ConfigError, match=r"gateway\.tenants"):
            load(tmp_path, named.replace('"t1"', f'"{wrong}"'))
    with pytest.raises(ConfigError, match="named twice"):
        load(tmp_path, named.replace("acme-2", "t1"))
