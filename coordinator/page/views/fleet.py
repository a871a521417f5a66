"""The fleet: versions, counts, open reds, and a page of the table of nodes. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coordinator.page import words
from coordinator.page.views.now import Now, now_of
from shared.errors import BadInputError
from shared.freezing import By
from shared.nodes import NodeStatus
from shared.rollout import LIVE, NodeView, RedView, Rollout
from shared.versions import OpenClawVersion

PER_PAGE = 50
SHOWN_COUNTS = 8
STATUS_ORDER = list(
    map(str, ("error", "offline", "degraded", "upgrading", "provisioning", "online"))
)
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Wanted:
    """What a reader asked to see. Empty leaves everything in; `sort` is a column, after `-` from the other end."""

    text: str = ""
    status: str = ""
    version: str = ""
    site: str = ""
    sort: str = "status"
    page: int = 1

    def path(self, **changes: object) -> str:
        """The address of this view with something else in it; from its first page, unless that is what changes."""
        now: dict[str, object] = {
            "q": self.text,
            "status": self.status,
            "version": self.version,
            "site": self.site,
            "sort": "" if self.sort == "status" else self.sort,
        }
        now |= changes
        return words.queried("/", **now)


@dataclass(frozen=True)
class Column:
    key: str
    title: str
    path: str
    sorted: str = ""
    """As `aria-sort` has it."""


@dataclass(frozen=True)
class Bar:
    """`x` and `width` in percent of the whole."""

    label: str
    count: int
    x: float
    width: float
    tone: str
    path: str
    chosen: bool
    note: str = ""


@dataclass(frozen=True)
class Component:
    """One line of the version status. `current` is what most run, `spread` how many do."""

    name: str
    current: str
    spread: str
    latest: str
    below: int
    minimum: str


@dataclass(frozen=True)
class Row:
    node: NodeView
    health: str
    health_tone: str
    version: str
    below: bool
    ratio: str
    waits: str
    since: float | None


@dataclass(frozen=True)
class OpenRed:
    red: RedView
    acked: int
    peers: int
    missing: tuple[str, ...]
    freezes: tuple[str, ...]


@dataclass(frozen=True)
class FleetPage:
    total: int
    components: tuple[Component, ...]
    by_status: tuple[Bar, ...]
    by_version: tuple[Bar, ...]
    by_site: tuple[Bar, ...]
    reds: tuple[OpenRed, ...]
    now: Now | None
    frozen: int
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    found: int
    page: int
    pages: int
    wanted: Wanted
    headline: str


@dataclass(frozen=True)
class Known:
    """What the page is made of, as the API answers."""

    nodes: Sequence[NodeView]
    reds: Sequence[RedView]
    rollout: Rollout | None
    latest_core: str = ""
    latest_agent: str = ""
    minimum_core: str = ""
    minimum_agent: str = ""


def fleet_page(known: Known, wanted: Wanted) -> FleetPage:
    nodes, rollout = known.nodes, known.rollout
    live = rollout if rollout is not None and rollout.state in LIVE else None
    rows = [_row(node, live, known.minimum_core) for node in nodes]
    found = _sorted([row for row in rows if _fits(row, wanted)], wanted.sort)
    pages = max(1, -(-len(found) // PER_PAGE))
    page = min(max(1, wanted.page), pages)
    reds = tuple(open_red(red, nodes) for red in known.reds if red.open)
    return FleetPage(
        total=len(nodes),
        components=_components(known),
        by_status=_by_status(nodes, wanted),
        by_version=_by_version(nodes, wanted, known.minimum_core),
        by_site=_bars(Counter(node.site for node in nodes), "site", wanted.site, wanted),
        reds=reds,
        now=now_of(rollout, known.reds),
        frozen=sum(bool(node.freezes or node.frozen_by) for node in nodes),
        columns=_columns(wanted),
        rows=tuple(found[(page - 1) * PER_PAGE : page * PER_PAGE]),
        found=len(found),
        page=page,
        pages=pages,
        wanted=wanted,
        headline=_headline(nodes, reds),
    )


def open_red(red: RedView, nodes: Sequence[NodeView]) -> OpenRed:
    peers = [node.name for node in nodes if node.name != red.origin]
    missing = [name for name in peers if name not in red.acked_by]
    freezes = [node.name for node in nodes if any(each.key == red.key for each in node.freezes)]
    return OpenRed(red, len(peers) - len(missing), len(peers), tuple(missing), tuple(freezes))


def _headline(nodes: Sequence[NodeView], reds: Sequence[OpenRed]) -> str:
    """For who does not see the page: what has changed is said in one sentence."""
    counts = Counter(str(node.node_status) for node in nodes)
    parts = [f"{counts[each]} {each}" for each in STATUS_ORDER if counts[each]]
    reds_said = words.counted(len(reds), "open red")
    return f"{words.counted(len(nodes), 'node')}: {', '.join(parts) or 'none'}; {reds_said}"


def waits_of(node: NodeView, rollout: Rollout | None) -> tuple[str, float | None]:
    """What a node waits for and since when: for its turn in a rollout, for a freeze's end, or for itself."""
    mine = None if rollout is None else rollout.find(node.name)
    if mine is not None and mine.reason and mine.state not in ("done", "skipped"):
        return mine.reason, mine.since
    if node.freezes:
        first = node.freezes[0]
        return first.words, first.since
    return node.waiting or node.weight_waits, None


