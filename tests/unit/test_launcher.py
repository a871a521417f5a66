"""The launcher as a real process, with versions that are small scripts: fault 11 and its relatives."""

from __future__ import annotations

import ast
import fcntl
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent import launcher
from agent.environments import write_launcher

RUNS = 'echo "$ROLLCALL_LAUNCHED $*" >> "{home}/story"\n'
EXITS = RUNS + "exit 3\n"
HANGS = RUNS + "exec sleep 60\n"
HEALTHY = RUNS + 'echo \'{{"at": 1}}\' > "{home}/versions/$ROLLCALL_LAUNCHED/HEALTHY"\n'


@dataclass
class Place:
    home: Path

    def add(self, version: str, script: str, *, complete: bool = True) -> Path:
        folder = self.home / "versions" / version
        (folder / "bin").mkdir(parents=True)
        python = folder / "bin" / "python"
        python.write_text("#!/bin/sh\n" + script.format(home=self.home))
        python.chmod(0o755)
        if complete:
            (folder / "COMPLETE").write_text(json.dumps({"version": version, "sha256": "a" * 64}))
        return folder

    def activate(self, version: str) -> None:
        link = self.home / "active"
        link.unlink(missing_ok=True)
        link.symlink_to(f"versions/{version}")

    def start(self, times: int = 1, env: dict[str, str] | None = None) -> list[str]:
        """The versions that ran, in order."""
        before = len(self.story)
        for _ in range(times):
            subprocess.run(
                [self.home / "launcher", "run"],
                env={"PATH": os.environ["PATH"], **(env or {})},
                stderr=subprocess.DEVNULL,
                timeout=20,
                check=False,
            )
        return [line.split()[0] for line in self.story[before:]]

    @property
    def story(self) -> list[str]:
        file = self.home / "story"
        return file.read_text().splitlines() if file.exists() else []

    @property
    def active(self) -> str:
        return (self.home / "active").readlink().name

    def failed(self, version: str) -> dict[str, object]:
        return dict(json.loads((self.home / f"versions/{version}.failed.json").read_text()))

    @property
    def starts(self) -> Path:
        return self.home / "versions" / "starts.json"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """An old version that is healthy, and the launcher, in a folder with a space in its name."""
    made = Place(tmp_path / "a home")
    made.add("0.1.0", HEALTHY)
    (made.home / "versions" / "good").symlink_to("0.1.0")
    made.activate("0.1.0")
    write_launcher(made.home, Path(sys.executable))
    assert made.start() == ["0.1.0"]
    return made


def test_it_is_small_and_needs_the_standard_library_alone() -> None:
    text = Path(launcher.__file__).read_text()
    assert len(text.splitlines()) < 150
    ast.parse(text, feature_version=(3, 9))
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"exec(open({launcher.__file__!r}).read(), {{}})"],
        check=False,
    )
    assert done.returncode == 0


def test_three_starts_without_a_healthy_report_and_the_old_one_is_back(place: Place) -> None:
    """Fault 11."""
    place.add("0.1.1", EXITS)
    place.activate("0.1.1")
    assert place.start(5) == ["0.1.1", "0.1.1", "0.1.1", "0.1.0", "0.1.0"]
    assert place.active == "0.1.0"
    failed = place.failed("0.1.1")
    assert failed["version"] == "0.1.1"
    assert failed["sha256"] == "a" * 64
    assert failed["why"] == "it was started 3 times and never reported healthy"
    assert time.time() - float(str(failed["at"])) < 60
    place.activate("0.1.1")
    assert place.start(2) == ["0.1.0", "0.1.0"], "it is not tried again by itself"
    assert place.failed("0.1.1") == failed, "and why it failed is kept"


def test_the_reason_that_a_version_left_goes_into_the_record(place: Place) -> None:
    script = EXITS.replace(
        "exit", 'echo \'{{"reason": "no gateway"}}\' > "{home}/versions/0.1.1/EXIT"\nexit'
    )
    place.add("0.1.1", script)
    place.activate("0.1.1")
    assert place.start(4)[-1] == "0.1.0"
    assert place.failed("0.1.1")["exit"] == "no gateway"


def test_a_version_that_was_healthy_once_is_kept_however_often_it_starts(place: Place) -> None:
    place.add("0.1.1", EXITS + "")
    place.activate("0.1.1")
    assert place.start(2) == ["0.1.1", "0.1.1"]
    (place.home / "versions/0.1.1/HEALTHY").write_text('{"at": 1}')
    assert place.start(4) == ["0.1.1"] * 4


def test_one_that_hangs_is_ended_and_counts(place: Place) -> None:
    """The alarm outlives exec: the version need not look at a clock."""
    path = place.home / "launcher"
    path.write_text(path.read_text().replace("PATIENCE_S = 900", "PATIENCE_S = 1"))
    place.add("0.1.1", HANGS)
    place.activate("0.1.1")
    began = time.monotonic()
    assert place.start(4) == ["0.1.1", "0.1.1", "0.1.1", "0.1.0"]
    assert 2.5 < time.monotonic() - began < 15


