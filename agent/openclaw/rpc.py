"""Requests to a running gateway over its own WebSocket, in place of a whole CLI for each of them.

A request through `openclaw gateway call` starts Node and loads OpenClaw: one to three seconds of CPU. The same
request over the socket costs the agent 4 ms and the gateway 10 to 40 ms (2026.7.35 and 2026.9.6). The agent
says of itself what that CLI says (`cli`, mode `cli`, no device) and asks for `operator.read`: from loopback and
with the gateway's own token this is let in without a pairing, is not in any list of who is present, and
writes nothing to the state. Any other client's name is refused or is listed.

One connection serves the requests that come at the same moment, and is then closed. One that is kept would be
sent every chat, tool and log event of the gateway, since those belong to `operator.read`; and new connections are
let in while the gateway is suspended, so that a kept one would gain nothing there either.

The token goes to the port of loopback that the configuration names, as with the CLI, and into no message.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import aiohttp

from agent.openclaw.settings import parse_settings, read_raw
from shared.errors import BadInputError, CommandError, UntrustedError

HANDSHAKE_S, ANSWER_S = 15.0, 15.0
"""A gateway that begins a turn on a busy host does nothing else for seconds; one that hangs is told sooner by
its `/readyz`."""
GATHER_S = 0.05
"""How long the first request waits for others to share its connection."""
MAX_FRAME = 4 << 20
CLOSE = aiohttp.ClientWSTimeout(ws_close=0.5)
FORGET_S = 600.0
"""After so long a gateway that refused is tried once more."""
READ = "operator.read"
PROTOCOLS = (3, 9)
"""The oldest and the newest that are offered; the gateway chooses (4 in both releases that were tried)."""
TRY_AGAIN, POLICY = 1013, 1008


class RefusedError(CommandError):
    """This gateway does not let the agent in this way, or speaks another form: its own CLI may do better."""


@dataclass(frozen=True)
class Answer:
    """`raw` is the frame as it came."""

    value: dict[str, Any]
    raw: bytes


@dataclass(frozen=True)
class _Request:
    method: str
    params: dict[str, Any]
    answer: asyncio.Future[Answer]


@dataclass(frozen=True)
class _Secret:
    """What `connect` needs to be let in; `auth` is empty where the gateway asks for nothing."""

    auth: dict[str, str] = field(repr=False)

    def without(self, text: str) -> str:
        for value in self.auth.values():
            text = text.replace(value, "…")
        return text[:300]


class Rpc:
    """To the gateway of one port. Raises CommandError where it does not answer or cannot now, and RefusedError
    where it is of no use to try again soon."""

    def __init__(
        self, client: aiohttp.ClientSession, port: int, monotonic: Callable[[], float]
    ) -> None:
        self._client, self._url = client, f"http://127.0.0.1:{port}/"
        self._monotonic = monotonic
        self._waiting: list[_Request] = []
        self._refusal: tuple[float, RefusedError] | None = None
        self._parsed: tuple[str, _Secret] | None = None

    @property
    def refused(self) -> bool:
        return self._known_refusal() is not None

    async def call(
        self,
        state: Path,
        method: str,
        params: dict[str, Any] | None = None,
        *,
        at_once: bool = False,
    ) -> Answer:
        """`state` is the gateway's state directory, whose configuration has the token. `at_once` waits for nobody to
        share the connection."""
        known = self._known_refusal()
        if known is not None:
            raise RefusedError(known.message)
        request = _Request(method, params or {}, asyncio.get_running_loop().create_future())
        self._waiting.append(request)
        if len(self._waiting) == 1:
            await self._lead(state, 0.0 if at_once else GATHER_S)
        return await request.answer

    async def version(self, state: Path) -> str | None:
        """Which release serves, as it says in its greeting."""
        server = (await self.call(state, "connect")).value.get("server")
        version = server.get("version") if isinstance(server, dict) else None
        return version if isinstance(version, str) else None

    async def _lead(self, state: Path, gather_s: float) -> None:
        """Ask for all that have come; whatever happens, nobody waits on."""
        failure: CommandError = CommandError("the gateway was not asked to the end")
        requests: list[_Request] = []
        try:
            await asyncio.sleep(gather_s)
            requests, self._waiting = self._waiting, []
            await self._exchange(state, requests)
        except CommandError as error:
            failure = error
        finally:
            if not requests:
                requests, self._waiting = self._waiting, []
            for each in requests:
                if not each.answer.done():
                    each.answer.set_exception(failure)
                    each.answer.exception()

    async def _exchange(self, state: Path, requests: list[_Request]) -> None:
        secret = await asyncio.to_thread(self._read_secret, state)
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                socket = await self._client.ws_connect(
                    self._url, max_msg_size=MAX_FRAME, timeout=CLOSE
                )
        except aiohttp.ClientConnectorError:
            self._refusal = None
            raise CommandError("nothing listens on the gateway's port") from None
        except aiohttp.WSServerHandshakeError as error:
            self._refuse(f"the gateway's port speaks no WebSocket ({error.status})")
        except TimeoutError:
            raise CommandError(f"the gateway took no connection in {HANDSHAKE_S:.0f} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise CommandError(f"the gateway's port: {type(error).__name__}") from None
        try:
            await self._talk(_Talk(socket, secret), requests)
        finally:
            await socket.close()

    async def _talk(self, talk: _Talk, requests: list[_Request]) -> None:
        """One request after the other: they would count as each other's work in hand. What two want alike is
        asked once."""
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                hello = await talk.greet()
        except RefusedError as error:
            self._refuse(error.message)
        except TimeoutError:
            raise CommandError(f"the gateway did not greet within {HANDSHAKE_S:.0f} s") from None
        answers: dict[str, Answer | CommandError] = {_key("connect", {}): hello}
        for each in requests:
            key = _key(each.method, each.params)
            if key not in answers:
                answers[key] = await self._answer(talk, str(len(answers)), each)
            _settle(each, answers[key])

    async def _answer(self, talk: _Talk, number: str, request: _Request) -> Answer | CommandError:
        """Raises CommandError when nothing more can be asked."""
        try:
            async with asyncio.timeout(ANSWER_S):
                return await talk.ask(number, request.method, request.params)
        except TimeoutError:
            late = f"the gateway did not answer {request.method} within {ANSWER_S:.0f} s"
            raise CommandError(late) from None
        except _DeniedError as error:
            return CommandError(error.message)

    def _read_secret(self, state: Path) -> _Secret:
        """Blocking. Parsed again only when the file has other bytes: JSON5 is slow to parse. Where it cannot
        be read any more the gateway goes on with what it read before, and so does this."""
        try:
            raw = read_raw(state)
            digest = hashlib.sha256(raw).hexdigest()
            if self._parsed is None or self._parsed[0] != digest:
                self._parsed = (digest, _secret_of(parse_settings(raw, state)))
        except (BadInputError, UntrustedError) as error:
            if self._parsed is None:
                self._refuse(f"the gateway's token cannot be read: {error.message}")
        return self._parsed[1]

    def _known_refusal(self) -> RefusedError | None:
        if self._refusal is not None and self._refusal[0] < self._monotonic():
            self._refusal = None
        return self._refusal[1] if self._refusal else None

    def _refuse(self, reason: str) -> NoReturn:
        error = RefusedError(reason)
        self._refusal = (self._monotonic() + FORGET_S, error)
        raise error


class _DeniedError(CommandError):
    """One request that the gateway did not do; the connection stands."""


class _Talk:
    """One connection: the greeting, then requests."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, secret: _Secret) -> None:
        self._socket, self._secret = socket, secret

    async def greet(self) -> Answer:
        challenge = await self._receive()
        if challenge.value.get("event") != "connect.challenge":
            raise RefusedError("the gateway does not greet as OpenClaw does")
        lowest, highest = PROTOCOLS
        client = {"id": "cli", "version": "rollcall", "platform": "rollcall", "mode": "cli"}
        wanted: dict[str, Any] = {
            "minProtocol": lowest,
            "maxProtocol": highest,
            "client": client,
            "role": "operator",
            "scopes": [READ],
            "caps": [],
        }
        if self._secret.auth:
            wanted["auth"] = self._secret.auth
        try:
            hello = await self.ask("connect", "connect", wanted)
        except _DeniedError as error:
            raise RefusedError(error.message) from error
        auth = hello.value.get("auth")
        scopes = auth.get("scopes") if isinstance(auth, dict) else None
        if not isinstance(scopes, list) or READ not in scopes:
            raise RefusedError("the gateway lets the agent in, but not to read")
        return hello

    async def ask(self, number: str, method: str, params: dict[str, Any]) -> Answer:
        frame = {"type": "req", "id": number, "method": method, "params": params}
        try:
            await self._socket.send_json(frame)
        except (aiohttp.ClientError, OSError) as error:
            raise CommandError("the gateway closed the connection") from error
        while (answer := await self._receive()).value.get("id") != number:
            pass
        value = answer.value
        if value.get("ok") is True and isinstance(value.get("payload"), dict):
            return Answer(value["payload"], answer.raw)
        raise self._error(method, value.get("error"))

    def _error(self, method: str, about: Any) -> CommandError:
        about = about if isinstance(about, dict) else {}
        message = self._secret.without(str(about.get("message", "it does not say why")))
        if method == "connect" and about.get("code") == "UNAVAILABLE":
            return CommandError(f"the gateway takes no requests now: {message}")
        return _DeniedError(f"the gateway refuses {method}: {message}")

    async def _receive(self) -> Answer:
        message = await self._socket.receive()
        if message.type is aiohttp.WSMsgType.TEXT:
            return _parse(message.data)
        if message.type is aiohttp.WSMsgType.CLOSE and message.data == POLICY:
            raise RefusedError(f"the gateway refuses: {self._secret.without(str(message.extra))}")
        if message.type is aiohttp.WSMsgType.CLOSE and message.data == TRY_AGAIN:
            raise CommandError("the gateway is starting")
        if message.type is aiohttp.WSMsgType.ERROR:
            raise CommandError(f"the gateway's answer cannot be read: {self._socket.exception()}")
        raise CommandError("the gateway closed the connection")


