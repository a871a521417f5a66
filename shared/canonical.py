"""Canonical JSON and strict parsing: the only two ways bytes become values that are hashed or trusted."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from typing import Any, NoReturn

import rfc8785

from shared.errors import BadInputError

MAX_DEPTH = 32
_STRING = re.compile(r'"(?:[^"\\]+|\\.)*+"', re.DOTALL)
_BRACKET = re.compile(r"[\[\]{}]")
MAX_JSON_BYTES = 1 << 20


def canonical_json(value: Any) -> bytes:
    """RFC 8785 bytes of a JSON value: what two nodes hash must not depend on key order or spacing."""
    return rfc8785.dumps(value)


def sha256_hex(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def framed_sha256(parts: Iterable[bytes]) -> str:
    """SHA-256 over length-framed parts, so that moving a byte from one part to the next shows."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()


def parse_json(raw: bytes, *, max_bytes: int = MAX_JSON_BYTES, max_depth: int = MAX_DEPTH) -> Any:
    """Parse JSON from outside. Raises BadInputError for size, depth, NaN, duplicate keys, encoding."""
    if len(raw) > max_bytes:
        raise BadInputError(f"JSON of {len(raw)} bytes; the limit is {max_bytes}")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadInputError(f"JSON is not UTF-8 (byte {error.start})") from error
    if text.count("[") + text.count("{") > max_depth:
        _check_depth(text, max_depth)
    try:
        value = _STRICT.decode(text)
    except json.JSONDecodeError as error:
        raise BadInputError(
            f"not JSON: {error.msg} at line {error.lineno} column {error.colno}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise BadInputError(f"not JSON that can be read: {error}") from error
    if "\\u" in text and "\\ud" in text.lower():
        _check_surrogates(value)
    return value


def _check_surrogates(value: Any) -> None:
    """Half of a surrogate pair is a string that cannot be written down again."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadInputError("JSON has half of a surrogate pair") from error


def _check_depth(text: str, limit: int) -> None:
    depth = 0
    bare, _, _ = _STRING.sub("", text).partition('"')
    for bracket in _BRACKET.findall(bare):
        depth += 1 if bracket in "[{" else -1
        if depth > limit:
            raise BadInputError(f"JSON nested deeper than {limit} levels")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise BadInputError(f"JSON has the key {key!r} twice")
            seen.add(key)
    return value


def _no_constant(name: str) -> NoReturn:
    raise BadInputError(f"JSON has {name}, which is not a JSON number")


_STRICT = json.JSONDecoder(object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
"""Made once: `json.loads` with hooks makes one for each document, which takes as long as a small one."""
