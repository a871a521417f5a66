"""`agent.toml`: fragments in, validated settings out. Nothing downstream sees raw text."""

from __future__ import annotations

import ipaddress
import tomllib
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from agent.layout import Layout
from agent.readiness.config import GuardConfig, ProbeConfig
from agent.section import Section
from agent.workerconfig import WorkerConfig
from shared.account import Account
from shared.durations import Duration
from shared.errors import ConfigError
from shared.npm import NodeTools
from shared.sizes import Watermark, WatermarkText
from shared.wire import NodeName


class ApiConfig(Section):
    """Where load balancers and people read readiness. Plain HTTP; nothing here changes anything."""

    host: str = "127.0.0.1"
    port: int = Field(default=7464, ge=0, le=65535)
    agent_check_port: int | None = Field(default=None, ge=0, le=65535)
    """Where HAProxy's `agent-check` asks; nowhere when absent."""
    agent_check_host: str | None = None
    """`host` when absent."""


class PeerConfig(Section):
    host: str = "::"
    """Where the door for peers listens: every address of both families. Mutual TLS guards it."""
    port: int = Field(default=7465, ge=0, le=65535)
    advertise: str | None = None
    """Address told to peers, over mDNS and otherwise; those of the interfaces when absent."""
    static: list[str] = Field(default=[], max_length=512)
    mdns: bool = True
    interfaces: list[Annotated[str, Field(min_length=1, max_length=64)]] = Field(
        default=[], max_length=16
    )
    """Names or addresses of the interfaces to use for mDNS and to be reached on; when empty all that carry
    multicast."""
    sync_every: Duration = 30.0
    """How often to compare open reds with each peer."""
    probes: int = Field(default=3, ge=1, le=16)
    """How many peers are asked each second whether they are there, and how many others are asked to try one that
    does not answer."""
    full_mesh_below: int = Field(default=200, ge=2, le=250)
    """In a fleet of fewer nodes every pair keeps a connection; in a larger one each node keeps `links` of them."""
    links: int = Field(default=12, ge=4, le=64, multiple_of=2)
    """With how many peers a node of a large fleet keeps connections. The same on every node."""

    @field_validator("advertise")
    @classmethod
    def _is_address(cls, text: str | None) -> str | None:
        if text is not None:
            ipaddress.ip_address(text)
        return text

    @field_validator("static")
    @classmethod
    def _are_peers(cls, texts: list[str]) -> list[str]:
        for text in texts:
            parse_static(text)
        return texts


Tenant = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
"""The name of a profile of OpenClaw."""
NO_TENANTS = {"default", "gateway", "node"}
"""`default` is the gateway's own state; the others OpenClaw keeps for itself."""


class GatewayConfig(Section):
    """The OpenClaw service this agent keeps."""

    home: Path
    """HOME of the gateway; its state is in `<home>/.openclaw`."""
    user: str | None = None
    """The account that npm, Doctor and the gateway run as. Root's agent must be told; any other agent
    can only be told its own."""
    port: int = Field(ge=1, le=65535)
    workspaces: list[Path] = []
    """Agent workspaces outside the state directory: copied and restored with it."""
    tenants: Annotated[list[Tenant], Field(max_length=32)] = []
    """OpenClaw's profiles on this node besides its own state: each has `<home>/.openclaw-NAME`, and a Doctor."""
    ready_timeout: Duration = 300.0
    stop_timeout: Duration = 30.0

    @field_validator("tenants")
    @classmethod
    def _are_profiles(cls, names: list[str]) -> list[str]:
        for name in names:
            if name in NO_TENANTS:
                raise ValueError(f"{name!r} is no profile of a tenant")
            if names.count(name) > 1:
                raise ValueError(f"{name!r} is named twice")
        return names

    @property
    def state(self) -> Path:
        return self.home / ".openclaw"


class ServiceKind(StrEnum):
    """Who keeps the gateway running: the agent itself, or the system's service manager."""

    PROCESS = "process"
    LAUNCHD = "launchd"
    SYSTEMD = "systemd"


class ServiceConfig(Section):
    """The gateway's job. What is left out follows from `kind`."""

    kind: ServiceKind = ServiceKind.PROCESS
    label: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    """launchd's label, or the name of systemd's unit. `ai.openclaw.…` is OpenClaw's own LaunchAgent, whose
    plist is left alone."""
    domain: str | None = Field(default=None, pattern=r"^(system|gui/[0-9]{1,10})$")
    """launchd's: `system`, or `gui/<uid>`, which exists only after that user has logged in."""
    plist: Path | None = None

    def job_label(self) -> str:
        return self.label or "io.rollcall.gateway"

    def job_domain(self) -> str:
        return self.domain or "system"

    def unit_name(self) -> str:
        return f"{(self.label or 'rollcall-gateway').removesuffix('.service')}.service"

    @model_validator(mode="after")
    def _fits(self) -> Self:
        """A key that this kind would not read is a mistake somebody should hear of."""
        read = {ServiceKind.LAUNCHD: ("label", "domain", "plist"), ServiceKind.SYSTEMD: ("label",)}
        for key in ("label", "domain", "plist"):
            if getattr(self, key) is not None and key not in read.get(self.kind, ()):
                raise ValueError(f"{key} means nothing where kind is {self.kind}")
        if self.job_label().startswith("ai.openclaw.") and self.domain in (None, "system"):
            raise ValueError("a job of OpenClaw's own is in a domain gui/<uid>: name it in domain")
        if self.plist is not None and not self.plist.is_absolute():
            raise ValueError(f"plist {str(self.plist)!r} is not an absolute path")
        return self


