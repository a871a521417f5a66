"""Keeping this node's certificate young, and changing its keys: asked for under its message key, so
that a lapsed certificate or a changed authority does not lock it out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from cryptography import x509

from agent.coordinator import Coordinator
from agent.layout import Layout
from agent.trust import Trust
from shared.clock import Clock, wait_at_most
from shared.errors import RollcallError
from shared.fleet import RenewalRequest, seal_renewal
from shared.keys import SigningKey
from shared.tls import (
    check_certificate,
    issued_by,
    make_key,
    read_certificate,
    request_certificate,
    save_identity,
)

log = structlog.get_logger()

LOOK_EVERY_S = 60.0
ASK_AGAIN_S = 30.0
RENEW_AT = 1 / 3
"""Of its life: what is left outlives a coordinator that is away for twenty days."""
WORRY_S = 7 * 86400.0


def is_due(certificate: x509.Certificate, authority_pem: str, now: float) -> bool:
    """When a third of its life is over, or another authority issues by now."""
    begin = certificate.not_valid_before_utc.timestamp()
    life = certificate.not_valid_after_utc.timestamp() - begin
    return now - begin >= life * RENEW_AT or not issued_by(certificate, authority_pem)


class Renewal:
    """`on_renewed` is called once the new certificate is on disk."""

    def __init__(
        self,
        layout: Layout,
        trust: Trust,
        coordinator: Coordinator,
        clock: Clock,
        on_renewed: Callable[[], Awaitable[None]],
    ) -> None:
        self._layout, self._trust, self._coordinator = layout, trust, coordinator
        self._clock, self._on_renewed = clock, on_renewed
        self._busy = asyncio.Lock()
        self._wake = asyncio.Event()
        self.expires: float | None = None
        trust.listen(self._wake.set)

    @property
    def alerts(self) -> list[str]:
        if self.expires is not None and self.expires - self._clock.now() < WORRY_S:
            left = max(0.0, self.expires - self._clock.now()) / 86400
            return [f"this node's certificate ends in {left:.1f} days and could not be renewed"]
        return []

    async def run(self) -> None:
        while True:
            pause = LOOK_EVERY_S
            try:
                async with self._busy:
                    await self._trust.settle_key()
                certificate = await asyncio.to_thread(read_certificate, self._layout.tls.identity)
                self.expires = certificate.not_valid_after_utc.timestamp()
                if is_due(certificate, self._trust.fleet.authorities[0], self._clock.now()):
                    await self.renew()
            except (RollcallError, OSError, ValueError) as error:
                log.warning("certificate not renewed", reason=str(error))
                pause = ASK_AGAIN_S
            self._wake.clear()
            await wait_at_most(self._wake, pause)

    async def change_keys(self) -> str:
        """A new message key and a new certificate. Returns the new key's id."""
        await self.renew(await self._trust.following_key())
        return self._trust.key.public.keyid

    async def renew(self, following: SigningKey | None = None) -> None:
        async with self._busy:
            tls_key = make_key()
            key = following or self._trust.key
            request = RenewalRequest(
                fleet=self._trust.fleet.fleet,
                node=self._trust.name,
                csr_pem=request_certificate(tls_key, self._trust.name),
                message_key=key.public,
            )
            keys = [self._trust.key] if following is None else [self._trust.key, following]
            answer = await self._coordinator.renew(seal_renewal(request, *keys))
            pem, authorities = answer.certificate_pem, self._trust.fleet.authorities
            check_certificate(pem, tls_key, self._trust.name, authorities, self._clock.now())
            await asyncio.to_thread(save_identity, self._layout.tls.identity, tls_key, pem)
            log.info("certificate renewed")
            await self._on_renewed()
            await self._trust.accept_roster(answer.roster.encode())
            await self._trust.settle_key()
