"""One phase a file. Each step is idempotent and says whether it is already done."""

from __future__ import annotations

from typing import Final

from agent.upgrade.phases import Phase
from agent.upgrade.steps.attest import Attest
from agent.upgrade.steps.base import Step
from agent.upgrade.steps.claim import Claim
from agent.upgrade.steps.drain import Drain
from agent.upgrade.steps.freeze import Freeze
from agent.upgrade.steps.migrate import Migrate
from agent.upgrade.steps.prove import Prove
from agent.upgrade.steps.reopen import Reopen
from agent.upgrade.steps.restart import Restart
from agent.upgrade.steps.rollback import RollBack
from agent.upgrade.steps.settle import Settle
from agent.upgrade.steps.snapshot import Snapshot
from agent.upgrade.steps.soak import Soak
from agent.upgrade.steps.stage import Stage
from agent.upgrade.steps.switch import Switch
from agent.upgrade.steps.verify import Verify

_ALL: tuple[Step, ...] = (
    Claim(),
    Freeze(),
    Stage(),
    Verify(),
    Drain(),
    Snapshot(),
    Switch(),
    Migrate(),
    Restart(),
    Prove(),
    Attest(),
    Settle(),
    Soak(),
    Reopen(),
    RollBack(),
)
STEPS: Final[dict[Phase, Step]] = {step.phase: step for step in _ALL}
