"""How a command that takes a while ends: well, with an error that says why, or by a signal."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

from shared.errors import RollcallError, first_known
from shared.terminal import EXIT_INTERRUPTED, print_json, say

T = TypeVar("T")


def run_and_tell(prog: str, work: Coroutine[Any, Any, dict[str, Any]], *, as_json: bool) -> int:
    """The exit code: 0 once what came of it was told, 1 for a RollcallError, 130 once the work has cleaned up
    after a signal."""
    try:
        found = asyncio.run(_interruptible(work))
    except asyncio.CancelledError:
        say("interrupted; nothing is left behind")
        return EXIT_INTERRUPTED
    except RollcallError as error:
        say(f"{prog}: {error}")
        return 1
    except BaseExceptionGroup as group:
        known = first_known(group)
        if known is None:
            raise
        say(f"{prog}: {known}")
        return 1
    if as_json:
        print_json(found)
    else:
        for key, value in found.items():
            say(f"{key}: {json.dumps(value)}")
    return 0


async def _interruptible(work: Coroutine[Any, Any, T]) -> T:
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, task.cancel)
    return await task
