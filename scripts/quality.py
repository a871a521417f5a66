"""What `scripts/check` runs. Exits 1 when a rule is broken; sizes are reported, not enforced."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
CODE = ("agent", "coordinator", "shared", "scripts", "tests")
LONG_FILE, LONG_FUNCTION = 400, 40


def main() -> int:
    fix = "--fix" in sys.argv[1:]
    ruff = [str(BIN / "ruff"), "check", *(["--fix"] if fix else []), "."]
    form = [str(BIN / "ruff"), "format", *([] if fix else ["--check"]), "."]
    checks = (ruff, form, [str(BIN / "mypy")], [str(BIN / "lint-imports")])
    failed = [argv for argv in checks if not _run(argv)]
    _report_sizes()
    for argv in failed:
        print(
            f"failed: {' '.join(Path(argv[0]).name if i == 0 else a for i, a in enumerate(argv))}"
        )
    return 1 if failed else 0


def _run(argv: list[str]) -> bool:
    print(f"== {Path(argv[0]).name}", flush=True)
    return subprocess.run(argv, cwd=ROOT, check=False).returncode == 0


def _report_sizes() -> None:
    print("== sizes")
    files = sorted(path for folder in CODE for path in (ROOT / folder).rglob("*.py"))
    lengths: list[int] = []
    for path in files:
        text = path.read_text()
        name = path.relative_to(ROOT)
        if text.count("\n") > LONG_FILE:
            print(f"{name}: {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                lengths.append(length)
                if length > LONG_FUNCTION:
                    print(f"{name}:{node.lineno}: {node.name} has {length} lines")
    lengths.sort()
    p90 = lengths[len(lengths) * 9 // 10]
    print(f"{len(files)} files, {len(lengths)} functions; 90 % of them have at most {p90} lines")


if __name__ == "__main__":
    raise SystemExit(main())
