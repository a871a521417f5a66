"""`/reds`: failure broadcasts, who holds them, whom they freeze, and how operators end one."""

from __future__ import annotations

from aiohttp import web

from coordinator.api.reds import RedDetail, RedList
from coordinator.page.deeds import Answer, Deed, Field, Told
from coordinator.page.pages.fleet import OFTEN_MS, nodes_of
from coordinator.page.views.fleet import open_red
from coordinator.page.visit import Drawn, Goes, Group, PageRoute, Visit
from shared.errors import BadInputError
from shared.operatorclear import ClearFile
from shared.sparkline import in_words

SHOWN_ENDED = 50
MENU = "/reds"
HAND_IN = "POST /v1/reds/clears"


class RedPages(Group):
    async def listing(self, visit: Visit) -> Drawn:
        reds = (await visit.read(RedList, "GET /v1/reds")).reds
        nodes = await nodes_of(visit)
        values = {
            "open": [open_red(red, nodes) for red in reds if red.open],
            "ended": [red for red in reds if not red.open][: -SHOWN_ENDED - 1 : -1],
            "frozen": [node for node in nodes if node.freezes],
            "told": [
                (node.name, said, _fastest(said.acked_ms))
                for node in nodes
                for said in node.broadcasts
            ],
            "every_ms": OFTEN_MS,
        }
        return Drawn("reds.html", "Reds", values, active=MENU)

    async def show(self, visit: Visit) -> Drawn:
        key = visit.path["key"]
        detail = await visit.read(RedDetail, "GET /v1/reds/{key}", {"key": key})
        nodes = await nodes_of(visit)
        values = {
            "detail": detail,
            "red": open_red(detail.view, nodes),
            "hand_in": HAND_IN,
            "every_ms": OFTEN_MS,
        }
        return Drawn("red.html", f"Red of {detail.view.origin}", values, active=MENU)

    async def draft(self, visit: Visit) -> web.StreamResponse:
        """As `rollcall red clear` writes it where no keys are: what operators read, then sign."""
        visit.inside.must(visit.signed.caller, HAND_IN)
        key, reason = visit.path["key"], visit.asked("reason").strip()
        if not reason:
            raise BadInputError("a clear needs a reason", remedy="say why the red is over")
        detail = await visit.read(RedDetail, "GET /v1/reds/{key}", {"key": key})
        file = ClearFile.draft(detail.red, reason, visit.now)
        name = f"{key.replace(':', '-')}.clear"
        return web.Response(
            body=file.canonical(),
            content_type="application/octet-stream",
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )

    routes = (
        PageRoute("GET", "/reds", listing),
        PageRoute("GET", "/reds/{key}", show),
        PageRoute("GET", "/reds/{key}/draft", draft),
    )


class ClearDeed(Deed):
    """Hands in what operators have signed: their signatures count, not who is signed in here."""

    active = MENU
    path = "/reds/{key}/clear"
    action = HAND_IN

    async def tell(self, visit: Visit) -> Told:
        view = (await visit.read(RedDetail, "GET /v1/reds/{key}", visit.path)).view
        return Told(
            title=f"End the red of {view.origin}",
            lines=[
                f"It ends for all nodes, and with it their freeze: {view.reason}",
                "Nodes believe only as many operators' signatures as a release needs; fewer are refused.",
                "If the cause is still there, the node raises another red.",
            ],
            button="End the red",
            back=f"/reds/{view.key}",
            fields=(
                Field("file", "Signed file", "area", hint="all of what is in it", required=True),
            ),
        )

    def body(self, visit: Visit) -> bytes:
        file = ClearFile.from_bytes(visit.typed("file").encode())
        file.check()
        if file.clear.ref != visit.path["key"]:
            raise BadInputError(f"this file ends {file.clear.ref}, not {visit.path['key']}")
        if not file.envelope:
            raise BadInputError(
                "nobody has signed this file", remedy="where the keys are: rollcall red sign FILE"
            )
        return file.envelope.encode()

    def after(self, visit: Visit, answer: Answer) -> Goes:
        return Goes(f"/reds/{visit.path['key']}", "Ended. Nodes take it from here.")


DEEDS: tuple[Deed, ...] = (ClearDeed(),)


def _fastest(acked_ms: dict[str, float]) -> str:
    """`canary 3 ms, stable 5 ms`."""
    ordered = sorted(acked_ms.items(), key=lambda each: each[1])
    return ", ".join(f"{name} {in_words(took, 'ms')}" for name, took in ordered)