@pytest.mark.parametrize("harm", ["no mark", "zero mark", "no python", "no exec", "no folder"])
def test_one_that_cannot_be_started_is_not(place: Place, harm: str) -> None:
    if harm != "no folder":
        folder = place.add("0.1.1", RUNS, complete=harm != "no mark")
        if harm == "zero mark":
            (folder / "COMPLETE").write_bytes(b"\0" * 200)
        elif harm == "no python":
            (folder / "bin" / "python").unlink()
            (folder / "bin" / "python").symlink_to("/nowhere/python3")
        elif harm == "no exec":
            (folder / "bin" / "python").write_bytes(b"\0" * 4096)
    place.activate("0.1.1")
    assert place.start(2) == ["0.1.0", "0.1.0"]
    assert place.active == "0.1.0"
    assert place.failed("0.1.1")["why"]


def test_a_link_that_is_gone_or_leads_astray(place: Place) -> None:
    (place.home / "active").unlink()
    assert place.start() == ["0.1.0"]
    (place.home / "active").unlink()
    (place.home / "active").symlink_to("/etc")
    assert place.start() == ["0.1.0"]
    (place.home / "versions" / "good").unlink()
    (place.home / "active").unlink()
    assert place.start() == ["0.1.0"], "without a record of what is good, one that was healthy"


def test_a_damaged_count_means_the_last_good_version_at_every_length(place: Place) -> None:
    place.add("0.1.1", EXITS)
    place.activate("0.1.1")
    assert place.start() == ["0.1.1"]
    whole = place.starts.read_bytes()
    for torn in (*(whole[:length] for length in range(0, len(whole), 7)), b"\0" * 64, b"[1]", b"7"):
        (place.home / "versions/0.1.1.failed.json").unlink(missing_ok=True)
        place.activate("0.1.1")
        place.starts.write_bytes(torn)
        assert place.start() == ["0.1.0"], torn
        assert "damaged" in str(place.failed("0.1.1")["why"])


def test_the_only_version_is_tried_for_ever(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.add("0.1.0", EXITS)
    place.activate("0.1.0")
    write_launcher(place.home, Path(sys.executable))
    assert place.start(5) == ["0.1.0"] * 5
    place.starts.write_bytes(b"\0\0")
    assert place.start(2) == ["0.1.0"] * 2
    assert place.active == "0.1.0"


def test_a_disk_that_cannot_count_runs_what_is_proven(place: Place) -> None:
    place.add("0.1.1", EXITS)
    place.activate("0.1.1")
    (place.home / "versions" / ".starts.json.tmp").mkdir()
    assert place.start(2) == ["0.1.0", "0.1.0"]
    assert place.active == "0.1.1", "nothing was judged"
    (place.home / "versions" / ".starts.json.tmp").rmdir()
    assert place.start() == ["0.1.1"]


def test_a_second_start_beside_a_running_agent_counts_nothing(place: Place) -> None:
    place.add("0.1.1", EXITS)
    place.activate("0.1.1")
    with (place.home / "agent.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert place.start(5) == []
    assert place.start() == ["0.1.1"]
    assert json.loads(place.starts.read_text())["starts"] == 1


def test_the_environment_is_cleaned_and_the_words_are_the_agents(place: Place) -> None:
    place.add("0.1.1", 'env > "{home}/env"\n' + HEALTHY)
    place.activate("0.1.1")
    dirt = {"PYTHONPATH": "/tmp", "PIP_INDEX_URL": "x", "LANG": "C", "ROLLCALL_FAIL_POINTS": "/f"}
    assert place.start(env=dirt) == ["0.1.1"]
    seen = dict(line.split("=", 1) for line in (place.home / "env").read_text().splitlines())
    assert not {"PYTHONPATH", "PIP_INDEX_URL"} & set(seen)
    assert (seen["LANG"], seen["ROLLCALL_FAIL_POINTS"]) == ("C", "/f")
    assert seen["PATH"] == launcher.PATH
    assert place.story[-1] == f"0.1.1 -I -m agent run --home {place.home}"


def test_nothing_to_start_says_what_to_do(tmp_path: Path) -> None:
    write_launcher(tmp_path, Path(sys.executable))
    done = subprocess.run([tmp_path / "launcher", "run"], capture_output=True, check=False)
    assert done.returncode == 1
    assert b"rollcall-agent adopt" in done.stderr


def test_a_killed_fall_back_is_finished_by_the_next_start(place: Place) -> None:
    """Between the record and the link, and with the link's forerunner lying about."""
    place.add("0.1.1", EXITS)
    place.activate("0.1.1")
    (place.home / "versions/0.1.1.failed.json").write_text('{"version": "0.1.1", "why": "x"}')
    (place.home / ".active.launcher").symlink_to("versions/0.0.9")
    assert place.start() == ["0.1.0"]
    assert place.active == "0.1.0"
    assert place.failed("0.1.1")["why"] == "x"


def test_an_interpreter_whose_path_has_a_space_is_still_found(tmp_path: Path) -> None:
    python = tmp_path / "private python" / "python3"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    place = Place(tmp_path / "home")
    place.add("0.1.0", HEALTHY)
    place.activate("0.1.0")
    write_launcher(place.home, python)
    assert (place.home / "launcher").stat().st_mode & 0o777 == 0o755
    assert place.start() == ["0.1.0"]
