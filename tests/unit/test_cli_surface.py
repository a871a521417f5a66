"""What all commands have in common: help, --json, exit codes, and no traceback whatever is closed, wrong or away."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner, Result

from coordinator.cli import app
from coordinator.cli.given import node_name, order_id, rollout_id, seconds
from coordinator.saying import moment, span
from shared.errors import RollcallError, UsageError
from shared.table import laid_out, plain
from tests.support.coordinatorkit import Running, joined, sync

SAYS_JSON_ANYWAY = {"coordinator openapi", "readiness schema"}
"""Their only output is a JSON document of another form."""


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


COMMANDS = dict(commands(get_command(app)))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_what_it_does_in_a_sentence(name: str) -> None:
    command = COMMANDS[name]
    first = (command.help or "").strip().splitlines()[0]
    assert first[0].isupper(), "a sentence"
    for each in command.params:
        assert getattr(each, "help", "x"), f"{each.name} says nothing of itself"
    shown = CliRunner().invoke(app, [*name.split(), "--help"])
    assert shown.exit_code == 0
    assert "Traceback" not in shown.output


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - SAYS_JSON_ANYWAY))
def test_every_command_can_answer_in_json(name: str) -> None:
    assert "--json" in {option for each in COMMANDS[name].params for option in each.opts}


def invoke(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def exit_code(found: Result) -> int:
    """As the process ends: what is raised is turned into a line and a code at the boundary."""
    error = found.exception
    return error.exit_code if isinstance(error, RollcallError) else found.exit_code


READS = {
    "node list": "nodes",
    "rollout history": "rollouts",
    "release list": "releases",
    "capability list": "capabilities",
    "order list": "orders",
    "traffic show": "nodes",
    "traffic history": "history",
    "traffic snapshots": "snapshots",
    "red list": "reds",
    "alert list": "alerts",
    "alert history": "alerts",
    "alert silences": "silences",
    "alert channels": "channels",
    "operator token list": "tokens",
    "audit list": "rows",
    "audit verify": "head",
    "config list": "settings",
    "config get soak": "value",
    "config history": "changes",
    "cohort list": "cohorts",
    "operator-metrics": "nodes",
    "node show a": "upgrades",
    "node history a": "upgrades",
    "sla sweep --dry-run": "found",
}
UNKNOWN = (
    "node show nobody",
    "node history nobody",
    "node restart nobody",
    "rollout status 00000000",
    "rollout watch 00000000",
    "rollout start 0123456789ab",
    "rollout plan nothing",
    "release unblock nothing",
    "capability show nothing",
    "capability publish nothing",
    "capability watch 00000000",
    "order show 00000000:nobody",
    "order cancel 00000000:nobody",
    "traffic set nobody 10 --reason x",
    "traffic snapshots nothing",
    "cohort drain nothing --build-id x",
    "red show a:1:1",
    "alert show 00000000",
    "alert test nothing",
    "operator token revoke 00000000",
    "evidence export 00000000",
    "config get nothing",
    "config set nothing 1",
    "config history nothing",
)
WRONG = (
    "node show NO_NAME",
    "node history NO_NAME",
    "node restart NO_NAME",
    "node revoke NO_NAME --yes",
    "node token create --ttl soon",
    "rollout status zz",
    "rollout watch --timeout soon",
    "rollout plan x --soak soon",
    "capability show NO_NAME",
    "capability publish NO_NAME",
    "capability watch zz",
    "capability watch 00000000 --wait soon",
    "order show nothing",
    "order create bake a",
    "order create restart a --wait soon",
    "alert show zz",
    "alert unsilence ../x",
    "alert silence --reason x",
    "alert silence --reason x --rule y --for soon",
    "traffic set a 10",
    "red show zz",
    "operator token create --name x --ttl soon",
    "evidence export zz",
    "config set soak soon",
    "sla sweep --dry-run --record-only",
    "bake",
    "order list --limit 0",
)


async def test_reads_unknown_names_and_wrong_usage(running: Running, tmp_path: Path) -> None:
    """Exit code 0 with one JSON document; 1 for what is not there; 2 for what cannot be meant. Errors name a remedy."""
    config = ["--config", str(running.settings.paths.client)]
    await sync(await joined(running, "a"))

    async def run(words: str, *more: str) -> Result:
        return await asyncio.to_thread(invoke, *words.split(), *more, *config)

    for words, field in READS.items():
        found = await run(words, "--json")
        value = json.loads(found.stdout[found.stdout.index("{") :])
        assert (found.exit_code, value["schemaVersion"], field in value) == (0, 1, True), words
        table = await run(words)
        assert table.exit_code == 0, words
    os.chdir(tmp_path)
    for words in UNKNOWN:
        assert exit_code(await run(words)) == 1, words
    for words in WRONG:
        assert exit_code(await run(words)) == 2, words


def rollcall(*words: str, **options: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "coordinator", *words],
        stdout=options.pop("stdout", subprocess.PIPE),
        stderr=subprocess.PIPE,
        **options,
    )


def client_of(tmp_path: Path, running: Running | None, **changes: str) -> Path:
    values = {"url": "https://127.0.0.1:1", "ca_file": "ca.crt", "token_file": "token"}
    (tmp_path / "token").write_text("rco_0_0")
    (tmp_path / "token").chmod(0o600)
    if running is not None:
        home = running.settings.paths
        values |= {"url": running.url, "token_file": str(home.token)}
        values["ca_file"] = running.client.config.ca_file.as_posix()
    values |= changes
    path = tmp_path / "client.toml"
    path.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items()))
    return path


async def test_who_cannot_reach_it_is_told_what_to_look_at(
    running: Running, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    wrong_token = client_of(tmp_path, running, token_file=str(tmp_path / "token"))
    found = await asyncio.to_thread(invoke, "node", "list", "--config", str(wrong_token))
    assert exit_code(found) == 1
    assert f"the token is in {tmp_path / 'token'}" in str(found.exception)
    (other / "ca.crt").write_bytes(b"no certificate")
    broken = client_of(other, None)
    found = await asyncio.to_thread(invoke, "node", "list", "--config", str(broken))
    assert "cannot be used as ca_file" in str(found.exception)
    (other / "ca.crt").write_bytes(running.client.config.ca_file.read_bytes())
    down = client_of(other, None)
    found = await asyncio.to_thread(invoke, "node", "list", "--config", str(down))
    assert exit_code(found) == 1
    assert "no answer from https://127.0.0.1:1/v1/nodes: connection refused" in str(found.exception)
    assert f"is `url` in {down} its address?" in str(found.exception)


async def test_ctrl_c_ends_the_looking_and_says_how_to_look_again(
    running: Running, tmp_path: Path
) -> None:
    await sync(await joined(running, "a"))
    config = str(running.settings.paths.client)
    process = await asyncio.to_thread(
        rollcall, "order", "create", "restart", "a", "--wait", "5m", "--config", config
    )
    async with asyncio.timeout(60):
        while not (await running.get("/v1/orders"))["orders"]:
            await asyncio.sleep(0.2)
    assert process.stderr is not None
    first = await asyncio.to_thread(process.stderr.readline)
    assert b"pending" in first
    process.send_signal(signal.SIGINT)
    _, said = await asyncio.to_thread(process.communicate)
    assert process.returncode == 130
    assert b"rollcall order cancel" in said
    assert b"Traceback" not in said
    order = (await running.get("/v1/orders"))["orders"][0]
    assert order["state"] == "pending", "the order stands"


def test_a_reader_that_has_gone_is_no_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = rollcall("coordinator", "openapi", stdout=writer)
    os.close(writer)
    _, said = process.communicate()
    assert (process.returncode, said) == (1, b"")


def test_a_stdout_that_is_closed_from_the_beginning_is_no_traceback() -> None:
    script = f'exec "{sys.executable}" -m coordinator coordinator openapi >&-'
    done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_tables_fit_the_terminal() -> None:
    columns = ["NODE", "STATE", "REASON"]
    rows = [["canary", "waiting", "frozen by a red of stable, which is open"], ["b", "done", ""]]
    wide = laid_out(columns, rows, 80)
    assert wide[1] == "canary  waiting  frozen by a red of stable, which is open"
    assert wide[2] == "b       done"
    narrow = laid_out(columns, rows, 40)
    assert max(map(len, narrow)) <= 40
    assert narrow[1:3] == [
        "canary  waiting  frozen by a red of",
        "                 stable, which is open",
    ]
    tiny = laid_out(columns, rows, 26)
    assert tiny[:3] == ["NODE    canary", "STATE   waiting", "REASON  frozen by a red of"]
    assert tiny[-3:] == ["", "NODE    b", "STATE   done"]
    assert tiny.count("") == 1


def test_words_of_others_are_shown_as_they_are() -> None:
    """Brackets are no markup, and nothing moves a cursor or makes a line of its own."""
    cells = [["first [f544dd12]", "[/bold] \x1b[2Jx\ty\nz"]]
    assert laid_out(["WHO", "WHY"], cells, 80)[1] == "first [f544dd12]  [/bold] [2Jx y z"
    assert plain("a\u202eb") == "a b"


def test_times_are_utc_and_say_so() -> None:
    assert moment(0) == "1970-01-01 00:00:00Z"
    assert moment(None) == "-"
    spans = [span(each) for each in (-3, 45, 119, 120, 3600, 12_000, 200_000)]
    assert spans == ["0 s", "45 s", "119 s", "2 min", "1 h 0 min", "3 h 20 min", "2 d 7 h"]


@pytest.mark.parametrize(
    ("check", "text"),
    [(node_name, "A"), (order_id, "x"), (rollout_id, "x"), (rollout_id, "../nodes")],
)
def test_what_cannot_be_meant_is_wrong_usage(check: Any, text: str) -> None:
    with pytest.raises(UsageError) as refused:
        check(text)
    assert text in refused.value.message
    assert refused.value.remedy is not None
    assert refused.value.exit_code == 2


def test_a_duration_names_its_option() -> None:
    with pytest.raises(UsageError, match="--wait: 'soon' is not a duration"):
        seconds("--wait", "soon")