class InstallerKind(StrEnum):
    STAGED = "staged"
    NATIVE = "native"
    COMPOSE = "compose"


class NativeConfig(Section):
    """For `installer = "native"`: OpenClaw installed with `npm install -g` and updated by itself."""

    prefix: Path
    """npm's global prefix; the package is in `<prefix>/lib/node_modules/openclaw`."""
    update_timeout: Duration = 1800.0


class ComposeConfig(Section):
    """For `installer = "compose"`: a git checkout of OpenClaw with its docker compose files."""

    checkout: Path
    """Work tree whose tags are releases. The state directory is mounted from `<gateway.home>/.openclaw`."""
    remote: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] = "origin"
    tag: Annotated[
        str,
        Field(pattern=r"^(?:[A-Za-z0-9][A-Za-z0-9._/-]{0,31})?\{version\}[A-Za-z0-9._/-]{0,32}$"),
    ] = "v{version}"
    files: Annotated[list[str], Field(min_length=1, max_length=8)] = ["docker-compose.yml"]
    """Compose files in the checkout, in order."""
    env_file: Path | None = None
    project: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")] = "openclaw"
    gateway: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$")] = "openclaw-gateway"
    """The service that is the gateway."""
    command: Annotated[list[str], Field(min_length=1, max_length=8)] = ["node", "openclaw.mjs"]
    """OpenClaw's command line in the gateway's container."""
    images: Literal["pull", "build", "none"] = "pull"
    """How the images of a tag come about."""
    docker: Path = Path("/usr/bin/docker")
    git: Path = Path("/usr/bin/git")
    fetch_timeout: Duration = 600.0
    up_timeout: Duration = 1800.0

    @field_validator("files")
    @classmethod
    def _are_inside(cls, names: list[str]) -> list[str]:
        for name in names:
            if Path(name).is_absolute() or ".." in Path(name).parts or name.startswith("-"):
                raise ValueError(f"{name!r} is not a file in the checkout")
        return names


class OpenClawConfig(Section):
    installer: InstallerKind = InstallerKind.STAGED
    """How releases are put in place: docs/decisions/0015-installers.md."""
    native: NativeConfig | None = None
    compose: ComposeConfig | None = None
    keep_trees: int = Field(default=3, ge=2, le=100)
    """How many releases stay in the store, those among them that may not go."""
    disk_watermark: WatermarkText = Watermark(percent=10)
    """Below this much free space on the store's disk nothing stays but what must: `"10%"`, `"20GiB"`."""
    node: Path
    npm: Path
    """npm's own script, `…/lib/node_modules/npm/bin/npm-cli.js`."""
    npm_cache: Path | None = None
    extra_ca: Path | None = None
    """Certificates that npm and the gateway trust besides Node's own."""
    npmrc: Path | None = None
    """npm's configuration. None is read but this one: no user's, no global one, no project's."""
    store: Path | None = None
    """Where staged releases are kept; `<home>/releases` when absent. Agents on one host may share it."""

    @model_validator(mode="after")
    def _has_its_section(self) -> OpenClawConfig:
        for kind, section in (
            (InstallerKind.NATIVE, self.native),
            (InstallerKind.COMPOSE, self.compose),
        ):
            if self.installer is kind and section is None:
                raise ValueError(f'installer = "{kind}" needs [openclaw.{kind}]')
        return self

    def tools(self, layout: Layout, account: Account | None) -> NodeTools:
        """For the agent of this home."""
        return NodeTools(
            self.node,
            self.npm,
            self.npm_cache,
            self.extra_ca,
            child_of=str(layout.home),
            account=account,
            npmrc=self.npmrc,
            scratch=layout.scratch,
            empty=layout.empty,
        )


class DrainPolicy(StrEnum):
    """What to do when work is still in hand at the drain's deadline."""

    ABORT = "abort"
    """Open the gateway again and drop the order: nothing is lost, and nothing moves."""
    FORCE = "force"
    """Go on: the work in hand is cut off."""
    WAIT = "wait"
    """Wait on, and say for what."""


