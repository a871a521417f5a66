"""The first operator's token, and the one that lets operators in again."""

from __future__ import annotations

import asyncio
from pathlib import Path

from coordinator.api.access import NOBODY
from coordinator.api.recorder import Recorder
from coordinator.audit import Entry
from coordinator.operators import OperatorRole, OperatorToken, TokenText, make_token
from coordinator.store.operators import Operators
from shared.durable import read_secret, write_durable


async def ensure_admin(operators: Operators, recorder: Recorder, file: Path, now: float) -> None:
    """There is always somebody who can make tokens: the first start takes over the token in `file`,
    which a home from before tokens had roles has too; a start at which every admin's token has expired
    or is revoked makes a new one and writes it there. Whoever holds the home holds the fleet anyway.
    """
    if await operators.has_admin(now):
        return
    reason = "the first start"
    if await operators.all():
        reason = "no admin's token was valid any more"
        await asyncio.to_thread(write_durable, file, make_token().encode())
    text = TokenText.parse((await asyncio.to_thread(read_secret, file)).decode().strip())
    token = OperatorToken(
        id=text.id, name="first", role=OperatorRole.ADMIN, created=now, created_by="coordinator"
    )
    await operators.add(token, text.sha256)
    await recorder.record(
        Entry(
            who="coordinator",
            role=NOBODY,
            address=NOBODY,
            action="admin token at start",
            subject=token.who,
            status=201,
            detail=reason,
        )
    )
