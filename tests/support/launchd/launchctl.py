"""The emulated `launchctl`: hands its words to the supervisor of one folder and repeats its answer.

Run as `launchctl.py FOLDER word…`. Only the standard library, so that it starts fast with `-I -S`.
"""

from __future__ import annotations

import json
import os
import socket
import sys

SESSION = "EMULATED_AUDIT_SESSION"
"""Set by `asuser` in the environment of what it runs, as the real one sets the audit session."""


def ask(folder: str, words: list[str]) -> tuple[int, str, str]:
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(os.path.join(folder, "supervisor.sock"))  # noqa: PTH118
        request = {"words": words, "uid": os.geteuid(), "session": os.environ.get(SESSION)}
        line.sendall(json.dumps(request).encode() + b"\n")
        parts = []
        while part := line.recv(65536):
            parts.append(part)
    answer = json.loads(b"".join(parts))
    return answer["code"], answer["out"], answer["err"]


def main() -> int:
    folder, words = sys.argv[1], sys.argv[2:]
    if words and words[0] == "asuser":
        if len(words) < 3 or os.geteuid() != 0:
            sys.stderr.write("Could not switch to audit session 0x0: 1: Operation not permitted\n")
            return 1
        os.environ[SESSION] = words[1]
        os.execvp(words[2], words[2:])  # noqa: S606
    code, out, err = ask(folder, words)
    sys.stdout.write(out)
    sys.stderr.write(err)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
