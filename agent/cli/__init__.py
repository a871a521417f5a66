"""`rollcall-agent`: join a fleet, run the daemon, look at this node, take it back, put it on its host."""

from __future__ import annotations

import typer

from agent.cli import back, hosting, node
from shared.terminal import main_of

app = typer.Typer(
    help="The Rollcall agent of this node.", no_args_is_help=True, pretty_exceptions_enable=False
)
for commands in (node, back, hosting):
    app.add_typer(commands.app)

main = main_of(app, "rollcall-agent")
