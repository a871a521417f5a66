"""`/audit`, `/settings`, `/you`: who changed what, what is set for the whole fleet, and your own session."""

from __future__ import annotations

from coordinator.api.settings import SettingHistory, SettingList, SettingRequest
from coordinator.audit import AuditPage
from coordinator.page.deeds import Answer, Deed, Field, Told
from coordinator.page.visit import Drawn, Goes, Group, PageRoute, Visit
from shared.errors import NotFoundError
from shared.settingkeys import Setting
from shared.wire import Wire

PER_PAGE = 100


class BookPages(Group):
    async def audit(self, visit: Visit) -> Drawn:
        """Newest first: the log is asked for its last rows, a page of them at a time."""
        last = (await visit.read(AuditPage, "GET /v1/audit", query={"limit": "1"})).last
        text = visit.asked("before")
        before = int(text) if text.isascii() and text.isdigit() and len(text) < 15 else last + 1
        first = max(0, min(before, last + 1) - 1 - PER_PAGE)
        page = await visit.read(
            AuditPage, "GET /v1/audit", query={"after": str(first), "limit": str(PER_PAGE)}
        )
        rows = [row for row in page.rows if row.id < before]
        values = {"rows": rows[::-1], "first": first, "last": last, "before": before}
        return Drawn("audit.html", "Audit", values, active="/audit")

    async def settings(self, visit: Visit) -> Drawn:
        listed = await visit.read(SettingList, "GET /v1/settings")
        changes = await visit.read(
            SettingHistory, "GET /v1/settings/history", query={"limit": "30"}
        )
        values = {"settings": listed.settings, "changes": changes.changes}
        return Drawn("settings.html", "Settings", values, active="/settings")

    async def you(self, visit: Visit) -> Drawn:
        return Drawn("you.html", "You", {})

    routes = (
        PageRoute("GET", "/audit", audit),
        PageRoute("GET", "/settings", settings),
        PageRoute("GET", "/you", you),
    )


class SettingDeed(Deed):
    active = "/settings"
    path = "/settings/{key}"
    action = "PUT /v1/settings/{key}"

    async def tell(self, visit: Visit) -> Told:
        setting = await self._find(visit)
        default = f"Its default is {setting.default!r}." if setting.default is not None else ""
        lines = [
            f"Wanted is {setting.wanted}.",
            default,
            "It counts from the coordinator's next look.",
        ]
        return Told(
            title=f"Set {setting.key}",
            lines=[line for line in lines if line],
            button="Set it",
            back="/settings",
            fields=(
                Field(
                    "value", "Value", value=setting.text if setting.value not in (None, "") else ""
                ),
                Field("default", "Take the default again", "checkbox"),
            ),
        )

    async def _find(self, visit: Visit) -> Setting:
        listed = (await visit.read(SettingList, "GET /v1/settings")).settings
        found = next((each for each in listed if each.key == visit.path["key"]), None)
        if found is None:
            raise NotFoundError(f"there is no setting {visit.path['key']!r}")
        return found

    def body(self, visit: Visit) -> Wire:
        """As `rollcall config set` sends it: the text, which the coordinator reads."""
        default = visit.ticked("default")
        return SettingRequest(value=None if default else visit.typed("value"))

    def after(self, visit: Visit, answer: Answer) -> Goes:
        return Goes("/settings", f"{visit.path['key']} is set.")


DEEDS: tuple[Deed, ...] = (SettingDeed(),)