def _key(method: str, params: dict[str, Any]) -> str:
    return json.dumps([method, params], sort_keys=True)


def _settle(request: _Request, result: Answer | CommandError) -> None:
    if request.answer.done():
        return
    if isinstance(result, CommandError):
        request.answer.set_exception(CommandError(result.message))
        request.answer.exception()
    else:
        request.answer.set_result(result)


def _parse(text: str) -> Answer:
    """The frame's size is capped already; C's parser ends by itself where nesting is too deep."""
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise CommandError(f"the gateway sent what is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise CommandError("the gateway sent a frame of unknown form")
    return Answer(value, text.encode("utf-8", "replace"))


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _secret_of(settings: dict[str, Any]) -> _Secret:
    """Raises BadInputError where the configuration names a secret that is kept elsewhere."""
    gateway = settings.get("gateway")
    auth = gateway.get("auth") if isinstance(gateway, dict) else None
    auth = auth if isinstance(auth, dict) else {}
    mode = auth.get("mode", "token")
    if mode == "none":
        return _Secret({})
    value = auth.get(mode) if mode in ("token", "password") else None
    if not isinstance(value, str) or not value or "${" in value:
        raise BadInputError(f"openclaw.json itself has no gateway.auth.{str(mode)[:20]}")
    return _Secret({mode: value})
