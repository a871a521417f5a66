"""The settings of the fleet by key: which there are, what each wants, and how a value reads."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable
from enum import EnumType
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, MaxLen
from pydantic import BeforeValidator
from pydantic.fields import FieldInfo

from shared.durations import parse_duration
from shared.errors import NotFoundError
from shared.fleetsettings import FleetSettings
from shared.wire import Wire

EXAMPLES = {
    "latest": "a release's name such as 2026.9.6+1",
    "min_supported": "a version of OpenClaw such as 2026.9.1",
    "min_supported_agent": "a version of the agent such as 0.2.0",
    "batch": "a number of nodes such as 3, or a share such as 10%",
    "max_unavailable": "a number of nodes such as 3, or a share such as 10%",
    "steps": "shares that rise to 100, such as 1,5,25,50,100",
    "windows": "times such as '0 2 * * 1-5 for 3h in Europe/Berlin; 0 4 * * 6 for 8h'; none for any time",
    "blackouts": "days such as 2026-12-24,2026-12-25; none for no day",
    "sla.fyi_agents": "names of nodes such as mac1,mac2; none for nobody",
}


class Setting(Wire):
    """`value` and `default` as JSON, `text` as `rollcall config set` takes it. `by` and `at` say who set it and
    when; both are None for a default."""

    key: str
    value: Any
    text: str
    default: Any
    wanted: str
    by: str | None = None
    at: float | None = None


class SettingChange(Wire):
    """`before` and `after` in text; `to_default` when the setting was taken back."""

    key: str
    before: str
    after: str
    to_default: bool
    by: str
    at: float


@cache
def setting_fields() -> dict[str, FieldInfo]:
    """By key, those of a section as `section.key`, in the order of the model."""
    found: dict[str, FieldInfo] = {}
    for name, field in FleetSettings.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, Wire):
            found |= {f"{name}.{each}": inner for each, inner in section.model_fields.items()}
        else:
            found[name] = field
    return found


def must_be_key(key: str) -> str:
    """Raises NotFoundError that names the nearest key."""
    if key not in setting_fields():
        near = difflib.get_close_matches(key, setting_fields(), n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise NotFoundError(
            f"there is no setting {key!r}", remedy=f"{hint}all of them: rollcall config list"
        )
    return key


def flat(settings: FleetSettings) -> dict[str, Any]:
    """JSON values by key."""
    dumped, found = settings.model_dump(mode="json"), {}
    for key in setting_fields():
        value: Any = dumped
        for part in key.split("."):
            value = value[part]
        found[key] = value
    return found


def nested(values: dict[str, Any]) -> dict[str, Any]:
    """What `flat` takes apart, to be validated."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        (found.setdefault(section, {}) if section else found)[name] = value
    return found


def is_duration(key: str) -> bool:
    return any(
        isinstance(each, BeforeValidator) and each.func is parse_duration
        for each in setting_fields()[key].metadata
    )


def wanted(key: str) -> str:
    """The form of a value, for people."""
    if key in EXAMPLES:
        return EXAMPLES[key]
    field = setting_fields()[key]
    kind, span = _kind(field), _span(field, as_duration if is_duration(key) else str)
    if is_duration(key):
        return f"a duration such as 45s, 5m, 2h or 1d{span}"
    if kind is bool:
        return "true or false"
    if kind in (int, float):
        return f"a {'whole ' if kind is int else ''}number{span}"
    if get_origin(kind) is Literal or isinstance(kind, EnumType):
        return f"one of {', '.join(map(str, get_args(kind) or kind.__members__.values()))}"
    if kind is str:
        return f"text{_longest(field)}"
    return "JSON; what it must be like is in the API's description"


def _kind(field: FieldInfo) -> Any:
    """Without the None of what may be absent, and without what is only checked."""
    kind: Any = field.annotation
    if get_origin(kind) in (Union, UnionType):
        kind = next(each for each in get_args(kind) if each is not NoneType)
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _longest(field: FieldInfo) -> str:
    found = (each.max_length for each in field.metadata if isinstance(each, MaxLen))
    return next((f" of at most {length} characters" for length in found), "")


def _span(field: FieldInfo, said: Callable[[Any], str]) -> str:
    """` from 0 to 100`, as far as the model bounds it."""
    words = ""
    for each in field.metadata:
        if isinstance(each, Ge):
            words += f" from {said(each.ge)}"
        elif isinstance(each, Gt):
            words += f" above {said(each.gt)}"
        elif isinstance(each, Le):
            words += f" to {said(each.le)}"
    return words


def as_text(key: str, value: Any) -> str:
    """A value as `rollcall config set` takes it; `-` where there is none."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if key == "windows":
        return "; ".join(map(_window, value)) or "none"
    if isinstance(value, list) and not any(isinstance(each, dict | list) for each in value):
        return ",".join(map(str, value)) or "none"
    if isinstance(value, dict | list):
        return json.dumps(value)
    if is_duration(key):
        return as_duration(value)
    return f"{value:g}" if isinstance(value, float) else str(value) or '""'


def _window(about: dict[str, Any]) -> str:
    return f"{about['cron']} for {as_duration(about['duration_s'])} in {about['tz']}"


def as_duration(seconds: float) -> str:
    """In the largest unit that leaves a whole number: 5400 is `90m`."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s"
