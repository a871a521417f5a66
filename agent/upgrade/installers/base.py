"""What the steps ask of an installer. It is entered again after a crash at any point, like the steps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from agent.openclaw.cli import OpenClaw

if TYPE_CHECKING:
    from agent.upgrade.bookmark import Bookmark
    from agent.upgrade.context import Context, Deps

Evidence = dict[str, Any]


class Installer(Protocol):
    """`<home>/current` always leads to a folder that is named by the release's id and holds its lock and
    its seal; where the packages lie is the installer's matter. Everything raises RollcallError with a
    reason that a person can read."""

    @property
    def rehearses(self) -> bool:
        """Whether `openclaw` of a tree runs that tree's version before it is switched to."""
        ...

    async def staged(self, context: Context) -> Evidence | None:
        """Evidence when `stage` has nothing left to do."""
        ...

    async def stage(self, context: Context) -> Evidence:
        """Whatever can be made ready while the old gateway serves. Touches nothing that it uses."""
        ...

    async def verify(self, context: Context) -> Evidence:
        """What was staged, against what operators signed (P1); nothing is stopped before this passes."""
        ...

    async def switched(self, context: Context) -> Evidence | None:
        """Evidence when the new release already stands in place, whole."""
        ...

    async def switch(self, context: Context) -> Evidence:
        """Put the new release in place. The gateway is stopped, and its state has been copied."""
        ...

    async def can_put_back(self, deps: Deps, bookmark: Bookmark) -> None:
        """Raises StepFailed when what ran before is gone; asked before anything is undone."""
        ...

    async def put_back(self, deps: Deps, bookmark: Bookmark) -> None:
        """What ran before stands in place again; without the network. The state is back already."""
        ...

    async def drift(self, tree: Path) -> str | None:
        """Why what is installed now is not what `tree`, the release in use, stands for; None when it is.
        Asked again and again: cheap."""
        ...

    def openclaw(self, tree: Path) -> OpenClaw:
        """OpenClaw's command line of a tree."""
        ...
