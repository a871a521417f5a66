"""The gateway's logs: followed over whatever happens to a file, reduced to forms, compared by release."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.readiness.logs import follow
from agent.readiness.logs.follow import MAX_BACKLOG, MAX_LINE, Follower
from agent.readiness.logs.forms import MAX_FORMS, MAX_RELEASES, Forms
from agent.readiness.logs.gateway import FILE, SAVE_EVERY_S, GatewayLogs, Rolling
from agent.readiness.logs.lines import error_in
from agent.readiness.logs.masking import HIDDEN, MAX_SHOWN, example_of, template_of
from agent.readiness.probes.logs import LogProbe
from agent.readiness.reading import Reading
from shared.readiness import CheckStatus
from tests.conftest import ManualClock

A, B, C = (letter * 64 for letter in "abc")
ME = frozenset({os.geteuid()})

pieces = st.one_of(
    st.text(max_size=40),
    st.from_regex(r"[\w ./:'\"\[\]()=@<>-]{0,40}", fullmatch=True),
    st.sampled_from(
        ["2026-11-20T11:07:15.455Z", "10.0.0.1:443", "[::1]:1", "/a/b.js:1:2", "token="]
    ),
)
messages = st.lists(pieces, max_size=12).map(" ".join)


@given(messages)
@example("Authorization: Bearer abc")
@example("'a' \"b 'c\" d")
def test_a_template_is_stable_and_has_no_digits(message: str) -> None:
    template = template_of(message)
    assert template_of(template) == template
    assert not re.search(r"\d", template)
    assert len(template) <= MAX_SHOWN
    assert "\n" not in template + example_of(message)


@given(numbers=st.tuples(st.integers(0, 10**9), st.integers(0, 65535)), name=st.uuids())
def test_two_occurrences_have_one_template(numbers: tuple[int, int], name: object) -> None:
    def say(number: int, port: int, which: object) -> str:
        return (
            f"session {which} failed after {number} ms: connect ECONNREFUSED 10.1.2.3:{port}"
            f" at /srv/app/{number}/x.js:{port}"
        )

    wanted = template_of(say(1, 2, "0f2e60e4-64a2-4f7e-a9e3-0c3a2f2d9a11"))
    assert template_of(say(*numbers, name)) == wanted
    assert (
        wanted == "session <id> failed after <n> ms: connect ECONNREFUSED <address> at <path>:<n>"
    )


secrets = st.text(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-", min_size=12
).map(lambda text: f"q7{text}")


@given(
    secret=secrets,
    form=st.sampled_from(
        [
            "Authorization: Bearer {}",
            'headers {{"authorization":"Bearer {}"}}',
            "bad token={} given",
            'config has "apiKey": "{}"',
            "OPENAI_API_KEY={}",
            "password: {}",
            "GET https://user:{}@host/x failed",
            "fetch https://api.telegram.org/bot?access_token={} failed",
            "key sk-{} was refused",
            "cookie: '{}'",
            "client_secret => {}",
        ]
    ),
)
def test_no_secret_is_shown(secret: str, form: str) -> None:
    for shown in (example_of(form.format(secret)), template_of(form.format(secret))):
        assert secret not in shown
        assert secret[3:] not in shown


def test_words_that_only_look_alike_stay() -> None:
    for text in (
        "token refresh failed",
        "Basic authentication failed",
        "OpenClawStateDatabaseSchemaMigrationRequiredError: run doctor",
        "session 0f2e60e4-64a2-4f7e-a9e3-0c3a2f2d9a11 lost",
        "Invalid config at /very/long/path/that/leads/somewhere/deep/below/openclaw.json",
    ):
        assert example_of(text) == text
        assert HIDDEN not in template_of(text)


def record(level: str, message: str, code: str, **meta: Any) -> bytes:
    """A line as OpenClaw 2026.9.6 writes it."""
    value = {
        "0": '{"subsystem":"gateway"}',
        "1": message,
        "_meta": {
            "name": '{"subsystem":"gateway"}',
            "logLevelName": level,
            "path": {"fullFilePath": f"file://{code}/dist/subsystem-x.mjs:1:2"},
            **meta,
        },
        "message": message,
    }
    return json.dumps(value, separators=(",", ":")).encode()


def test_which_lines_are_errors_of_this_gateway() -> None:
    def ours(path: str) -> bool:
        return path.startswith("/our tree/")

    assert error_in(record("ERROR", "broke", "/our tree/openclaw"), ours) == "broke"
    assert error_in(record("FATAL", "broke", "/our%20tree/openclaw"), ours) == "broke"
    for line in (
        record("WARN", "careful", "/our tree/openclaw"),
        record("ERROR", "of another gateway", "/their tree/openclaw"),
        record("ERROR", "of a command", "/our tree/openclaw", name="openclaw"),
        b'{"_meta":{"logLevelName":"ERROR"',
        b'{"_meta":"ERROR"}',
        b'{"message":"ERROR"}',
        b'["ERROR"]',
        b"",
        b"\xff\xfe\x00ERROR",
        b"2026-11-20T10:00:00.000+00:00 [gateway] Error: said in its own log too",
        b"all is well, no Error: here",
    ):
        assert error_in(line, ours) is None, line
    assert error_in(b'{"level":"error","message":"x"}', ours) == "x"
    assert error_in(b'{"level":50,"msg":"x"}', ours) == "x"
    for text in (
        "TypeError: x is not a function",
        "[openclaw] Uncaught exception: no",
        "FATAL ERROR: Reached heap limit Allocation failed",
        "2026-11-20T10:00:00.000+00:00 Unhandled rejection",
    ):
        assert error_in(text.encode(), ours) == text


class Log:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.follower = Follower(lambda: path, ME)

    def write(self, *lines: str, end: str = "\n") -> None:
        with self.path.open("ab") as file:
            file.write(("\n".join(lines) + end).encode())

    def read(self) -> list[str]:
        lines: list[str] = []
        while more := self.follower.read():
            lines += [line.decode() for line in more]
        return lines


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "gateway.log")


def test_a_log_is_read_on_from_where_it_was_left(log: Log) -> None:
    assert log.read() == [], "it is not there yet"
    log.write("one", "two")
    assert log.read() == ["one", "two"]
    log.write("half", end="")
    assert log.read() == []
    log.write("way", "next")
    assert log.read() == ["halfway", "next"]


def test_rotation_loses_no_line(log: Log) -> None:
    log.write("one")
    assert log.read() == ["one"]
    log.write("last of the old")
    log.path.rename(log.path.with_suffix(".1.log"))
    log.write("first of the new")
    assert log.read() == ["last of the old", "first of the new"]
    log.path.unlink()
    assert log.read() == []
    log.write("again")
    assert log.read() == ["again"]


def test_truncation_begins_anew(log: Log) -> None:
    log.write("a long line that was there")
    log.read()
    os.truncate(log.path, 0)
    log.write("new")
    assert log.read() == ["new"]


def test_what_was_there_before_the_first_agent_is_old_and_a_restart_goes_on(log: Log) -> None:
    log.write("old")
    log.follower.begin(None)
    log.write("new")
    assert log.read() == ["new"]
    log.write("later", "half", end="")
    assert log.read() == ["later"]
    place = log.follower.place
    assert place is not None
    again = Log(log.path)
    again.follower.begin({str(log.path): place})
    log.write(" done")
    assert again.read() == ["half done"]
    log.path.rename(log.path.with_suffix(".1"))
    log.write("other file")
    third = Log(log.path)
    third.follower.begin({str(log.path): place})
    assert third.read() == ["other file"]


def test_a_line_without_end_takes_no_memory(log: Log) -> None:
    log.write("x" * (MAX_LINE * 5), end="")
    assert log.read() == []
    assert log.follower.skipped >= MAX_LINE * 4
    assert len(log.follower._carry) <= MAX_LINE + follow.MAX_READ
    log.write("still that line", "good")
    assert log.read() == ["good"]


def test_a_burst_is_read_in_parts_and_a_flood_is_skipped(log: Log) -> None:
    log.write(*(f"line {number:6}" for number in range(60_000)))
    assert len(log.follower.read()) < 20_000
    assert len(log.read()) > 40_000
    with log.path.open("ab") as file:
        file.write((b"flood" * 200 + b"\n") * (MAX_BACKLOG // 500))
        file.write(b"the end\n")
    assert log.read()[-1] == "the end"
    assert log.follower.skipped > 0


def test_what_was_planted_is_not_read(tmp_path: Path, log: Log) -> None:
    secret = tmp_path / "secret"
    secret.write_text("Error: secret\n")
    log.path.symlink_to(secret)
    assert log.read() == []
    assert "a link at 'gateway.log'" in log.follower.refused
    log.path.unlink()
    os.mkfifo(log.path)
    assert log.read() == []
    assert "not a regular file" in log.follower.refused
    log.path.unlink()
    log.write("real")
    assert log.read() == ["real"]
    assert log.follower.refused == ""
    stranger = Follower(lambda: log.path, frozenset({os.geteuid() + 1}))
    assert stranger.read() == []
    assert "not to the gateway's account" in stranger.refused


def test_the_log_of_the_day_is_the_newest(tmp_path: Path) -> None:
    rolling = Rolling(tmp_path, os.geteuid())
    assert rolling() is None
    folder = tmp_path / "openclaw"
    folder.mkdir()
    for name in ("openclaw-2026-11-19.log", "openclaw-2026-11-20.log", "openclaw-2026-11-20.1.log"):
        (folder / name).touch()
    (folder / "openclaw.log").touch()
    assert rolling() == folder / "openclaw-2026-11-20.log"
    other = tmp_path / f"openclaw-{os.geteuid() + 1}"
    other.mkdir()
    assert Rolling(tmp_path, os.geteuid() + 1)() is None, "neither folder is that account's"


def new_forms(forms: Forms) -> dict[str, int]:
    return {form.template: form.count for form in forms.report().forms if form.new}


def test_new_is_what_the_release_before_did_not_have(tmp_path: Path) -> None:
    forms = Forms(tmp_path / FILE)
    forms.note("before any release", 0)
    assert forms.runs(A, 1)
    forms.note("known 1", 2)
    assert new_forms(forms) == {}, "nothing to compare with"
    assert not forms.runs(A, 3)
    assert forms.runs(B, 10)
    for number in range(3):
        forms.note(f"known {number}", 11)
        forms.note(f"new {number}", 12 + number)
    seen = forms.report()
    assert new_forms(forms) == {"new <n>": 3}
    assert (seen.new_errors, seen.before, seen.since) == (3, A, 10)
    assert (seen.forms[0].example, seen.forms[0].first, seen.forms[0].last) == ("new 0", 12, 14)
    assert forms.runs(A, 20), "the way back"
    forms.note("something else", 21)
    assert new_forms(forms) == {}
    assert forms.runs(B, 30), "tried again"
    forms.note("new 7", 31)
    assert new_forms(forms) == {"new <n>": 1}, "counted from its start"


def test_forms_are_bounded_and_durable(tmp_path: Path) -> None:
    forms = Forms(tmp_path / FILE)
    for number in range(MAX_RELEASES + 3):
        forms.runs(f"{number:064x}", number)
    names = [
        f"error of kind {chr(97 + n // 26 % 26)}{chr(97 + n % 26)}" for n in range(MAX_FORMS + 9)
    ]
    for name in names:
        forms.note(name, 50)
    assert (len(forms.report().forms), forms.report().more) == (MAX_FORMS, 9)
    forms.save({"/x": follow.Place(7, 9)})
    again = Forms(tmp_path / FILE)
    again.load()
    assert again.report() == forms.report()
    assert again.places == {"/x": follow.Place(7, 9)}
    (tmp_path / FILE).write_text("{")
    broken = Forms(tmp_path / FILE)
    broken.load()
    assert broken.places is None


class Rig:
    """A node with two releases, and the logs of its gateway."""

    def __init__(self, folder: Path, clock: ManualClock) -> None:
        self.folder, self.clock = folder, clock
        self.log = Log(folder / "openclaw" / "openclaw-2026-11-20.log")
        self.log.path.parent.mkdir()
        self.current = folder / "current"
        for release in (A, B):
            (folder / release / "node_modules" / "openclaw").mkdir(parents=True)
        self.switch(A)
        self.start()

    def start(self) -> None:
        self.forms = Forms(self.folder / FILE)
        follower = Follower(Rolling(self.folder, os.geteuid()), ME)
        self.logs = GatewayLogs(self.forms, [follower], self.current, self.clock)
        self.probe = LogProbe(
            self.logs, self.current, self.clock, period_s=10, limit=3, judged_for_s=3600
        )

    def switch(self, release: str) -> None:
        self.current.unlink(missing_ok=True)
        self.current.symlink_to(self.folder / release)

    def error(self, message: str, release: str = B) -> None:
        code = str(self.folder / release / "node_modules" / "openclaw")
        self.log.write(record("ERROR", message, code).decode())


@pytest.fixture
def rig(tmp_path: Path, clock: ManualClock) -> Rig:
    return Rig(tmp_path, clock)


async def read(rig: Rig, seconds: float = SAVE_EVERY_S) -> Reading:
    rig.clock.advance(seconds)
    return await rig.probe.read()


async def test_new_errors_warn_and_then_fail_with_an_example(rig: Rig) -> None:
    nothing = await read(rig)
    assert nothing.status is CheckStatus.WARN
    assert nothing.reason == "no log of the gateway is read: OpenClaw has written none yet"
    rig.error("channel 1 is gone", A)
    assert (await read(rig)).observed == 0
    rig.switch(B)
    rig.error("channel 2 is gone")
    rig.error("an error of the old gateway, late", A)
    assert (await read(rig)).status is CheckStatus.PASS
    rig.error("plugin x broke: token=abcdefgh1234")
    one = await read(rig)
    assert (one.status, one.observed, one.series) == (CheckStatus.WARN, 1, {"new_errors": 1})
    for _ in range(2):
        rig.error("plugin x broke: token=zzzzzzzz9999")
    three = await read(rig)
    assert three.status is CheckStatus.FAIL
    assert three.reason == (
        "3 errors of 1 forms that the release before did not have, such as (3 times):"
        " plugin x broke: [hidden]"
    )
    late = await read(rig, 3600)
    assert late.status is CheckStatus.PASS
    assert "too long ago to blame it" in late.reason


@pytest.mark.parametrize("restarts", [0, 1])
async def test_a_restart_of_the_agent_neither_forgets_nor_counts_twice(
    rig: Rig, restarts: int
) -> None:
    rig.error("first", A)
    await read(rig)
    rig.switch(B)
    await read(rig)
    count: Callable[[], int] = lambda: rig.logs.report().new_errors  # noqa: E731
    for number in range(4):
        rig.error(f"new {number}")
        if restarts:
            rig.start()
        await read(rig)
        assert count() == number + 1
    rig.start()
    await read(rig, 1)
    assert count() == 4


async def test_without_a_release_there_is_nothing_to_say(rig: Rig) -> None:
    rig.current.unlink()
    assert (await read(rig)).status is CheckStatus.UNKNOWN
