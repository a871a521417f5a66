"""`rollcall open`: the admin page in a browser that needs no token typed."""

from __future__ import annotations

import asyncio
import sys
import webbrowser
from typing import Annotated

import typer

from coordinator.api.pagelinks import PageLink
from coordinator.cli.client import DEFAULT_CONFIG, Client, ConfigOption, JsonOption
from coordinator.saying import moment
from shared.terminal import EXIT_MISSING, print_json, say


def open_page(
    only_print: Annotated[
        bool, typer.Option("--print", help="Print the link, start no browser.")
    ] = False,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Open the admin page in the browser, signed in with your token. The link for it works once, within a minute;
    --json, too, only prints it."""
    client = Client(config)
    link = PageLink.from_value(client.post("/v1/page-links", {}))
    url, seen = client.config.url + link.path, asyncio.run(client.certificate_sha256())
    if as_json:
        print_json({"url": url, "expires": link.expires, "certificate_sha256": seen})
        return
    if only_print:
        sys.stdout.write(f"{url}\n")
        say(f"it works once, until {moment(link.expires)}")
    say(f"the coordinator's certificate has the SHA-256 {seen}:")
    say("  where the browser does not know the fleet's authority, compare it before you go on")
    if not only_print and not webbrowser.open(url):
        say("rollcall: no browser could be started here")
        say(f"  open this one yourself; it works once, until {moment(link.expires)}:")
        sys.stdout.write(f"{url}\n")
        raise typer.Exit(EXIT_MISSING)
