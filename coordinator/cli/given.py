"""What operators type, looked at before anybody is asked: what cannot be meant is wrong usage (exit code 2), and named
as such. What is well said and not there is for the coordinator to say (exit code 1)."""

from __future__ import annotations

import re
from typing import Any, TypeVar

from shared.durations import parse_duration
from shared.errors import BadInputError, UsageError
from shared.wire import NODE_NAME, Wire, is_node_name

SHORT_ID = r"[0-9a-f]{8}"
ORDER_ID = rf"{SHORT_ID}:{NODE_NAME}"
W = TypeVar("W", bound=Wire)


def seconds(option: str, text: str) -> float:
    """Raises UsageError that names the option."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from error


def seconds_or_none(option: str, text: str | None) -> float | None:
    return None if text is None else seconds(option, text)


def node_name(text: str) -> str:
    """As a part of an address. Raises UsageError for what no node can be called."""
    if not is_node_name(text):
        raise UsageError(f"{text[:80]!r} is no node's name", remedy="see: rollcall node list")
    return text


def order_id(text: str) -> str:
    if re.fullmatch(ORDER_ID, text) is None:
        raise UsageError(
            f"{text[:80]!r} is no order's id, such as 9fd9d9f6:stable",
            remedy="see: rollcall order list",
        )
    return text


def short_id(text: str, what: str, see: str) -> str:
    """`what` is whose id it is to be, `see` the command that shows them."""
    if re.fullmatch(SHORT_ID, text) is None:
        raise UsageError(
            f"{text[:80]!r} is no {what}'s id: eight of 0-9 and a-f", remedy=f"see: {see}"
        )
    return text


def rollout_id(text: str) -> str:
    return short_id(text, "rollout", "rollcall rollout history")


def request(model: type[W], **values: Any) -> W:
    """What is asked of the coordinator, of what was typed. Raises UsageError."""
    try:
        return model.from_value(values)
    except BadInputError as error:
        raise UsageError(error.message, remedy=error.remedy) from error
