#!/usr/bin/env python3
"""As much of `plutil` as OpenClaw calls: -convert json|xml1 -o -, -extract KEY raw, -lint."""

from __future__ import annotations

import json
import plistlib
import sys
from pathlib import Path
from typing import Any


def load(name: str) -> Any:
    return plistlib.loads(sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes())


def main(words: list[str]) -> int:
    try:
        value = load(words[-1])
        if words[0] == "-convert":
            text = json.dumps(value) if words[1] == "json" else plistlib.dumps(value).decode()
            sys.stdout.write(text)
        elif words[0] == "-extract":
            sys.stdout.write(str(value[words[1]]))
        elif words[0] != "-lint":
            sys.stderr.write(f"unrecognized option: {words[0]}\n")
            return 1
    except Exception as error:
        sys.stderr.write(f"{words[-1]}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
