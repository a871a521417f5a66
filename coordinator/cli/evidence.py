"""`rollcall evidence …`: one archive for each rollout, and whether it holds."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

from coordinator.cli.client import DEFAULT_CONFIG, Client, ConfigOption, JsonOption
from coordinator.cli.given import rollout_id
from coordinator.evidence.archive import MAX_PACKED
from coordinator.evidence.verify import verify as verify_archive
from shared.canonical import sha256_hex
from shared.durable import write_durable
from shared.errors import BadInputError, ConflictError, UsageError
from shared.terminal import print_json, say

HEX_SHA256 = 64

app = typer.Typer(help="What a rollout rests on, in one archive.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """What a rollout rests on, in one archive."""


@app.command()
def export(
    rollout: Annotated[str, typer.Argument(help="Its id, as `rollcall rollout status` shows it.")],
    output: Annotated[
        Path | None,
        typer.Option("--out", "--output", "-o", help="The file; evidence-ROLLOUT.tar.gz."),
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Fetch plan, history, readiness, attestations, reds, audit log and what proves them, into one archive."""
    id_ = rollout_id(rollout)
    path = output or Path(f"evidence-{rollout}.tar.gz")
    if path.exists():
        raise ConflictError(f"{path} exists", remedy="choose another name with --out")
    raw = asyncio.run(Client(config).ask("GET", f"/v1/rollouts/{id_}/evidence"))
    write_durable(path, raw)
    if as_json:
        print_json({"file": str(path), "bytes": len(raw), "sha256": sha256_hex(raw)})
    else:
        say(f"{path}: {len(raw)} bytes; check it with: rollcall evidence verify {path} --root ...")


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(help="What `rollcall evidence export` has written.")],
    root: Annotated[
        str, typer.Option(help="Fingerprint of a fleet root that you trust: 64 hex digits.")
    ],
    audit_head: Annotated[
        str | None, typer.Option(help="A head of the audit log, noted during the rollout.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check an archive offline, from the fleet's root on. Exit code 1 when something does not hold."""
    for name, text in (("--root", root), ("--audit-head", audit_head)):
        if text is not None and not _is_hex(text, HEX_SHA256):
            raise UsageError(f"{name} is 64 hex digits")
    with file.open("rb") as opened:
        raw = opened.read(MAX_PACKED + 1)
    if not raw:
        raise BadInputError(f"{file} is empty", remedy="export it again: rollcall evidence export")
    if len(raw) > MAX_PACKED:
        raise BadInputError(f"{file}: more than {MAX_PACKED >> 20} MiB is no evidence")
    found = verify_archive(raw, root, audit_head)
    if as_json:
        print_json({"file": str(file), "ok": found.ok, **found.model_dump(mode="json")})
    else:
        for each in found.checks:
            word = "holds" if each.holds else "FAILS"
            sys.stdout.write(f"{word}  {each.name}: {each.words}\n")
        wrong = sum(not each.holds for each in found.checks)
        verdict = f"{wrong} of {len(found.checks)} checks fail" if wrong else "everything holds"
        say(f"rollout {found.rollout or '?'}: {verdict}")
    if not found.ok:
        raise typer.Exit(1)


def _is_hex(text: str, length: int) -> bool:
    return len(text) == length and set(text) <= set("0123456789abcdef")
