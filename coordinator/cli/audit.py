"""`rollcall audit …`: who changed what, and whether the log still is what was written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from coordinator.audit import AuditPage, Chain
from coordinator.cli.client import DEFAULT_CONFIG, Client, ConfigOption, JsonOption
from coordinator.saying import moment
from shared.errors import BadInputError, UsageError
from shared.terminal import print_json, print_table, say

PAGE = 500
HEAD_CHARS = 64

app = typer.Typer(help="The audit log of the coordinator.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """The audit log of the coordinator."""


@app.command("list")
def list_rows(
    limit: Annotated[int, typer.Option(min=1, max=PAGE, help="At most so many rows.")] = 50,
    after: Annotated[
        int | None, typer.Option(min=0, help="Rows after the one with this id, not the latest.")
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """The latest rows of the log, oldest first."""
    client = Client(config)
    if after is None:
        after = max(0, AuditPage.from_value(client.get("/v1/audit?limit=1")).last - limit)
    page = AuditPage.from_value(client.get(f"/v1/audit?after={after}&limit={limit}"))
    if as_json:
        print_json(page.model_dump(mode="json"))
        return
    rows = [
        [
            str(row.id),
            moment(row.at),
            row.who,
            row.role,
            row.address,
            str(row.status),
            row.action,
            row.subject,
            row.detail,
        ]
        for row in page.rows
    ]
    columns = ["ID", "AT", "WHO", "ROLE", "FROM", "STATUS", "ACTION", "SUBJECT", "DETAIL"]
    print_table(columns, rows, empty="nothing has been changed yet")


@app.command()
def verify(
    expect: Annotated[
        str | None, typer.Option(help="A head noted earlier, which must be in the log.")
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Recompute the whole chain here. Exit code 1 names the first row that does not fit.

    Note the head that it prints: with --expect a later run shows that nothing before it was cut off or
    written anew.
    """
    if expect is not None and len(expect) != HEAD_CHARS:
        raise UsageError("--expect is a head as `rollcall audit verify` prints it: 64 hex digits")
    chain = Chain()
    for row in _rows(Client(config)):
        chain.add(row)
    if expect is not None:
        chain.must_contain(expect)
    if as_json:
        print_json({"count": chain.count, "head": chain.head})
    else:
        say(f"{chain.count} rows, each fits the one before it; the head is")
        typer.echo(chain.head)


def _rows(client: Client) -> Iterator[dict[str, Any]]:
    after = 0
    while True:
        rows = client.get(f"/v1/audit?after={after}&limit={PAGE}").get("rows")
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise BadInputError("the coordinator's answer is not a page of the audit log")
        if not rows:
            return
        yield from rows
        after += len(rows)
