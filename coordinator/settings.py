"""The fleet's settings: kept by key, judged as a whole, read from memory."""

from __future__ import annotations

import asyncio
import json
import zoneinfo
from collections.abc import Callable
from typing import Any

import structlog
from pydantic import ValidationError

from coordinator.store.settings import SettingQueries, StoredChange, StoredSetting
from coordinator.store.settling import answered_by
from shared.clock import Clock
from shared.errors import BadInputError
from shared.fleetsettings import FleetSettings
from shared.settingkeys import (
    Setting,
    SettingChange,
    as_text,
    flat,
    must_be_key,
    nested,
    setting_fields,
    wanted,
)
from shared.wire import short

log = structlog.get_logger()

SHOWN_CHARS = 200


class SettingsBook:
    """The only one that writes settings. `changed` is called after each write."""

    def __init__(self, queries: SettingQueries, clock: Clock, changed: Callable[[], None]) -> None:
        self._queries, self._clock, self._changed = queries, clock, changed
        self._writing = asyncio.Lock()
        self._read: tuple[FleetSettings, dict[str, StoredSetting]] | None = None

    async def current(self) -> FleetSettings:
        return (await self._known())[0]

    async def listing(self) -> list[Setting]:
        current, stored = await self._known()
        values, defaults = flat(current), flat(FleetSettings())
        return [_setting(key, values[key], defaults[key], stored.get(key)) for key in values]

    async def put(self, key: str, value: Any, who: str, *, dry_run: bool = False) -> SettingChange:
        """None is the default again. What is set already is written again: somebody meant it.

        Raises NotFoundError for a key that there is not, BadInputError naming key, what was given and what is
        wanted, also when the value does not go with another setting.
        """
        must_be_key(key)
        async with self._writing:
            before, stored = await self._known()
            values = {each: json.loads(row.value) for each, row in stored.items()}
            values.pop(key, None)
            if value is not None:
                values[key] = value
            after = await asyncio.to_thread(_judge, key, value, values)
            kept = None if value is None else json.dumps(flat(after)[key])
            old = stored.get(key)
            change = StoredChange(
                self._clock.now(), who, key, None if old is None else old.value, kept
            )
            answer = SettingChange(
                key=key,
                before=as_text(key, flat(before)[key]),
                after=as_text(key, flat(after)[key]),
                to_default=kept is None,
                by=who,
                at=change.at,
            )
            if not dry_run:
                answered_by(answer)
                await self._queries.change(change)
                self._read = None
                self._changed()
        return answer

    async def setting(self, key: str) -> Setting:
        """Raises NotFoundError for a key that there is not."""
        must_be_key(key)
        return next(each for each in await self.listing() if each.key == key)

    async def history(self, key: str | None, limit: int) -> list[SettingChange]:
        """Newest first. Raises NotFoundError for a key that there is not."""
        if key is not None:
            must_be_key(key)
        defaults = flat(FleetSettings())

        def text(of: str, value: str | None) -> str:
            return as_text(of, defaults.get(of) if value is None else json.loads(value))

        return [
            SettingChange(
                key=each.key,
                before=text(each.key, each.before),
                after=text(each.key, each.after),
                to_default=each.after is None,
                by=each.who,
                at=each.at,
            )
            for each in await self._queries.history(key, limit)
            if each.key in setting_fields()
        ]

    async def _known(self) -> tuple[FleetSettings, dict[str, StoredSetting]]:
        if self._read is None:
            rows = {row.key: row for row in await self._queries.all()}
            self._read = await asyncio.to_thread(_understand, rows)
        return self._read


def _understand(
    rows: dict[str, StoredSetting],
) -> tuple[FleetSettings, dict[str, StoredSetting]]:
    """What another version has stored and this one does not understand counts as not set; it stays on disk."""
    kept: dict[str, StoredSetting] = {}
    for key in setting_fields():
        if key not in rows:
            continue
        tried = {**kept, key: rows[key]}
        try:
            FleetSettings.model_validate(_values(tried))
            kept = tried
        except (ValidationError, ValueError) as error:
            log.error("a stored setting is not understood", key=key, reason=str(error))
    return FleetSettings.model_validate(_values(kept)), kept


def _values(rows: dict[str, StoredSetting]) -> dict[str, Any]:
    return nested({key: json.loads(row.value) for key, row in rows.items()})


def _judge(key: str, value: Any, values: dict[str, Any]) -> FleetSettings:
    """Blocking: the database of time zones is on disk."""
    try:
        judged = FleetSettings.model_validate(nested(values))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise _refusal(key, value, first["msg"].removeprefix("Value error, ")) from error
    for window in judged.windows if key == "windows" else ():
        try:
            zoneinfo.ZoneInfo(window.tz)
        except (zoneinfo.ZoneInfoNotFoundError, OSError, ValueError):
            raise _refusal(key, value, f"no time zone is called {window.tz!r} here") from None
    return judged


def _refusal(key: str, value: Any, complaint: str) -> BadInputError:
    given = value if isinstance(value, str) else json.dumps(value)
    return BadInputError(
        f"{key}: {short(complaint, SHOWN_CHARS)}; given was {short(given, SHOWN_CHARS)!r}",
        remedy=f"wanted: {wanted(key)}",
    )


def _setting(key: str, value: Any, default: Any, stored: StoredSetting | None) -> Setting:
    return Setting(
        key=key,
        value=value,
        text=as_text(key, value),
        default=default,
        wanted=wanted(key),
        by=None if stored is None else stored.who,
        at=None if stored is None else stored.at,
    )
