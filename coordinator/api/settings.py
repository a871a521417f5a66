"""`/v1/settings`: what operators set for the whole fleet, by key."""

from __future__ import annotations

from typing import Any

from coordinator.api.access import Allows
from coordinator.api.routes import Call, Number, Resource, Route
from coordinator.api.versions import version_of
from coordinator.settings import SettingsBook
from shared.settingkeys import Setting, SettingChange
from shared.wire import Wire

KEY = r"[a-z][a-z_]{0,31}(\.[a-z][a-z_]{0,31})?"
MAX_SETTING_BYTES = 64 << 10
LIMIT = Number("limit", 100, 1000, "So many changes at most.", lowest=1)


class SettingList(Wire):
    settings: list[Setting]


class SettingHistory(Wire):
    """Newest first."""

    changes: list[SettingChange]


class SettingRequest(Wire):
    """`value` as JSON, or as the command line takes it; null is the default again."""

    value: Any = None
    dry_run: bool = False


def _changed(call: Call, change: SettingChange) -> None:
    tried = "only tried: " if call.wire(SettingRequest).dry_run else ""
    call.detail = f"{tried}{change.before} -> {change.after}"


class SettingsApi(Resource):
    def __init__(self, book: SettingsBook) -> None:
        self._book = book

    async def listing(self, _: Call) -> SettingList:
        return SettingList(settings=await self._book.listing())

    async def show(self, call: Call) -> Setting:
        return await self._book.setting(call.parameters["key"])

    async def version(self, call: Call) -> str:
        """Value, and who set it when: also a value that was set and set back is another version."""
        return version_of(await self.show(call))

    async def put(self, call: Call) -> SettingChange:
        asked = call.wire(SettingRequest)
        change = await self._book.put(
            call.parameters["key"], asked.value, call.caller.who, dry_run=asked.dry_run
        )
        _changed(call, change)
        return change

    async def history(self, call: Call) -> SettingHistory:
        key = call.parameters.get("key")
        return SettingHistory(changes=await self._book.history(key, call.query["limit"]))

    routes = (
        Route(
            "GET",
            "/v1/settings",
            listing,
            Allows.VIEWER,
            "Every setting: its value, its default, who set it and when.",
            answer=SettingList,
        ),
        Route(
            "GET",
            "/v1/settings/{key}",
            show,
            Allows.VIEWER,
            "One setting.",
            parameters={"key": KEY},
            answer=Setting,
            refusals=(404,),
            etag=version,
        ),
        Route(
            "PUT",
            "/v1/settings/{key}",
            put,
            Allows.OPERATOR,
            "Set one, or only try whether it could be set.",
            parameters={"key": KEY},
            body=SettingRequest,
            answer=SettingChange,
            refusals=(404,),
            limit=MAX_SETTING_BYTES,
            etag=version,
            about=_changed,
        ),
        Route(
            "GET",
            "/v1/settings/history",
            history,
            Allows.VIEWER,
            "The latest changes of all settings.",
            answer=SettingHistory,
            query=(LIMIT,),
        ),
        Route(
            "GET",
            "/v1/settings/{key}/history",
            history,
            Allows.VIEWER,
            "The latest changes of one setting.",
            parameters={"key": KEY},
            answer=SettingHistory,
            query=(LIMIT,),
            refusals=(404,),
        ),
    )
