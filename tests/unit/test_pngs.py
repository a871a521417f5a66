"""Pictures with a palette, from every way in which a PNG's rows may be stored."""

from __future__ import annotations

import struct
import zlib

import pytest

from scripts.pngs import RGB, RGBA, SIGNATURE, shrink
from shared.errors import BadInputError

Row = list[tuple[int, ...]]


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(rows: list[Row], filters: list[int], kind: int = RGB, bits: int = 8) -> bytes:
    """Filters as the standard has them (PNG, 9.2), written the other way round than they are read."""
    size = len(rows[0][0])
    lines, above = b"", [0] * (len(rows[0]) * size)
    for row, method in zip(rows, filters, strict=True):
        flat = [value for pixel in row for value in pixel]
        out = []
        for at, value in enumerate(flat):
            left = flat[at - size] if at >= size else 0
            corner = above[at - size] if at >= size else 0
            up, guess = above[at], left + above[at] - corner
            near = min((left, up, corner), key=lambda each: abs(guess - each))
            out.append((value - (0, left, up, (left + up) // 2, near)[method]) % 256)
        lines, above = lines + bytes([method, *out]), flat
    head = struct.pack(">IIBBBBB", len(rows[0]), len(rows), bits, kind, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    return SIGNATURE + b"".join(chunk(name, body) for name, body in parts)


def seen(raw: bytes) -> list[Row]:
    """Of a picture with a palette."""
    at, found = len(SIGNATURE), {}
    while at < len(raw):
        size, name = struct.unpack(">I4s", raw[at : at + 8])
        body = raw[at + 8 : at + 8 + size]
        assert raw[at + 8 + size : at + 12 + size] == struct.pack(">I", zlib.crc32(name + body))
        found[name], at = body, at + size + 12
    width, height, bits, kind, *_ = struct.unpack(">IIBBBBB", found[b"IHDR"])
    assert (bits, kind) == (8, 3)
    palette = [tuple(found[b"PLTE"][at : at + 3]) for at in range(0, len(found[b"PLTE"]), 3)]
    lines = zlib.decompress(found[b"IDAT"])
    rows = [lines[at * (width + 1) : (at + 1) * (width + 1)] for at in range(height)]
    assert all(row[0] == 0 for row in rows)
    return [[palette[each] for each in row[1:]] for row in rows]


@pytest.mark.parametrize("kind", [RGB, RGBA])
def test_a_picture_of_few_colours_stays_as_it_is(kind: int) -> None:
    rows: list[Row] = [
        [((x * 40) % 256, (y * 50 + x) % 256, 7, 255)[: 3 if kind == RGB else 4] for x in range(9)]
        for y in range(5)
    ]
    small = shrink(png(rows, [0, 1, 2, 3, 4], kind))
    assert seen(small) == [[pixel[:3] for pixel in row] for row in rows]


def test_rare_colours_take_the_nearest_of_the_others() -> None:
    common: Row = [(at, 0, 0) for at in range(256)]
    rows = [common, common, [(10, 3, 0), (10, 200, 0), *common[2:]]]
    found = seen(shrink(png(rows, [0, 0, 0])))
    assert found[2][1] == (10, 200, 0), "what is like nothing else is kept"
    assert found[2][0] == (10, 0, 0)
    assert len({pixel for row in found for pixel in row}) == 256


@pytest.mark.parametrize("raw", [b"GIF89a", SIGNATURE, png([[(1, 2, 3)]], [0], bits=16)])
def test_what_is_not_read_is_named(raw: bytes) -> None:
    with pytest.raises(BadInputError):
        shrink(raw)
