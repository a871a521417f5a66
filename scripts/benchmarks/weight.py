"""What a gateway that has worked for a while has in its state: some hundred sessions with transcripts.

In the form of 2026.7.35: an index and one JSON Lines file a session, below `agents/main/sessions`. Later
releases take these into SQLite, so a migration has something to carry.
"""

from __future__ import annotations

import json
import random
import time
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

SESSIONS = 300
TURNS = 20
DAY_S = 86400
WORDS = [
    "the",
    "node",
    "asks",
    "its",
    "peers",
    "whether",
    "a",
    "release",
    "is",
    "good",
    "and",
    "waits",
    "until",
    "each",
    "has",
    "answered",
]


def add_sessions(state: Path, *, count: int = SESSIONS) -> int:
    """Returns the bytes written. The same each time but for the dates, which are of the last month."""
    folder = state / "agents" / "main" / "sessions"
    folder.mkdir(parents=True, mode=0o700)
    chance, now = random.Random(7), time.time()  # noqa: S311 - a text, not a secret
    index, written = {}, 0
    for number in range(count):
        name = str(UUID(int=chance.getrandbits(128), version=4))
        began = now - chance.uniform(1, 30) * DAY_S
        text = "\n".join(json.dumps(line) for line in _transcript(name, began, chance)) + "\n"
        (folder / f"{name}.jsonl").write_text(text)
        written += len(text)
        index[f"agent:main:bench-{number}"] = {
            "sessionId": name,
            "updatedAt": int((began + TURNS * 60) * 1000),
            "sessionStartedAt": int(began * 1000),
        }
    (folder / "sessions.json").write_text(json.dumps(index, indent=2))
    return written


def _transcript(name: str, began: float, chance: random.Random) -> list[dict[str, object]]:
    lines: list[dict[str, object]] = [
        {"type": "session", "version": 3, "id": name, "timestamp": _iso(began), "cwd": "/"}
    ]
    parent = None
    for turn in range(TURNS):
        at = began + turn * 60
        text = " ".join(chance.choices(WORDS, k=120))
        message = {
            "role": "assistant" if turn % 2 else "user",
            "content": [{"type": "text", "text": text}],
            "timestamp": int(at * 1000),
        }
        this = f"{chance.getrandbits(32):08x}"
        lines.append(
            {
                "type": "message",
                "id": this,
                "parentId": parent,
                "timestamp": _iso(at),
                "message": message,
            }
        )
        parent = this
    return lines


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