class Rehearsal(StrEnum):
    """How much of an upgrade is tried on a copy of the state before the outage."""

    BOOT = "boot"
    """Migrate, Doctor, and start the new gateway on a spare port: needs the memory of a second one."""
    MIGRATE = "migrate"
    OFF = "off"
    """Nothing; Doctor then runs within the outage."""


class UpgradeConfig(Section):
    drain_timeout: Duration = 300.0
    drain_policy: DrainPolicy = DrainPolicy.ABORT
    rehearsal: Rehearsal = Rehearsal.BOOT
    keep_bookmarks: int = Field(default=5, ge=1, le=1000)
    keep_bookmark_days: float = Field(default=30, gt=0)
    """Bookmarks go when they are older, or when there are more; what a rollback may need stays."""
    doctor_timeout: Duration = 120.0
    migrate_timeout: Duration = 1800.0
    attest_timeout: Duration = 120.0
    prove_interval: Duration = 2.0
    prove_timeout: Duration = 180.0
    settle: Duration = 15.0
    """How long a drained node waits at most until every load balancer that asks has been told."""
    settle_every: Duration = 2.0
    """The longest interval at which a load balancer asks; HAProxy's own default."""


class OwnConfig(Section):
    """How the agent makes new versions of itself."""

    python: Path | None = None
    """The interpreter that its environments are made with; when absent, the one that the running one was
    made with. It must stay where it is: a private one, not one that a package manager replaces."""
    pip_config: Path | None = None
    """pip's configuration. No user's is read; without this none at all."""
    build_timeout: Duration = 900.0
    healthy_timeout: Annotated[Duration, Field(le=600)] = 180.0
    """How long a new version may take to report healthy, before it ends itself."""


class HookConfig(Section):
    """Programs of the operator's, run as the agent's user. No shell."""

    freeze: Annotated[list[Annotated[str, Field(min_length=1)]], Field(max_length=32)] = []
    """Program and arguments, run once for each red that this node holds, its own and its peers'."""
    freeze_timeout: Annotated[Duration, Field(gt=0, le=600)] = 10.0

    @field_validator("freeze")
    @classmethod
    def _is_absolute(cls, argv: list[str]) -> list[str]:
        if argv and not Path(argv[0]).is_absolute():
            raise ValueError(f"{argv[0]!r} is not an absolute path")
        return argv


class AgentConfig(Section):
    agent: OwnConfig = OwnConfig()
    api: ApiConfig = ApiConfig()
    peers: PeerConfig = PeerConfig()
    gateway: GatewayConfig
    service: ServiceConfig = ServiceConfig()
    openclaw: OpenClawConfig
    guards: GuardConfig = GuardConfig()
    probes: ProbeConfig = ProbeConfig()
    upgrade: UpgradeConfig = UpgradeConfig()
    hooks: HookConfig = HookConfig()
    worker: WorkerConfig | None = None
    """Absent on a node that is no worker."""


class Identity(Section):
    """`identity/node.json`: who this node is, since it joined."""

    name: NodeName
    role: str
    url: str


def parse_static(text: str) -> tuple[str, str, int]:
    """`NAME=HOST:PORT` to its three parts. Raises ValueError."""
    name, _, address = text.partition("=")
    host, _, port = address.rpartition(":")
    if not name or not host or not port.isdigit():
        raise ValueError(f"{text!r} is not NAME=HOST:PORT")
    return name, host.strip("[]"), int(port)


def load_config(path: Path) -> AgentConfig:
    """Raises ConfigError that names the file, the key, and the nearest known one (fault 7)."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"{path} does not exist", remedy="write it; README.md shows a whole one"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    try:
        value = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    try:
        return AgentConfig.model_validate(value)
    except ValidationError as error:
        raise ConfigError(_explain(path, error)) from error


def _explain(path: Path, error: ValidationError) -> str:
    """An unknown key before anything else: it is usually why another one is missing."""
    complaints = error.errors(include_url=False, include_input=False)
    unknown = [each for each in complaints if each["type"] == "extra_forbidden"]
    first = (unknown or complaints)[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] != "extra_forbidden":
        return f"{path}: {place}: {first['msg']}"
    import difflib

    known = _known_keys(AgentConfig, [str(part) for part in first["loc"][:-1]])
    near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1, cutoff=0.0)
    hint = f"; the nearest known key is {near[0]!r}" if near else ""
    return f"{path}: unknown key {place!r}{hint}"


def _known_keys(model: type[BaseModel], place: list[str]) -> list[str]:
    for part in place:
        field = model.model_fields.get(part)
        candidates: list[Any] = (
            [] if field is None else [field.annotation, *get_args(field.annotation)]
        )
        models = [
            each for each in candidates if isinstance(each, type) and issubclass(each, BaseModel)
        ]
        if not models:
            return []
        model = models[0]
    return list(model.model_fields)