def _row(node: NodeView, rollout: Rollout | None, minimum: str) -> Row:
    """A red that freezes stands above the table with all its words."""
    waits, since = waits_of(node, rollout)
    first = node.freezes[0] if node.freezes else None
    if first is not None and first.by is By.RED and waits == first.words:
        waits = f"the end of the red of {first.who}"
    score = node.health_score
    return Row(
        node=node,
        health=words.NONE if score is None else str(score),
        health_tone="calm"
        if score is None
        else ("good" if score >= 80 else "warn" if score >= 50 else "bad"),
        version=node.version_running or "",
        below=is_below(node.version_running, minimum),
        ratio=words.NONE if node.weight is None else f"{node.weight} %",
        waits=waits,
        since=since,
    )


def is_below(version: str | None, minimum: str) -> bool:
    """A version that is none of OpenClaw's own form is below nothing."""
    if not version or not minimum:
        return False
    try:
        return OpenClawVersion(version) < OpenClawVersion(minimum)
    except BadInputError:
        return _numbers(version) < _numbers(minimum)


def _numbers(version: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"[0-9]{1,9}", version)]


def _components(known: Known) -> tuple[Component, ...]:
    cores = Counter(node.version_running or UNKNOWN for node in known.nodes)
    agents = Counter(node.agent_version or UNKNOWN for node in known.nodes)
    return (
        _component("OpenClaw", cores, known.latest_core, known.minimum_core),
        _component("Agent", agents, known.latest_agent, known.minimum_agent),
    )


def _component(name: str, counts: Counter[str], latest: str, minimum: str) -> Component:
    total = sum(counts.values())
    most, many = counts.most_common(1)[0] if counts else (words.NONE, 0)
    below = sum(count for each, count in counts.items() if is_below(each, minimum))
    spread = f"on {many} of {total}" if total else "no nodes"
    return Component(name, most, spread, latest or "not set", below, minimum or "not set")


def _by_status(nodes: Sequence[NodeView], wanted: Wanted) -> tuple[Bar, ...]:
    counts = Counter(str(node.node_status) for node in nodes)
    ordered = {each: counts[each] for each in reversed(STATUS_ORDER) if counts[each]}
    return _bars(ordered, "status", wanted.status, wanted, tones=words.TONES)


def _by_version(nodes: Sequence[NodeView], wanted: Wanted, minimum: str) -> tuple[Bar, ...]:
    counts = Counter(node.version_running or UNKNOWN for node in nodes)
    newest = dict(sorted(counts.items(), key=lambda each: _numbers(each[0]), reverse=True))
    notes = {each: "below the minimum" for each in counts if is_below(each, minimum)}
    return _bars(newest, "version", wanted.version, wanted, notes=notes)


