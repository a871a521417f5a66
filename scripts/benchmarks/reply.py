"""How much of an HTTP/1.1 answer is still to come; nothing imported, for who has thousands of connections."""

from __future__ import annotations

MAX_ANSWER = 16 << 20


def missing_bytes(raw: bytes) -> int:
    """At least 1 while the head is not complete. Raises ConnectionError for an answer that is no 200, or does not
    say how long it is."""
    head, found, body = raw.partition(b"\r\n\r\n")
    if not found:
        return 1
    if not head.startswith(b"HTTP/1.1 200 "):
        raise ConnectionError(f"not the answer that was expected: {raw[:400]!r}")
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length" and 0 <= int(value) <= MAX_ANSWER:
            return int(value) - len(body)
    raise ConnectionError("an answer without a length")
