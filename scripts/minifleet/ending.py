"""How a command that takes a while ends: well, with an error that says why, or by a signal."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

from shared.errors import RollcallError, first_known
from shared.terminal import EXIT_INTERRUPTED, say

T = TypeVar("T")


class Ended(Exception):  # noqa: N818 - an exit code, and no error of the program's
    """`code` is the one to exit with; what there is to say was said."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def run_to_end(prog: str, work: Coroutine[Any, Any, T]) -> T:
    """Raises Ended for a RollcallError (1), and once the work has cleaned up after a signal (130)."""
    try:
        return asyncio.run(_interruptible(work))
    except asyncio.CancelledError:
        say("interrupted; nothing is left behind")
        raise Ended(EXIT_INTERRUPTED) from None
    except RollcallError as error:
        say(f"{prog}: {error}")
        raise Ended(1) from error
    except BaseExceptionGroup as group:
        known = first_known(group)
        if known is None:
            raise
        say(f"{prog}: {known}")
        raise Ended(1) from group


async def _interruptible(work: Coroutine[Any, Any, T]) -> T:
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, task.cancel)
    return await task
