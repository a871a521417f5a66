"""`/releases` and `/capabilities`: what operators have signed, and the gates that it went through."""

from __future__ import annotations

from coordinator.api.inside import read_answer
from coordinator.api.releases import ReleaseList
from coordinator.page.deeds import MUST_REASON, REASON, Answer, Deed, Field, Told
from coordinator.page.pages.fleet import LOOK_MS, nodes_of, settings_of
from coordinator.page.visit import Drawn, Goes, Group, PageRoute, Visit
from shared.capability import (
    CapabilityDetail,
    CapabilityList,
    CapabilityRun,
    PublishRequest,
    UnpublishRequest,
)
from shared.rollout import Unblocked, VerbRequest
from shared.wire import Wire

RELEASES, CAPABILITIES = "/releases", "/capabilities"


class ReleasePages(Group):
    async def releases(self, visit: Visit) -> Drawn:
        listed = (await visit.read(ReleaseList, "GET /v1/releases")).releases
        nodes = await nodes_of(visit)
        values = {
            "releases": sorted(listed, key=lambda each: each.created, reverse=True),
            "runs": {each.id: sum(node.release == each.id for node in nodes) for each in listed},
            "latest": (await settings_of(visit))["latest"],
        }
        return Drawn("releases.html", "Releases", values, active=RELEASES)

    async def capabilities(self, visit: Visit) -> Drawn:
        listed = (await visit.read(CapabilityList, "GET /v1/capabilities")).capabilities
        return Drawn("capabilities.html", "Capabilities", {"listed": listed}, active=CAPABILITIES)

    async def capability(self, visit: Visit) -> Drawn:
        detail = await visit.read(CapabilityDetail, "GET /v1/capabilities/{name}", visit.path)
        values = {"detail": detail, "every_ms": LOOK_MS}
        return Drawn("capability.html", detail.name, values, active=CAPABILITIES)

    routes = (
        PageRoute("GET", "/releases", releases),
        PageRoute("GET", "/capabilities", capabilities),
        PageRoute("GET", "/capabilities/{name}", capability),
    )


class UnblockDeed(Deed):
    active = RELEASES
    path = "/releases/{id}/unblock"
    action = "POST /v1/releases/{id}/unblock"

    async def tell(self, visit: Visit) -> Told:
        lines = [
            "The rollbacks of this release are forgotten, so that it can be rolled out again.",
            "Nodes that block it themselves still do: rollcall-agent blocklist on the node.",
        ]
        return Told("Unblock the release", lines, "Unblock", RELEASES, (REASON,))

    def body(self, visit: Visit) -> Wire:
        return VerbRequest.from_value({"reason": visit.typed("reason")})

    def after(self, visit: Visit, answer: Answer) -> Goes:
        found = read_answer(Unblocked, answer)
        return Goes(RELEASES, f"{found.forgotten} rollbacks are forgotten.")


class CapabilityDeed(Deed):
    """Publish or unpublish; a dry run shows the gates and begins nothing."""

    active = CAPABILITIES

    def __init__(self, *, publish: bool) -> None:
        self._publish = publish
        self._word = "publish" if publish else "unpublish"
        self.path = f"/capabilities/{{name}}/{self._word}"
        self.action = f"POST /v1/capabilities/{self._word}"

    async def tell(self, visit: Visit) -> Told:
        detail = await visit.read(CapabilityDetail, "GET /v1/capabilities/{name}", visit.path)
        versions = tuple(
            (f"{each.name}@{each.version}", f"{each.version}, {each.state}")
            for each in detail.versions
        )
        lines = {
            True: "It is put onto its owner first, then onto the other nodes, through the gates G0 to G9;"
            " what fails takes every node back to what it had.",
            False: "It is taken out of use and off its nodes, through the gates U0 to U4, and kept as an archive.",
        }
        dry = Field("dry_run", "Dry run: only show the gates", "checkbox", "yes")
        picked = Field("capability", "Version", "select", options=versions)
        return Told(
            title=f"{self._word.capitalize()} {detail.name}",
            lines=[lines[self._publish]],
            button=self._word.capitalize(),
            back=f"/capabilities/{detail.name}",
            fields=(picked, dry, MUST_REASON),
            danger=not self._publish,
        )

    def body(self, visit: Visit) -> Wire:
        form = visit.form
        model = PublishRequest if self._publish else UnpublishRequest
        return model.from_value(
            {
                "capability": form.get("capability", ""),
                "reason": visit.typed("reason"),
                "dry_run": visit.ticked("dry_run"),
            }
        )

    def after(self, visit: Visit, answer: Answer) -> Drawn | Goes:
        run = read_answer(CapabilityRun, answer)
        if visit.ticked("dry_run"):
            values = {"run": run, "name": visit.path["name"]}
            return Drawn("run.html", f"Dry run: {run.label}", values, active=CAPABILITIES)
        return Goes(f"/capabilities/{visit.path['name']}", f"Begun: {self._word} {run.label}.")


DEEDS: tuple[Deed, ...] = (
    UnblockDeed(),
    CapabilityDeed(publish=True),
    CapabilityDeed(publish=False),
)
