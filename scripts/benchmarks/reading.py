"""The floor of `verify`: `reading TREE HOW` walks a tree, reads every file's bytes, and prints the seconds
that took, one thread, nothing imported but this. HOW is `file` (`open` and `read`, as anybody writes
it) or `raw` (a descriptor and `os.read` into nothing, the least that Python can do)."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

CHUNK = 128 << 10


def read_file(path: str) -> int:
    with open(path, "rb") as file:  # noqa: PTH123 - a Path for each of 38,000 files is no floor
        return len(file.read())


def read_raw(path: str) -> int:
    fd, size = os.open(path, os.O_RDONLY), 0
    while data := os.read(fd, CHUNK):
        size += len(data)
    os.close(fd)
    return size


def walk(tree: str, read: Callable[[str], int]) -> int:
    todo, size = [tree], 0
    while todo:
        with os.scandir(todo.pop()) as found:
            for entry in found:
                if entry.is_dir(follow_symlinks=False):
                    todo.append(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    size += read(entry.path)
    return size


if __name__ == "__main__":
    began = time.perf_counter()
    walk(sys.argv[1], {"file": read_file, "raw": read_raw}[sys.argv[2]])
    sys.stdout.write(f"{time.perf_counter() - began:.4f}\n")
