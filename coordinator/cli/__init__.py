"""`rollcall`: the operator's command line. Nouns, then verbs."""

from __future__ import annotations

import typer

from coordinator.cli import (
    alert,
    audit,
    capability,
    cohort,
    config,
    evidence,
    keys,
    node,
    openpage,
    operating,
    operator,
    order,
    readiness,
    red,
    release,
    rolloutverbs,
    serve,
    sla,
    target,
    traffic,
)
from shared.terminal import main_of

app = typer.Typer(
    help="Moves a fleet of Macs from one OpenClaw release to the next, and back.",
    epilog="Exit codes: 0 done; 1 refused, failed or not there; 2 wrong usage; 3 something needed is missing; "
    "4 halted; 5 timed out; 130 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(serve.app, name="coordinator")
app.add_typer(keys.app, name="keys")
app.add_typer(node.app, name="node")
app.add_typer(release.app, name="release")
app.add_typer(target.app, name="target")
app.add_typer(rolloutverbs.app, name="rollout")
app.add_typer(capability.app, name="capability")
app.add_typer(order.app, name="order")
app.add_typer(sla.app, name="sla")
app.add_typer(traffic.app, name="traffic")
app.add_typer(red.app, name="red")
app.add_typer(readiness.app, name="readiness")
app.add_typer(operator.app, name="operator")
app.add_typer(audit.app, name="audit")
app.add_typer(alert.app, name="alert")
app.add_typer(evidence.app, name="evidence")
app.add_typer(config.app, name="config")
app.add_typer(cohort.app, name="cohort")
app.command("open")(openpage.open_page)
app.command("operator-metrics")(operating.operator_metrics)

main = main_of(app, "rollcall")
