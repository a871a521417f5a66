"""Which lines of a log are errors of the gateway, and what they say.

OpenClaw's own log is JSON Lines with the level in `_meta`, and every OpenClaw program of this account writes
to the same file: other gateways, and the commands that probes run. A line is the gateway's when it comes
from a subsystem's logger (commands print through `console`) of this node's package. What a gateway prints
has no level; there the words of a crash count.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from agent.readiness.logs.follow import MAX_LINE
from shared.canonical import parse_json
from shared.errors import BadInputError

_LEVELS = frozenset({"error", "fatal"})
_PINO_ERROR = 50
_HINTS = (b'"ERROR"', b'"FATAL"', b'"error"', b'"fatal"', b'"level":5', b'"level":6')
_STAMP = r"(?:\d{4}-\d\d-\d\d[T ][\d:.,]+(?:Z|[+-]\d\d:?\d\d)?|\d\d:\d\d:\d\d(?:[+-]\d\d:\d\d)?)"
_SUBSYSTEM = re.compile(rf"^(?:{_STAMP}\s+)?\[(?!openclaw\])[\w/.:-]+\]\s")
_CRASH = re.compile(
    rf"^(?:{_STAMP}\s+)?(?:\[openclaw\]\s+)?"
    r"(?:Uncaught|Unhandled|FATAL|ERROR|(?:<---\s*)?Last few GCs|(?:[A-Z]\w*)?Error(?: \[\w+\])?:)"
)


def error_in(line: bytes, ours: Callable[[str], bool]) -> str | None:
    """The message of an error, None for any other line. `ours` says whether a file of code, by its absolute
    path, is of this node's OpenClaw."""
    if line.startswith(b"{"):
        if not any(hint in line for hint in _HINTS):
            return None
        try:
            value = parse_json(line, max_bytes=MAX_LINE)
        except BadInputError:
            return None
        return _of_record(value, ours) if isinstance(value, dict) else None
    if b"\0" in line:
        return None
    text = line.decode("utf-8", "replace").strip()
    return text if _CRASH.match(text) and not _SUBSYSTEM.match(text) else None


def readable(line: bytes, ours: Callable[[str], bool]) -> str:
    """A line as people read it: time, level and what is said of a record, any other as it is. Empty for a record
    that comes from another node's OpenClaw, and for what is no text."""
    if not line.startswith(b"{"):
        return "" if b"\0" in line else line.decode("utf-8", "replace").strip()
    try:
        value = parse_json(line, max_bytes=MAX_LINE)
    except BadInputError:
        return ""
    meta = value.get("_meta")
    if not isinstance(meta, dict):
        return line.decode("utf-8", "replace")
    code = path.get("fullFilePath") if isinstance(path := meta.get("path"), dict) else None
    if isinstance(code, str) and not ours(unquote(code.removeprefix("file://"))):
        return ""
    said = [each for name in ("0", "1", "2") if isinstance(each := value.get(name), str)]
    from_ = said[0] if said and said[0].startswith("{") and len(said) > 1 else ""
    words = [meta.get("date"), meta.get("logLevelName"), _subsystem(from_)]
    words += said[1:] if from_ else said
    return " ".join(str(word) for word in words if word)


def _subsystem(text: str) -> str:
    try:
        value = parse_json(text.encode()) if text else None
    except BadInputError:
        return ""
    found = value.get("subsystem", value.get("module")) if isinstance(value, dict) else None
    return f"[{found}]" if isinstance(found, str) else ""


def _of_record(value: dict[str, Any], ours: Callable[[str], bool]) -> str | None:
    meta = value.get("_meta")
    if not isinstance(meta, dict):
        return _message(value, ("message", "msg")) if _is_error(value.get("level")) else None
    name, path = meta.get("name"), meta.get("path")
    code = path.get("fullFilePath") if isinstance(path, dict) else None
    if not _is_error(meta.get("logLevelName")) or not str(name).startswith("{"):
        return None
    if isinstance(code, str) and not ours(unquote(code.removeprefix("file://"))):
        return None
    return _message(value, ("message", "1", "0"))


def _is_error(level: object) -> bool:
    if isinstance(level, str):
        return level.lower() in _LEVELS
    return isinstance(level, int) and level >= _PINO_ERROR


def _message(value: dict[str, Any], names: tuple[str, ...]) -> str | None:
    return next((found for name in names if isinstance(found := value.get(name), str)), None)
