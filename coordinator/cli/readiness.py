"""`rollcall readiness …`: what can be said of readiness documents without asking anybody."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from coordinator.cli.client import JsonOption
from shared import comparing
from shared.errors import BadInputError, RollcallError, UsageError
from shared.readiness import (
    MAX_DOCUMENT_BYTES,
    ReadinessDocument,
    document_schema,
    read_document,
)
from shared.terminal import print_json, say

STDIN = Path("-")
MADE_BY = "rollcall-agent readiness --verbose --json"

app = typer.Typer(help="Readiness documents of nodes, offline.", no_args_is_help=True)

FileArgument = Annotated[
    Path, typer.Argument(metavar="FILE", help=f"What `{MADE_BY}` printed; - is stdin.")
]


@app.callback()
def group() -> None:
    """Readiness documents of nodes, offline."""


@app.command()
def verify(file: FileArgument, as_json: JsonOption = False) -> None:
    """Recompute both hashes of a document and its status. Exit code 1 names each difference.

    The evidence is in a document that was asked for with --verbose; without it that hash is not checked.
    """
    found = comparing.verify(*_read(file))
    if as_json:
        said = {
            "node": found.node,
            "ok": not found.differences,
            "checked": found.checked,
            "unchecked": found.unchecked,
            "differences": found.differences,
        }
        print_json(said)
    else:
        for name in found.unchecked:
            say(f"{name} is not checked: the document has no evidence; make one with: {MADE_BY}")
        for words in found.differences:
            sys.stdout.write(words + "\n")
        if not found.differences:
            say(f"{found.node}: {', '.join(found.checked)} are what the document says")
    if found.differences:
        raise typer.Exit(1)


@app.command()
def diff(
    a: Annotated[Path, typer.Argument(metavar="A", help="A document of one node; - is stdin.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="One of another node, or a later one.")],
    as_json: JsonOption = False,
) -> None:
    """Say in words why two nodes differ: first what is hashed, then verdict and checks. Exit code 1 if they do.

    Times, ages and measured numbers are no difference.
    """
    if a == b == STDIN:
        raise UsageError("only one of the two can be read from stdin")
    (_, left), (_, right) = _read(a), _read(b)
    names = _names(left, right, (str(a), str(b)))
    found = comparing.diff(left, right, names)
    if as_json:
        differences = [vars(each) for each in found]
        print_json({"a": names[0], "b": names[1], "same": not found, "differences": differences})
    elif not found:
        say(f"{names[0]} and {names[1]} do not differ")
    for each in [] if as_json else found:
        sys.stdout.write(each.words + "\n")
    if found:
        raise typer.Exit(1)


@app.command()
def schema() -> None:
    """Print the JSON Schema of the document."""
    sys.stdout.write(json.dumps(document_schema(), indent=2, ensure_ascii=False) + "\n")


def _names(a: ReadinessDocument, b: ReadinessDocument, files: tuple[str, str]) -> tuple[str, str]:
    """The nodes' own, unless both are of one node."""
    return (a.node, b.node) if a.node != b.node else files


def _read(path: Path) -> tuple[dict[str, Any], ReadinessDocument]:
    """Raises RollcallError that names the file."""
    try:
        if path == STDIN:
            raw = sys.stdin.buffer.read(MAX_DOCUMENT_BYTES + 1)
        else:
            with path.open("rb") as file:
                raw = file.read(MAX_DOCUMENT_BYTES + 1)
    except OSError as error:
        raise RollcallError(f"{path}: {error.strerror or error}") from error
    if len(raw) > MAX_DOCUMENT_BYTES:
        raise BadInputError(
            f"{path}: more than {MAX_DOCUMENT_BYTES >> 20} MiB is no readiness document"
        )
    try:
        return read_document(raw)
    except BadInputError as error:
        raise BadInputError(f"{path}: {error.message}", remedy=error.remedy) from error
