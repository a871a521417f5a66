"""A message of a log to its form: what changes from one occurrence to the next is masked, and so is a secret.

`template_of` is what two occurrences of one error have in common; no digit is left in it. `example_of` is
the message itself, readable, without what looks like a secret.
"""

from __future__ import annotations

import re

MAX_TEXT = 600
"""Characters of a message that are looked at."""
MAX_SHOWN = 300
HIDDEN = "[hidden]"
PASSES = 4
"""A mask may complete what another pattern looks for; it settles in two passes as a rule."""

_NAME = (
    r"[\w.-]*(?:token|secret|passw(?:or)?d|passphrase|api[_-]?key|private[_-]?key|credentials?|cookie)"
    r"|authorization|pwd"
)
_KEYS = r"sk|pk|rk|gh[opsur]|github_pat|glpat|xox[abeoprs]|npm|hf|AKIA|ASIA|AIza|ya29"
_UUID = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b"
_SECRETS = (
    re.compile(r"-----BEGIN[^-]*-----.*?(?:-----END[^-]*-----|\Z)", re.DOTALL),
    re.compile(r"(?i)(?<=://)[^\s/@:]*:[^\s/@]+(?=@)"),
    re.compile(r"(?i)\bbearer\s+[\w.~+/=:-]{6,}"),
    re.compile(r"(?i)\b(?:basic|digest|token)\s+(?=\S*[\d=])[\w.~+/=:-]{8,}"),
    re.compile(
        rf"(?i)(?<![\w-])[\"']?(?:{_NAME})[\"']?\s*(?::|=>?)\s*"
        r"""(?:"[^"]*"?|'[^']*'?|\[hidden\]|(?:bearer |basic )?[^\s,;&}\)\]]+)"""
    ),
    re.compile(r"\beyJ[\w-]{8,}\.[\w-]+(?:\.[\w-]*)?"),
    re.compile(rf"\b(?:{_KEYS})[-_.]?[A-Za-z0-9][\w.-]{{10,}}"),
    re.compile(
        rf"(?<![\w/.-])(?!{_UUID})(?=[\w+-]*\d)(?=[\w+-]*[A-Za-z])[\w+-]{{24,}}={{0,2}}(?![\w/])"
    ),
    re.compile(r"(?<![\w/.-])(?!/)(?=[\w+/-]*\d)(?=[\w+/-]*[A-Z])[\w+/-]{40,}={0,2}(?!\w)"),
)
_CONTROL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x1f\x7f-\x9f]")
_DAY = r"\d{4}-\d\d-\d\d"
_HOUR = r"\d\d?:\d\d(?::\d\d(?:[.,]\d+)?)?(?:Z|[+-]\d\d:?\d\d)?"
_MASKS = (
    (re.compile(rf"\b{_UUID}"), "<id>"),
    (re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?::\d+)?(?![\w.])"), "<address>"),
    (re.compile(rf"\b{_DAY}(?:[T ]{_HOUR})?|(?<![\w.:])\b{_HOUR}\b"), "<time>"),
    (re.compile(r"(?i)\b[a-z][a-z0-9+.-]*://[^\s\"'<>)]+"), "<url>"),
    (re.compile(r"\[[0-9a-fA-F:]*:[0-9a-fA-F:]*:[0-9a-fA-F]*\](?::\d+)?"), "<address>"),
    (re.compile(r"(?<![\w:])(?:[0-9a-fA-F]{0,4}:){2,7}[0-9a-fA-F]{0,4}(?![\w:])"), "<address>"),
    (re.compile(r'"(?:[^"\\]|\\.)*"|`[^`]*`|(?<![\w<>])\'(?:[^\'\\]|\\.)*\'(?!\w)'), "<text>"),
    (re.compile(r"(?<![\w<>])(?:~|\.{1,2}|[A-Za-z]:|file:)?[/\\][^\s:;,()\"'<>\[\]]+"), "<path>"),
    (re.compile(r"(?<![\w<>.@-])[\w.@-]+/[^\s:;,()\"'<>\[\]]+"), "<path>"),
    (re.compile(r"(?<!\w)\w*\d\w*(?:%|\b)"), "<n>"),
)
_REPEATED = re.compile(r"(<[a-z]+>)(?:[\s,:.|/+-]*\1)+")
_SPACE = re.compile(r"\s+")


def template_of(message: str) -> str:
    """One line of at most `MAX_SHOWN` characters. Applied to its own result it changes nothing."""
    text = message[:MAX_TEXT]
    for _ in range(PASSES):
        before, text = text, _mask(text)
        if text == before:
            break
    return text


def example_of(message: str) -> str:
    """Of at most `MAX_SHOWN` characters, in one line."""
    return _SPACE.sub(" ", _plain(message)).strip()[:MAX_SHOWN]


def _mask(text: str) -> str:
    text = _plain(text)
    for pattern, mask in _MASKS:
        text = pattern.sub(mask, text)
    return _SPACE.sub(" ", _REPEATED.sub(r"\1", text)).strip()[:MAX_SHOWN].strip()


def _plain(message: str) -> str:
    """Without colours, control characters and secrets."""
    text = _CONTROL.sub(" ", message[:MAX_TEXT])
    for pattern in _SECRETS:
        text = pattern.sub(HIDDEN, text)
    return text