def _bars(
    counts: Mapping[str, int],
    name: str,
    chosen: str,
    wanted: Wanted,
    *,
    tones: Mapping[str, str] | None = None,
    notes: Mapping[str, str] | None = None,
) -> tuple[Bar, ...]:
    """The most frequent as they come; all others are one bar at the end, which filters nothing."""
    total = sum(counts.values())
    bars: list[Bar] = []
    x = 0.0
    shown = list(counts.items())
    rest = sum(count for _, count in shown[SHOWN_COUNTS:])
    for label, count in shown[:SHOWN_COUNTS]:
        width = round(100 * count / total, 2)
        note = (notes or {}).get(label, "")
        here = chosen == (label or "none")
        path = wanted.path(**{name: "" if here else label or "none"})
        tone = "warn" if note else (tones or {}).get(label, "calm")
        bars.append(Bar(label or "none", count, round(x, 2), width, tone, path, here, note))
        x += 100 * count / total
    if rest:
        width = round(100 * rest / total, 2)
        bars.append(Bar("others", rest, round(x, 2), width, "calm", wanted.path(), chosen=False))
    return tuple(bars)


def _fits(row: Row, wanted: Wanted) -> bool:
    node = row.node
    pairs = (
        (wanted.status, str(node.node_status)),
        (wanted.version, row.version or UNKNOWN),
        (wanted.site, node.site or "none"),
    )
    if any(asked not in ("", found) for asked, found in pairs):
        return False
    return not wanted.text or wanted.text.lower() in _searched(row)


def _searched(row: Row) -> str:
    """Everything that the row shows as text."""
    node = row.node
    said = (node.name, node.role, node.class_, node.site, node.node_status, row.version)
    labels = [f"{key}={value}" for key, value in node.labels.items()]
    return " ".join([*map(str, said), node.agent_version, row.waits, *labels]).lower()


_TITLES = {
    "name": "Node",
    "status": "Status",
    "health": "Health",
    "role": "Role",
    "site": "Site",
    "version": "OpenClaw",
    "agent": "Agent",
    "ratio": "Ratio",
    "waits": "Waits for",
    "since": "Since",
}
_KEYS: dict[str, Callable[[Row], Any]] = {
    "name": lambda row: (),
    "status": lambda row: STATUS_ORDER.index(str(row.node.node_status)),
    "health": lambda row: 101 if row.node.health_score is None else row.node.health_score,
    "role": lambda row: (row.node.class_, row.node.role),
    "site": lambda row: row.node.site,
    "version": lambda row: _numbers(row.version),
    "agent": lambda row: _numbers(row.node.agent_version),
    "ratio": lambda row: -1 if row.node.weight is None else row.node.weight,
    "waits": lambda row: (not row.waits, row.waits),
    "since": lambda row: (row.since is None, row.since),
}


def sort_of(text: str) -> str:
    """A column that there is; else the usual one."""
    return text if text.removeprefix("-") in _KEYS else "status"


def status_of(text: str) -> str:
    return text if text in set(map(str, NodeStatus)) else ""


def _sorted(rows: list[Row], sort: str) -> list[Row]:
    """Nodes that are alike by name, also from the other end."""
    rows = sorted(rows, key=lambda row: row.node.name, reverse=sort == "-name")
    key = sort.removeprefix("-")
    if key == "name":
        return rows
    return sorted(rows, key=_KEYS[key], reverse=sort.startswith("-"))


def _columns(wanted: Wanted) -> tuple[Column, ...]:
    columns = []
    for key, title in _TITLES.items():
        now = {key: "ascending", f"-{key}": "descending"}.get(wanted.sort, "")
        after = f"-{key}" if now == "ascending" else key
        columns.append(Column(key, title, wanted.path(sort=after), now))
    return tuple(columns)
