"""`rollcall-agent`: join a fleet, run the daemon, look at this node, take it back, put it on its host."""

from __future__ import annotations

import typer

from agent.cli import adopt, back, freezing, hosting, node, reds
from agent.cli.options import show_version
from shared.terminal import main_of

app = typer.Typer(
    help="The Rollcall agent of this node.", no_args_is_help=True, pretty_exceptions_enable=False
)
app.callback()(show_version)
for commands in (node, reds, freezing, back, adopt, hosting):
    app.add_typer(commands.app)

main = main_of(app, "rollcall-agent")
