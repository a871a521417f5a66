"""Makes pictures of pages small: at most 256 colours, looked up in a palette (PNG, third edition; 7 and 11.2.2).

A page has a few dozen colours, and some hundreds more where letters meet their ground. Those that are rare take the
nearest of the others.
"""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from collections.abc import Iterator

from shared.errors import BadInputError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MOST = 256
ALIKE = 3 * 8**2
"""The square of a distance between colours that is not seen in a letter's edge."""
RGB, RGBA, PALETTE = 2, 6, 3
_LEVEL = 9

Colour = tuple[int, int, int]


def shrink(raw: bytes) -> bytes:
    """The same picture with a palette. Raises BadInputError for what is no 8-bit picture in colour, not interlaced."""
    width, rows = _rows(raw)
    pixels = [list(zip(row[0::3], row[1::3], row[2::3], strict=True)) for row in rows]
    counts = Counter(pixel for row in pixels for pixel in row)
    kept = _palette([colour for colour, _ in counts.most_common()])
    index = {colour: at for at, colour in enumerate(kept)}
    for colour in counts.keys() - index.keys():
        index[colour] = _nearest(colour, kept)
    lines = b"".join(b"\0" + bytes(index[pixel] for pixel in row) for row in pixels)
    head = struct.pack(">IIBBBBB", width, len(pixels), 8, PALETTE, 0, 0, 0)
    palette = b"".join(bytes(colour) for colour in kept)
    parts = (
        (b"IHDR", head),
        (b"PLTE", palette),
        (b"IDAT", zlib.compress(lines, _LEVEL)),
        (b"IEND", b""),
    )
    return SIGNATURE + b"".join(_chunk(name, body) for name, body in parts)


def _palette(colours: list[Colour]) -> list[Colour]:
    """Of the most frequent first: those that are like none before, then the others while there is room."""
    if len(colours) <= MOST:
        return colours
    kept: list[Colour] = []
    for colour in colours:
        if all(_distance(colour, other) > ALIKE for other in kept):
            kept.append(colour)
        if len(kept) == MOST:
            break
    taken = set(kept)
    return kept + [colour for colour in colours if colour not in taken][: MOST - len(kept)]


def _distance(one: Colour, other: Colour) -> int:
    return sum((a - b) ** 2 for a, b in zip(one, other, strict=True))


def _nearest(colour: Colour, kept: list[Colour]) -> int:
    return min(range(len(kept)), key=lambda at: _distance(colour, kept[at]))


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _chunks(raw: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(SIGNATURE)
    while at + 8 <= len(raw):
        size, name = struct.unpack(">I4s", raw[at : at + 8])
        yield name, raw[at + 8 : at + 8 + size]
        at += size + 12


def _rows(raw: bytes) -> tuple[int, list[bytes]]:
    """Width, and each row as red, green and blue; what is transparent is not looked at."""
    if not raw.startswith(SIGNATURE):
        raise BadInputError("this is no PNG")
    chunks = list(_chunks(raw))
    head = dict(chunks).get(b"IHDR", b"")
    if len(head) != 13:
        raise BadInputError("this PNG has no header")
    width, height, bits, kind, _, _, interlaced = struct.unpack(">IIBBBBB", head)
    if bits != 8 or kind not in (RGB, RGBA) or interlaced:
        raise BadInputError(f"a PNG of {bits} bits, colour type {kind} is not read here")
    size = 3 if kind == RGB else 4
    data = zlib.decompress(b"".join(body for name, body in chunks if name == b"IDAT"))
    rows, before = [], bytes(width * size)
    for at in range(height):
        start = at * (width * size + 1)
        line = bytearray(data[start + 1 : start + 1 + width * size])
        before = _unfiltered(data[start], line, before, size)
        rows.append(before)
    return width, [row if kind == RGB else _opaque(row) for row in rows]


def _opaque(row: bytes) -> bytes:
    made = bytearray(len(row) // 4 * 3)
    for at in range(3):
        made[at::3] = row[at::4]
    return bytes(made)


def _unfiltered(kind: int, line: bytearray, above: bytes, size: int) -> bytes:
    """PNG, 9.2: each byte was stored as the difference to a guess from its neighbours."""
    if kind == 2:
        return bytes((one + two) & 255 for one, two in zip(line, above, strict=True))
    for at in range(len(line)) if kind else ():
        left = line[at - size] if at >= size else 0
        corner = above[at - size] if at >= size else 0
        guess = {1: left, 3: (left + above[at]) // 2}.get(kind)
        line[at] = line[at] + (_paeth(left, above[at], corner) if guess is None else guess) & 255
    return bytes(line)


def _paeth(left: int, above: int, corner: int) -> int:
    guess = left + above - corner
    return min((left, above, corner), key=lambda each: abs(guess - each))
