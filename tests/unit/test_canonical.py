from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.canonical import canonical_json, framed_sha256, parse_json
from shared.errors import BadInputError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(),
    lambda children: (
        st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4)
    ),
    max_leaves=12,
)


@given(JSON)
def test_what_is_written_is_read_back(value: object) -> None:
    assert parse_json(canonical_json(value), max_depth=64) == value


@given(st.dictionaries(st.text(), st.integers(0, 9), min_size=2))
def test_key_order_does_not_count(value: dict[str, int]) -> None:
    turned = dict(reversed(list(value.items())))
    assert canonical_json(value) == canonical_json(turned)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"[" * 10_000 + b"]" * 10_000, "deeper"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "Infinity"),
        (b'{"a": 1, "a": 2}', "twice"),
        ('{"a": "ü"}'.encode("latin-1"), "UTF-8"),
        (b'{"a": ', "not JSON"),
        (b"", "not JSON"),
        (b'["\\ud800"]', "surrogate"),
        (b"9" * 5000, "not JSON"),
        (b"1" * 70, "limit"),
    ],
)
def test_refuses_with_a_reason(raw: bytes, said: str) -> None:
    with pytest.raises(BadInputError, match=said):
        parse_json(raw, max_bytes=64 if said == "limit" else 1 << 20)


def test_brackets_inside_strings_are_not_depth() -> None:
    text = json.dumps({"a": '[[["\\' * 50})
    assert parse_json(text.encode(), max_depth=2) == json.loads(text)


def test_moving_a_byte_between_parts_shows() -> None:
    assert framed_sha256([b"ab", b"c"]) != framed_sha256([b"a", b"bc"])
