"""`rollcall`: the operator's command line. Nouns, then verbs."""

from __future__ import annotations

import typer

from coordinator.cli import (
    alert,
    audit,
    keys,
    node,
    operator,
    readiness,
    red,
    release,
    rollout,
    serve,
    target,
)
from shared.terminal import main_of

app = typer.Typer(
    help="Moves a fleet of Macs from one OpenClaw release to the next, and back.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(serve.app, name="coordinator")
app.add_typer(keys.app, name="keys")
app.add_typer(node.app, name="node")
app.add_typer(release.app, name="release")
app.add_typer(target.app, name="target")
app.add_typer(rollout.app, name="rollout")
app.add_typer(red.app, name="red")
app.add_typer(readiness.app, name="readiness")
app.add_typer(operator.app, name="operator")
app.add_typer(audit.app, name="audit")
app.add_typer(alert.app, name="alert")

main = main_of(app, "rollcall")
