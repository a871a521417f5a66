"""What the page is drawn with: templates, and files that browsers fetch. All are read once, before requests are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from coordinator.page import words
from shared.canonical import sha256_hex

HERE = Path(__file__).parent
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
LIVE, LIVE_PARTS = "live.js", ("htmx.min.js", "hx-sse.min.js")
"""From htmx's package (scripts/pagescripts.py). Without them the page is as it is without JavaScript. They are one file
because htmx begins as soon as it is read: a browser that had to wait for its extension would never connect."""


@dataclass(frozen=True)
class Asset:
    name: str
    type: str
    body: bytes

    @property
    def tag(self) -> str:
        return sha256_hex(self.body)[:16]

    @property
    def path(self) -> str:
        """Another one for other bytes, so that browsers may keep it for ever."""
        return f"/static/{self.tag}/{self.name}"


class Assets:
    """Blocking to make."""

    def __init__(self, folder: Path = HERE) -> None:
        self._assets = {
            path.name: Asset(path.name, TYPES[path.suffix], path.read_bytes())
            for path in sorted((folder / "static").glob("*.*"))
            if path.suffix in TYPES
        }
        live = _live(folder / "static" / "fetched")
        self._assets |= {each.name: each for each in live}
        self._templates = _environment(folder / "templates")
        self._templates.globals |= {"asset": self.path, "live_scripts": [one.path for one in live]}
        for name in self._templates.list_templates():
            self._templates.get_template(name)

    def find(self, tag: str, name: str) -> Asset | None:
        asset = self._assets.get(name)
        return asset if asset is not None and asset.tag == tag else None

    def path(self, name: str) -> str:
        return self._assets[name].path

    def draw(self, template: str, values: dict[str, Any]) -> str:
        return self._templates.get_template(template).render(values)


def _live(fetched: Path) -> list[Asset]:
    parts = [fetched / name for name in LIVE_PARTS]
    if not all(path.exists() for path in parts):
        return []
    body = b"\n;\n".join(path.read_bytes() for path in parts)
    return [Asset(LIVE, TYPES[".js"], body)]


def _environment(folder: Path) -> Environment:
    """Everything that is drawn is text unless a template says otherwise, and none does."""
    made = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        auto_reload=False,
        cache_size=-1,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= words.FILTERS
    return made
