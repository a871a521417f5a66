"""The end of a process, told by the kernel instead of asked for again and again."""

from __future__ import annotations

import asyncio
import os
import select
import sys

from shared.clock import wait_at_most


class _Watched:
    """Has a descriptor that becomes readable when a process exits: a pidfd (Linux 5.3), a kqueue (macOS)."""

    def __init__(self, pid: int) -> None:
        """Raises ProcessLookupError, and OSError where the kernel does not do this."""
        if sys.platform == "darwin":
            self._queue = select.kqueue()
            exits = select.kevent(pid, select.KQ_FILTER_PROC, select.KQ_EV_ADD, select.KQ_NOTE_EXIT)
            try:
                self._queue.control([exits], 0)
            except OSError:
                self._queue.close()
                raise
            self.fd = self._queue.fileno()
        else:
            self.fd = os.pidfd_open(pid)

    def close(self) -> None:
        if sys.platform == "darwin":
            self._queue.close()
        else:
            os.close(self.fd)


async def until_ended(pid: int, seconds: float) -> bool:
    """True once the process has ended, also where it is not a child of ours; False after so many seconds, and
    at once where the kernel tells nobody."""
    try:
        watched = _Watched(pid)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    ended, loop = asyncio.Event(), asyncio.get_running_loop()
    try:
        loop.add_reader(watched.fd, ended.set)
        await wait_at_most(ended, seconds)
    finally:
        loop.remove_reader(watched.fd)
        watched.close()
    return ended.is_set()
