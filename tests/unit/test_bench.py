"""The arithmetic of `scripts/bench`, on records that were made up."""

from __future__ import annotations

import http.server
import json
import socket
import threading
from pathlib import Path

import pytest

from scripts.benchmarks.frame import Options, Sample, repeat, summarise
from scripts.benchmarks.outages import Answer, Asked, parse, silence
from scripts.benchmarks.prober import ask, judge
from scripts.benchmarks.reading import read_file, read_raw, walk
from scripts.benchmarks.weight import add_sessions
from shared.errors import BadInputError, RollcallError

G, U, R, B = Answer.GOOD, Answer.UNREADY, Answer.REFUSED, Answer.BROKEN


def asked(*answers: tuple[float, Answer]) -> list[Asked]:
    return [Asked(at, answer) for at, answer in answers]


def test_an_outage_lasts_from_the_last_good_answer_to_the_next_one() -> None:
    seen = silence(asked((10, G), (11, G), (12, U), (14, R), (19, U), (20, G), (30, G)))
    assert list(seen.gaps) == [9]
    assert (seen.seconds, seen.span) == (9, 9)
    assert seen.by_answer == {"unready": 1 + 2 + 1, "refused": 5}


def test_flapping_counts_only_while_nothing_good_is_answered() -> None:
    seen = silence(asked((0, G), (1, R), (2, G), (3, G), (10, B), (12, G), (13, G)))
    assert list(seen.gaps) == [2, 9]
    assert (seen.seconds, seen.span) == (11, 12)
    assert sum(seen.by_answer.values()) == seen.seconds


def test_without_a_bad_answer_there_is_no_outage() -> None:
    seen = silence(asked((5, G), (6, G)))
    assert (seen.gaps, seen.span, seen.by_answer) == ((), 0.0, {})
    assert seen.document()["seconds"] == 0


@pytest.mark.parametrize(
    "answers", [(), ((0, R), (1, G)), ((0, G), (1, G), (2, R)), ((0, U), (1, R))]
)
def test_an_outage_without_a_beginning_or_an_end_is_no_measurement(
    answers: tuple[tuple[float, Answer], ...],
) -> None:
    with pytest.raises(RollcallError, match="was not ready"):
        silence(asked(*answers))


def test_a_probers_record_is_read_up_to_a_line_that_was_cut_short() -> None:
    assert parse(["1.5 good\n", "2.000001 refused\n", "2.5 go"]) == asked((1.5, G), (2.000001, R))
    for line in ("nonsense\n", "1.0 fine\n", "x good\n"):
        with pytest.raises(BadInputError, match="the prober wrote"):
            parse([line])


@pytest.mark.parametrize(
    ("status", "kind", "body", "answer"),
    [
        (200, "application/json", b'{"ready":true}', G),
        (503, "application/json", b'{"ready":true}', U),
        (503, "application/json", b'{"ready":false}', U),
        (200, "application/json", b'{"ready":"true"}', U),
        (200, "application/json", b"[true]", Answer.STRANGE),
        (200, "application/json", b'{"ready":', Answer.STRANGE),
        (200, "text/html", b'{"ready":true}', Answer.STRANGE),
    ],
)
def test_only_openclaws_own_word_is_a_good_answer(
    status: int, kind: str, body: bytes, answer: Answer
) -> None:
    assert judge(status, kind, body) is answer


class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps({"ready": self.path == "/readyz"}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Nothing."""


def test_a_gateway_is_asked_over_a_connection_of_its_own() -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Ready) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert ask(server.server_port) is G
        server.shutdown()
    assert ask(server.server_port) is R


def test_one_that_takes_a_connection_and_says_nothing_is_broken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert ask(listener.getsockname()[1]) is B


def test_figures_are_ratios_of_medians() -> None:
    samples = [Sample("a", 1, 2, "s"), Sample("b", 5, 0, "s"), Sample("a", 9, 4, "s", {"x": 1})]
    samples += [Sample("a", 3, 3, "s", {"x": 2})]
    a, b = summarise(samples)
    assert (a["name"], a["ours"], a["rival"], a["ratio"], a["rounds"]) == ("a", 3, 3, 1, 3)
    assert a["detail"] == [{"x": 1}, {"x": 2}]
    assert (b["ratio"], b["detail"]) == (None, [])


async def test_rounds_are_run_as_often_as_was_asked() -> None:
    async def once() -> list[Sample]:
        return [Sample("a", 1, 1, "s")]

    assert len(await repeat(once)(Options(rounds=3))) == 3


def test_the_floor_reads_every_file_and_follows_nothing(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").write_bytes(bytes(300_000))
    (tmp_path / "d").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("d")
    (tmp_path / "way").symlink_to("/")
    assert walk(str(tmp_path), read_file) == walk(str(tmp_path), read_raw) == 300_005


def test_the_weight_is_sessions_that_an_index_names(tmp_path: Path) -> None:
    written = add_sessions(tmp_path, count=3)
    folder = tmp_path / "agents" / "main" / "sessions"
    index = json.loads((folder / "sessions.json").read_text())
    names = {entry["sessionId"] for entry in index.values()}
    files = {path.stem: path for path in folder.glob("*.jsonl")}
    assert set(files) == names
    assert len(names) == 3
    assert sum(path.stat().st_size for path in files.values()) == written
    first = json.loads(next(iter(files.values())).read_text().splitlines()[0])
    assert (first["type"], first["version"]) == ("session", 3)
