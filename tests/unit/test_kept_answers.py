"""What an agent has been told of things that do not change, and is not asked again."""

from __future__ import annotations

from pathlib import Path

from agent.openclaw.engines import Engines, stamp_of
from agent.openclaw.listings import MOST, Listings


def test_a_listing_is_of_one_tree_and_the_oldest_goes_first() -> None:
    kept = Listings()
    for number in range(MOST + 1):
        kept.keep(f"tree {number}", f"listing {number}")
    assert kept.of("tree 0") is None
    assert kept.of(f"tree {MOST}") == f"listing {MOST}"
    assert kept.of(None) is None


def test_a_node_is_judged_anew_when_its_file_or_the_range_is_another(tmp_path: Path) -> None:
    node = tmp_path / "node"
    engines = Engines()
    engines.keep(stamp_of(node), ">=24")
    assert not engines.fits(node, ">=24"), "there is no such file"
    node.write_text("v24")
    engines.keep(stamp_of(node), ">=24")
    assert engines.fits(node, ">=24")
    assert not engines.fits(node, ">=25")
    other = tmp_path / "other"
    other.write_text("v99 ")
    other.replace(node)
    assert not engines.fits(node, ">=24")
