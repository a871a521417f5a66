"""The wheel draws the page by itself: templates, styles and htmx are in it."""

from __future__ import annotations

import asyncio
import zipfile
from pathlib import Path

from coordinator.page.assets import HERE, Assets
from tests.support.pagekit import page_scripts
from tests.support.wheelkit import build_wheel


async def test_the_wheel_carries_the_whole_page(tmp_path: Path) -> None:
    """Git leaves out what comes from npm; the wheel must not, also when nobody has fetched it."""
    await page_scripts()
    wheel = await asyncio.to_thread(build_wheel, "0.1.9", tmp_path, {}, ("fetched",))
    with zipfile.ZipFile(wheel) as archive:
        packed = [each for each in archive.namelist() if each.startswith("coordinator/page/")]
        archive.extractall(tmp_path / "installed", packed)
    root = HERE.parents[1]
    here = {
        path.relative_to(root).as_posix()
        for part in ("templates", "static")
        for path in (HERE / part).rglob("*.*")
    }
    assert here <= set(packed)
    assert {
        "coordinator/page/static/fetched/htmx.min.js",
        "coordinator/page/static/page.css",
    } <= here
    page = tmp_path / "installed" / "coordinator" / "page"
    installed, ours = await asyncio.to_thread(Assets, page), await asyncio.to_thread(Assets)
    for name in ("page.css", "page.js", "live.js", "mark.svg"):
        assert installed.path(name) == ours.path(name), "the path says what is in it"
    values = {"fleet_name": "here", "now": 0.0, "signed": None, "said": "", "next": "/"}
    assert "Sign in" in installed.draw("sign-in.html", {**values, "error": None})
