"""A `docker` with the few verbs that the compose installer uses. Not Docker.

An image is a copy of the work tree that it was pulled or built from; a container is a real process of what
is in it. The compose file is JSON, which is YAML too. Everything is kept below HOME/.docker-emulator.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

STORE = Path(os.environ["HOME"]) / ".docker-emulator"
BOOK = STORE / "book.json"


def read() -> dict[str, Any]:
    try:
        return dict(json.loads(BOOK.read_text()))
    except FileNotFoundError:
        return {"names": {}, "containers": {}}


def write(book: dict[str, Any]) -> None:
    STORE.mkdir(exist_ok=True)
    fresh = BOOK.with_suffix(".new")
    fresh.write_text(json.dumps(book))
    fresh.replace(BOOK)


def fail(text: str) -> int:
    sys.stderr.write(f"{text}\n")
    return 1


def alive(container: dict[str, Any]) -> bool:
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(container["pid"])
        same = abs(process.create_time() - container["born"]) < 0.01
        return same and process.status() != psutil.STATUS_ZOMBIE
    return False


class Compose:
    def __init__(self, words: list[str]) -> None:
        self.files: list[str] = []
        while words and words[0].startswith("-"):
            name, value = words.pop(0), words.pop(0)
            if name == "-f":
                self.files.append(value)
            elif name == "--project-directory":
                self.directory = Path(value)
            elif name not in ("-p", "--env-file"):
                raise SystemExit(fail(f"unknown flag: {name}"))
        self.words = words
        self.services: dict[str, Any] = {}
        for file in self.files:
            self.services.update(json.loads(Path(file).read_text())["services"])

    def call(self) -> int:
        verb, *words = self.words
        if verb == "config":
            return 0
        options = [word for word in words if word.startswith("-")]
        plain = [word for word in words if not word.startswith("-")]
        if verb == "stop":
            return self.stop(plain[-1], int(plain[0]))
        service = plain[0]
        if service not in self.services:
            return fail(f"no such service: {service}")
        if verb in ("exec", "run"):
            return self.inside(service, words[words.index(service) + 1 :], running=verb == "exec")
        known = {"pull": self.make, "build": self.make, "up": self.up}
        if verb == "ps":
            return self.show(service, everything="--all" in options)
        return known[verb](service)

    def make(self, service: str) -> int:
        digest = hashlib.sha256()
        for path in sorted(self.directory.rglob("*")):
            if path.is_file() and ".git" not in path.parts:
                digest.update(path.read_bytes())
        image = digest.hexdigest()
        target = STORE / image
        if not target.exists():
            shutil.copytree(self.directory, target, ignore=shutil.ignore_patterns(".git"))
        book = read()
        book["names"][self.services[service]["image"]] = image
        write(book)
        return 0

    def up(self, service: str) -> int:
        book, wanted = read(), self.services[service]
        if wanted["image"] not in book["names"]:
            return fail(f"no such image: {wanted['image']}")
        image = book["names"][wanted["image"]]
        there = book["containers"].get(service)
        if there and there["image"] == image and alive(there):
            return 0
        if there:
            self.stop(service, 5)
        with (STORE / f"{service}.log").open("ab") as log:
            child = subprocess.Popen(
                wanted["command"],
                cwd=STORE / image,
                env={"HOME": os.environ["HOME"], "PATH": os.environ["PATH"]},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        book = read()
        book["containers"][service] = {
            "id": secrets.token_hex(32),
            "image": image,
            "name": wanted["image"],
            "pid": child.pid,
            "born": psutil.Process(child.pid).create_time(),
        }
        write(book)
        return 0

    def stop(self, service: str, timeout: int) -> int:
        there = read()["containers"].get(service)
        if not there or not alive(there):
            return 0
        os.kill(there["pid"], signal.SIGTERM)
        ends = time.monotonic() + timeout
        while alive(there):
            if time.monotonic() > ends:
                os.kill(there["pid"], signal.SIGKILL)
            time.sleep(0.05)
        return 0

    def show(self, service: str, *, everything: bool) -> int:
        there = read()["containers"].get(service)
        if there and (everything or alive(there)):
            sys.stdout.write(f"{there['id']}\n")
        return 0

    def inside(self, service: str, command: list[str], *, running: bool) -> int:
        book = read()
        there = book["containers"].get(service)
        if running and not (there and alive(there)):
            return fail(f'service "{service}" is not running')
        image = book["names"].get(self.services[service]["image"])
        if running and there:
            image = there["image"]
        if image is None:
            return fail("no such image")
        command = [self.services[service]["command"][0], *command[1:]]
        env = {"HOME": os.environ["HOME"], "PATH": os.environ["PATH"]}
        return subprocess.run(command, cwd=STORE / image, env=env, check=False).returncode


def inspect(words: list[str]) -> int:
    form, wanted = words[words.index("--format") + 1], words[-1]
    for there in read()["containers"].values():
        if there["id"] == wanted:
            born = datetime.fromtimestamp(there["born"], UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")
            running = alive(there)
            state = {"Running": running, "Pid": there["pid"] if running else 0}
            image = {"id": f"sha256:{there['image']}", "name": there["name"]}
            shown = {**state, "StartedAt": f"{born}000Z"} if "State" in form else image
            sys.stdout.write(f"{json.dumps(shown)}\n")
            return 0
    return fail(f"no such object: {wanted}")


def tag(words: list[str]) -> int:
    book, image = read(), words[0].removeprefix("sha256:")
    if not (STORE / image).is_dir():
        return fail(f"no such image: {words[0]}")
    book["names"][words[1]] = image
    write(book)
    return 0


def main(words: list[str]) -> int:
    verb, *rest = words
    verbs = {"compose": lambda each: Compose(each).call(), "inspect": inspect, "tag": tag}
    return verbs[verb](rest)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
