"""Writes docs/phases.md from the table of moves: `python -m scripts.phases`. A test compares the two."""

from __future__ import annotations

from pathlib import Path

from agent.upgrade.phases import (
    AFTER_STOP,
    BEFORE_OUTAGE,
    FORWARD,
    MOVES,
    TERMINAL,
    Event,
    Phase,
)

PAGE = Path(__file__).resolve().parent.parent / "docs" / "phases.md"
HEAD = """\
# The phases of an upgrade

Drawn by `python -m scripts.phases` from the one table that the agent enforces (`agent/upgrade/phases.py`). The intent
to be in a phase is durable before the phase acts; an agent that was killed enters it again.

"""
_WORDS = {Event.PASSED: "", Event.FAILED: "failed", Event.REQUESTED: "asked by an operator"}


def page() -> str:
    return f"{HEAD}{_picture()}\n{_table()}"


def _picture() -> str:
    """Mermaid. Where failing and being asked lead to the same phase they share an arrow."""
    arrows: dict[tuple[Phase, Phase], list[str]] = {}
    for (before, event), after in MOVES.items():
        arrows.setdefault((before, after), []).append(_WORDS[event])
    lines = ["```mermaid", "stateDiagram-v2", f"  [*] --> {FORWARD[0]}"]
    for (before, after), words in arrows.items():
        label = " or ".join(filter(None, words))
        lines.append(f"  {before} --> {after}" + (f": {label}" if label else ""))
    lines += [f"  {phase} --> [*]" for phase in Phase if phase in TERMINAL]
    return "\n".join([*lines, "```", ""])


def _table() -> str:
    lines = [
        "| phase | passed | failed | asked back by an operator | the gateway |",
        "|---|---|---|---|---|",
    ]
    for phase in Phase:
        cells = [str(MOVES.get((phase, event), "-")) for event in Event]
        lines.append(f"| `{phase}` | {' | '.join(cells)} | {_gateway(phase)} |")
    return "\n".join(lines) + "\n"


def _gateway(phase: Phase) -> str:
    if phase in BEFORE_OUTAGE:
        return "serves"
    if phase in (Phase.DRAINED, Phase.REOPENING):
        return "serves what is in hand"
    if phase in AFTER_STOP:
        up = AFTER_STOP.index(phase) > AFTER_STOP.index(Phase.RESTARTED)
        traffic = AFTER_STOP.index(phase) >= AFTER_STOP.index(Phase.GOOD)
        return "serves" if traffic else "runs without traffic" if up else "is stopped"
    return "is stopped, then started" if phase is Phase.ROLLING_BACK else "serves"


def main() -> None:
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
