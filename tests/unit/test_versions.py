from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from shared.errors import BadInputError
from shared.versions import OpenClawVersion


def numbers(limit: int) -> st.SearchStrategy[int]:
    return st.integers(min_value=1, max_value=limit)


TAILS = st.one_of(
    st.just(""),
    numbers(40).map(lambda n: f"-{n}"),
    st.tuples(st.sampled_from(["alpha", "beta", "rc"]), numbers(9)).map(
        lambda t: f"-{t[0]}.{t[1]}"
    ),
)
VERSIONS = st.tuples(st.integers(2025, 2027), numbers(12), numbers(40), TAILS).map(
    lambda t: f"{t[0]}.{t[1]}.{t[2]}{t[3]}"
)


@given(VERSIONS, VERSIONS)
def test_orders_as_pep_440_does(a: str, b: str) -> None:
    """PEP 440 reads `-N` as a post-release, which is what OpenClaw means by a correction."""
    assert (OpenClawVersion(a) < OpenClawVersion(b)) == (Version(a) < Version(b))
    assert (OpenClawVersion(a) == OpenClawVersion(b)) == (Version(a) == Version(b))


def test_a_correction_is_newer_and_the_raw_text_stays() -> None:
    version = OpenClawVersion("2026.7.1-2")
    assert OpenClawVersion("2026.7.1") < version < OpenClawVersion("2026.7.2-beta.1")
    assert str(version) == "2026.7.1-2"


@pytest.mark.parametrize(
    "text",
    ["1.0;rm -rf ~", "2026.9", "2026.9.6 ", "v2026.9.6", "2026.9.6-", "2026.9.6\n", "", "٢٠٢٦.9.6"],
)
def test_refuses_everything_else(text: str) -> None:
    with pytest.raises(BadInputError):
        OpenClawVersion(text)
