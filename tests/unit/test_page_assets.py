"""What the page's browsers fetch."""

from __future__ import annotations

from pathlib import Path

from coordinator.page.assets import Assets


def test_htmx_and_its_extension_come_as_one_script_or_not_at_all(tmp_path: Path) -> None:
    """As two, htmx can begin before its extension is there, and never connects."""
    fetched, templates = tmp_path / "static" / "fetched", tmp_path / "templates"
    fetched.mkdir(parents=True)
    templates.mkdir()
    (templates / "page.html").write_text("{{ live_scripts | join(' ') }}")
    (fetched / "htmx.min.js").write_text("first()")
    assert Assets(tmp_path).draw("page.html", {}) == ""
    (fetched / "hx-sse.min.js").write_text("second()")
    assets = Assets(tmp_path)
    tag, name = assets.draw("page.html", {}).removeprefix("/static/").split("/")
    asset = assets.find(tag, name)
    assert asset is not None
    assert asset.body == b"first()\n;\nsecond()"
    assert assets.find("0" * 16, name) is None
