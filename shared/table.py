"""A table for people at a terminal, as lines: pure. What does not fit beside each other stands below each other."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

GAP = 2
NARROWEST = 16
"""Characters that a column keeps when wider ones have to give way."""


def laid_out(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Aligned columns, the widest ones wrapped as far as need be. Where even that is wider than `width` characters,
    each row becomes a block with a line for each of its cells that says something."""
    cells = [[plain(cell) for cell in row] for row in rows]
    natural = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    widths = _squeezed(natural, width - GAP * (len(columns) - 1))
    if widths is None:
        return _blocks(columns, cells, width)
    return [line for row in [list(columns), *cells] for line in _row(row, widths)]


def plain(text: str) -> str:
    """One line without what a terminal would obey: nodes' words are shown, and move no cursor."""
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())


def _squeezed(widths: list[int], room: int) -> list[int] | None:
    """The widest give way first. None where it does not fit with every column at its narrowest."""
    found = list(widths)
    if sum(min(each, NARROWEST) for each in found) > room:
        return None
    while (over := sum(found) - room) > 0:
        widest = max(found)
        second = max([each for each in found if each < widest], default=0)
        place = found.index(widest)
        found[place] -= min(over, max(1, widest - max(second, NARROWEST)))
    return found


def _row(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    wrapped = [_wrapped(cell, width) for cell, width in zip(cells, widths, strict=True)]
    height = max(map(len, wrapped))
    lines = []
    for number in range(height):
        parts = [each[number] if number < len(each) else "" for each in wrapped]
        padded = [part.ljust(width) for part, width in zip(parts, widths, strict=True)]
        lines.append((" " * GAP).join(padded).rstrip())
    return lines


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(1, width), break_on_hyphens=False) or [""]


def _blocks(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    head = max(map(len, columns))
    lines: list[str] = []
    for row in rows:
        lines += [""] if lines else []
        for name, cell in zip(columns, row, strict=True):
            if cell not in ("", "-"):
                first, *more = _wrapped(cell, max(NARROWEST, width - head - GAP))
                lines.append(f"{name.ljust(head)}{' ' * GAP}{first}")
                lines += [f"{' ' * (head + GAP)}{each}" for each in more]
    return lines
