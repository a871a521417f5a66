"""`/v1/operator-tokens`: who operates the fleet, and how far."""

from __future__ import annotations

from coordinator.api.access import Allows
from coordinator.api.routes import SHORT_ID, Call, Resource, Route
from coordinator.operators import (
    NewOperatorToken,
    OperatorToken,
    OperatorTokenList,
    OperatorTokenRequest,
    TokenText,
    make_token,
)
from coordinator.store.operators import Operators
from coordinator.store.settling import answered_by
from shared.clock import Clock


def _revoked(call: Call, token: OperatorToken) -> None:
    call.subject = token.who


class OperatorsApi(Resource):
    def __init__(self, operators: Operators, clock: Clock) -> None:
        self._operators, self._clock = operators, clock

    async def create(self, call: Call) -> NewOperatorToken:
        asked, now = call.wire(OperatorTokenRequest), self._clock.now()
        text = make_token()
        parsed = TokenText.parse(text)
        token = OperatorToken(
            id=parsed.id,
            name=asked.name,
            role=asked.role,
            created=now,
            created_by=call.caller.who,
            expires=now + asked.ttl_s,
        )
        call.subject, call.detail = token.who, token.role.value
        answer = NewOperatorToken(**token.model_dump(), token=text)
        answered_by(answer)
        await self._operators.add(token, parsed.sha256)
        return answer

    async def listing(self, _: Call) -> OperatorTokenList:
        return OperatorTokenList(tokens=await self._operators.all())

    async def revoke(self, call: Call) -> OperatorToken:
        token = await self._operators.revoke(call.parameters["id"], self._clock.now())
        _revoked(call, token)
        return token

    routes = (
        Route(
            "POST",
            "/v1/operator-tokens",
            create,
            Allows.ADMIN,
            "Make an operator's token; its text is in this answer only.",
            body=OperatorTokenRequest,
            answer=NewOperatorToken,
            success=(201,),
            secret=True,
        ),
        Route(
            "GET",
            "/v1/operator-tokens",
            listing,
            Allows.ADMIN,
            "Every operator's token, without its secret.",
            answer=OperatorTokenList,
        ),
        Route(
            "DELETE",
            "/v1/operator-tokens/{id}",
            revoke,
            Allows.ADMIN,
            "Revoke an operator's token for ever; the last valid admin's is kept.",
            parameters={"id": SHORT_ID},
            answer=OperatorToken,
            refusals=(404, 409),
            about=_revoked,
        ),
    )
