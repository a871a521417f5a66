"""What both command lines share: data to stdout, words to stderr, errors in one line, exit codes.

Exit codes: 0 it is done; 1 it was refused, it failed, or what was named is not there; 2 wrong usage: what was typed
cannot be meant; 3 something it needs is missing, 4 halted, 5 timed out, 130 interrupted.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from shared.errors import RollcallError, UsageError
from shared.table import laid_out, plain
from shared.wire import describe

if TYPE_CHECKING:
    import typer

T = TypeVar("T")

EXIT_MISSING = 3
EXIT_HALTED = 4
EXIT_TIMED_OUT = 5
EXIT_INTERRUPTED = 130


def say(text: str) -> None:
    """A word for the person at the terminal; never on stdout, where data goes."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def print_json(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"schemaVersion": 1, **value}, indent=2) + "\n")
    sys.stdout.flush()


def print_table(columns: list[str], rows: list[list[str]], *, empty: str) -> None:
    """Aligned for people at a terminal, tab-separated when piped."""
    if not rows:
        say(empty)
        return
    if sys.stdout.isatty():
        lines = laid_out(columns, rows, shutil.get_terminal_size().columns)
    else:
        lines = ["\t".join(map(plain, row)) for row in [columns, *rows]]
    sys.stdout.writelines(f"{line}\n" for line in lines)
    sys.stdout.flush()


def confirm(question: str) -> None:
    """Ask a person. Raises UsageError where nobody can answer, typer.Abort for a no."""
    import typer

    if not sys.stdin.isatty():
        raise UsageError(f"{question} nobody is here to answer", remedy="say it with --yes")
    typer.confirm(question, abort=True, err=True)


def run_async(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def run_app(app: typer.Typer, prog: str) -> None:
    run_guarded(lambda: app(prog_name=prog), prog)


def run_guarded(work: Callable[[], None], prog: str) -> None:
    """A RollcallError becomes one line and its exit code, never a traceback."""
    _open_closed()
    try:
        _flushed(work)
    except RollcallError as error:
        say(f"{prog}: {error.message}")
        if error.remedy:
            say(f"  {error.remedy}")
        raise SystemExit(error.exit_code) from None
    except ValidationError as error:
        say(f"{prog}: {describe(error)}")
        raise SystemExit(UsageError.exit_code) from None
    except BrokenPipeError:
        _let_go()
        raise SystemExit(1) from None
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        say(f"{prog}: {where}{error.strerror or error}")
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        say(f"{prog}: interrupted")
        raise SystemExit(EXIT_INTERRUPTED) from None


def _flushed(work: Callable[[], None]) -> None:
    """Whether all that was said was taken is known before the process ends."""
    try:
        work()
    finally:
        sys.stdout.flush()


def _open_closed() -> None:
    """Python has None for a stream that is closed from the beginning (`>&-`). What is opened next would get its
    number, so that is nothing at all."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            number = os.open(os.devnull, os.O_RDONLY if name == "stdin" else os.O_WRONLY)
            setattr(sys, name, os.fdopen(number, "r" if name == "stdin" else "w", encoding="utf-8"))


def _let_go() -> None:
    """Nobody reads stdout any more: the interpreter's own last flush must not complain."""
    with contextlib.suppress(OSError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main_of(app: typer.Typer, prog: str) -> Callable[[], None]:
    return lambda: run_app(app, prog)
